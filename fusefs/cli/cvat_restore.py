"""`fusefs restore` of a backup that CVAT wrote: a version, and its metafile."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any, BinaryIO

from fusefs.cli import print_error
from fusefs.cli.commit import TerminalProgress, format_size
from fusefs.logs import escape
from store.backup.cvat.restoring import CvatBackup, Version
from store.commit.metafile import compose_metafile, content_fields, read_metafile, replace_file
from store.dvc.metafile import parse_dvc_file
from store.dvc.project import find_project
from store.errors import InputError
from store.local_cache import LocalCache


def restore_zip(options: argparse.Namespace, file: BinaryIO, started: float) -> int:
    """Restore, prove or list; the exit status. Raises `StoreError`."""
    backup = CvatBackup(file, options.file)
    described: dict[str, Any] = {"name": backup.name, "tasks": list(backup.tasks), "bytes": backup.size}
    if options.list:
        print(json.dumps(described) if options.json else "\n".join(map(escape, backup.tasks)))
        return 0
    told = TerminalProgress() if sys.stderr.isatty() and not options.json else None
    if told is not None:
        told.begin(len(backup.files), backup.size)
    try:
        update = told.update if told is not None else lambda *_: None
        if options.verify:
            backup.prove(update)
            line = f"proved {len(backup.files)} files ({format_size(backup.size)})"
        else:
            version, metafile = _restore(options, backup, update)
            described |= {"oid": str(version.oid), "metafile": str(metafile)}
            described |= {"restored": version.found.restored, "here": version.found.here}
            here = f"{version.found.here} {'was' if version.found.here == 1 else 'were'} here"
            size = format_size(version.size)
            line = f"{metafile}\nrestored {version.nfiles} files ({size}), {here}"
    finally:
        if told is not None:
            told.end()
    seconds = time.monotonic() - started
    if options.json:
        print(json.dumps(described | {"seconds": round(seconds, 3)}))
    else:
        print("\n".join(map(escape, f"{line}; {seconds:.1f} s".split("\n"))))
    return 0


def _restore(options: argparse.Namespace, backup: CvatBackup, update: Any) -> tuple[Version, Path]:
    """The version, and the metafile that records it."""
    path = options.directory / f"{backup.name}.dvc"
    there = read_metafile(path) if path.parent.is_dir() else None
    cache = LocalCache((options.cache or find_project(options.directory.resolve()).cache_dir).absolute())
    try:
        version = backup.restore(cache, update)
    finally:
        cache.close()
    for warning in version.warnings:
        print_error(f"warning: {escape(warning)}")
    if there is not None:
        if [(one.path, one.oid) for one in parse_dvc_file(there, str(path))] != [(backup.name, version.oid)]:
            raise InputError(f"{path} is there and records something else; move it away to have this one")
        return version, path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from None
    fields = content_fields(version.oid, version.size, version.nfiles, isexec=False)
    replace_file(path, compose_metafile(None, str(path), backup.name, fields))
    return version, path
