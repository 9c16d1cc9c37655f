"""`fusefs restore FILE [DIR]`: the versions of a backup, into a cache and as metafiles, on any machine."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from fusefs.backing_up import missing_of, places
from fusefs.cli import print_error
from fusefs.cli.commit import TerminalProgress, format_size
from fusefs.cli.cvat_restore import restore_zip
from fusefs.interruption import Interrupted, interruptible
from fusefs.logs import escape
from store.backup.cvat.restoring import MAGIC
from store.backup.format import Header, Recorded
from store.backup.reading import BackupReader
from store.backup.restoring import Restored, restore_objects, verify_backup
from store.cache_chain import CacheChain
from store.commit.metafile import compose_metafile, content_fields, read_metafile, replace_file
from store.dvc.metafile import parse_dvc_file
from store.dvc.project import find_project
from store.errors import InputError, StoreError
from store.local_cache import LocalCache
from store.making.used_views import note_view
from store.oid import MD5

EPILOG = """\
Objects go into the cache, proved by their hashes, and each version's metafile into DIR, where `fusefs mount`
and `dvc checkout` find it. A metafile that is there and says something else is left as it is, and said. What
is in the cache already is passed over, so that an interrupted restore is run again. FILE `-` is standard
input.

A backup that CVAT wrote, of a task or a project, becomes one version, named after it: its media, its
`task.json` and `annotations.json`, which `fusefs backup --format cvat` writes back.

Frames and chunks in a backup are worth what whoever wrote it is: no hash tells what a frame must be. Of a
stranger's backup take the objects alone, with --no-derived.

examples:
  fusefs restore data.fusefs
  fusefs restore data.fusefs project --cache /srv/cache
  fusefs restore --verify data.fusefs       read and prove all of it, and write nothing
  fusefs restore --list data.fusefs
"""


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "restore",
        help="bring the versions of a backup back",
        description="Restore what `fusefs backup` wrote. Exit status 1 where something of it is damaged.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", metavar="FILE", help="the backup; - for standard input")
    parser.add_argument(
        "directory", metavar="DIR", nargs="?", type=Path, default=Path(), help="where (default: here)"
    )
    parser.add_argument(
        "--cache", metavar="DIR", type=Path, help="the cache (default: that of DIR's project)"
    )
    parser.add_argument(
        "--no-derived", action="store_true", help="leave frames and chunks out that are in the backup"
    )
    modes = parser.add_mutually_exclusive_group()
    modes.add_argument("--verify", action="store_true", help="prove all of the backup, and write nothing")
    modes.add_argument(
        "--list", action="store_true", help="print the versions in the backup, and read no more"
    )
    parser.add_argument("--json", action="store_true", help="print one object about it")


def run(options: argparse.Namespace) -> int:
    started = time.monotonic()
    try:
        with interruptible(), _opened(options.file) as file:
            if file.peek(len(MAGIC[0]))[: len(MAGIC[0])] in MAGIC:
                return restore_zip(options, file, started)
            reader = BackupReader(file, "the backup" if options.file == "-" else options.file)
            if options.list:
                _print_list(reader.header, as_json=options.json)
                return 0
            return _restore(options, reader, started)
    except Interrupted as interrupted:
        return interrupted.status


def _restore(options: argparse.Namespace, reader: BackupReader, started: float) -> int:
    header = reader.header
    told = TerminalProgress() if sys.stderr.isatty() and not options.json else None
    if told is not None:
        told.begin(header.members, header.all_bytes)
    try:
        update = told.update if told is not None else lambda *_: None
        faults: list[str] = []
        metafiles: list[str] = []
        if options.verify:
            found = verify_backup(reader, update)
        else:
            cache = LocalCache(
                (options.cache or find_project(options.directory.resolve()).cache_dir).absolute()
            )
            found = restore_objects(reader, cache, update, with_products=not options.no_derived)
            if found.products:
                for view in header.views:
                    _note(cache.root, view)
            metafiles = _record(header, options.directory, CacheChain(cache), faults)
            cache.close()
    finally:
        if told is not None:
            told.end()
    faults += [f"object {oid} is damaged in the backup" for oid in found.damaged]
    faults += [f"the product {key} is damaged in the backup" for key in found.damaged_products]
    if found.fault:
        faults.append(found.fault)
    for fault in faults:
        print_error(fault)
    seconds = time.monotonic() - started
    if options.json:
        print(json.dumps(_describe(header, found, metafiles, seconds)))
    else:
        for line in _summarize(found, metafiles, seconds, verified=options.verify):
            print(escape(line))
    return 1 if faults else 0


def _note(cache: Path, view: str) -> None:
    """Note a view whose products have come; what is no view is nobody's."""
    from fusefs.views.kinds import parse_view  # what decodes is slow to import

    with contextlib.suppress(ValueError):
        note_view(cache, parse_view(view))


def _record(header: Header, directory: Path, cache: CacheChain, faults: list[str]) -> list[str]:
    """Write the metafiles of what is here whole. Those that are there now; `faults` has why not others."""
    written = []
    for place, output in places(header.outputs):
        lacking = missing_of(output, cache)
        if lacking:
            first = f"; restore the backup of {header.since[0]} first" if header.since else ""
            faults.append(f"{output.path!r} was not recorded: {lacking} of its objects are not here{first}")
            continue
        path = directory / place
        try:
            wanted = _metafile_of(output)
            there = read_metafile(path) if path.parent.is_dir() else None
            if there is None:
                path.parent.mkdir(parents=True, exist_ok=True)
                replace_file(path, wanted)
            elif not _records(there, place, output):
                raise InputError(f"{path} is there and records something else; move it away to have this one")
        except StoreError as error:
            faults.append(str(error))
        except OSError as error:
            faults.append(f"cannot write {path}: {error.strerror}")
        else:
            written.append(str(path))
    return written


def _metafile_of(output: Recorded) -> bytes:
    """The output's metafile as it was, if it is what it should be; else one that says what is known."""
    if output.metafile and _records(output.metafile.encode(), output.path, output):
        return output.metafile.encode()
    fields = content_fields(output.oid, output.size or 0, output.nfiles, output.isexec)
    if output.size is None:
        del fields["size"]
    if output.oid.algorithm != MD5:
        del fields["hash"]
    return compose_metafile(None, output.path, output.path.rpartition("/")[2], fields)


def _records(data: bytes, where: str, output: Recorded) -> bool:
    """Is that a metafile of this output, and of nothing else?"""
    try:
        outputs = parse_dvc_file(data, where)
    except InputError:
        return False
    name = output.path.rpartition("/")[2]
    return [(one.path, one.oid) for one in outputs] == [(name, output.oid)]


@contextlib.contextmanager
def _opened(name: str) -> Iterator[io.BufferedReader[Any]]:
    if name == "-":
        yield cast("io.BufferedReader[Any]", sys.stdin.buffer)
        return
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise InputError(f"cannot read {name}: {error.strerror}") from None
    with open(descriptor, "rb", buffering=1 << 20) as file:
        yield cast("io.BufferedReader[Any]", file)


def _print_list(header: Header, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(_describe(header, None, [], 0.0)))
        return
    for output in header.outputs:
        revision = output.revision
        named = f"{revision.name or revision.oid[:10]}  {revision.subject}".strip()
        print(escape(f"{output.oid}  {output.path}  {named}".rstrip()))


def _describe(
    header: Header, found: Restored | None, metafiles: Sequence[str], seconds: float
) -> dict[str, Any]:
    """What `--json` prints; `bytes` and `seconds` are numbers."""
    described: dict[str, Any] = {
        "versions": [
            {"path": output.path, "oid": str(output.oid), "rev": output.revision.oid or None}
            for output in header.outputs
        ],
        "since": [str(oid) for oid in header.since],
        "objects": header.objects,
        "bytes": header.content_bytes,
        "views": list(header.views),
    }
    if found is not None:
        described |= {
            "restored": found.restored,
            "here": found.here,
            "products": found.products,
            "products_here": found.products_here,
            "damaged_products": found.damaged_products,
            "damaged": [str(oid) for oid in found.damaged],
            "metafiles": list(metafiles),
            "seconds": round(seconds, 3),
        }
    return described


def _summarize(found: Restored, metafiles: Sequence[str], seconds: float, *, verified: bool) -> list[str]:
    verb = "proved" if verified else "restored"
    made = f" and {found.products} product{'s' * (found.products != 1)}" if found.products else ""
    parts = [
        f"{verb} {found.restored} object{'s' * (found.restored != 1)}{made} ({format_size(found.bytes)})"
    ]
    if not verified:
        here = found.here + found.products_here
        parts.append(f"{here} {'was' if here == 1 else 'were'} here")
    return [*metafiles, f"{', '.join(parts)}; {seconds:.1f} s"]
