"""`fusefs remote`: what the logs of remotes tell, and a remote held against them."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fusefs.cli import print_error
from fusefs.cli.commit import format_size
from fusefs.interruption import Interrupted, interruptible
from fusefs.logs import escape
from fusefs.opened_remotes import open_remotes
from fusefs.place import current_directory
from fusefs.remote_homes import RemoteHomes
from fusefs.remote_logs import copy_to_others, logged_remote, open_journal, writer_of
from store.cache_chain import CacheChain
from store.dvc.project import Project, find_project
from store.dvc.remotes import settle_remotes
from store.local_cache import LocalCache
from store.oid import DVC_ALGORITHMS, Oid
from store.oplog.checking import Check
from store.oplog.copies import LogCopies
from store.oplog.identities import remote_key
from store.oplog.logs import Log
from store.oplog.mending import Mender
from store.oplog.publishing import Publication
from store.oplog.report import Report, Wishes
from store.oplog.transactions import Journal
from store.remotes.opening import open_remote
from store.remotes.remote import Remote
from store.remotes.spec import RemoteSpec
from store.tree import UNKNOWN

ACTIONS: Final = ("log", "where", "fsck", "publish")
LISTED: Final = 20
"""Of each kind of finding, without --json."""
EPILOG: Final = """\
Every push writes to the remote what it is about to do and what it has done. Copies of these logs lie in the
cache, so that where an object is, and how large, is known without asking.

  log R       the transactions of the remote R
  where OID   which remotes and published caches have the object, by what is known here; nobody is asked
  fsck R      hold R against its logs: what is lost, damaged or in no log; transactions that died are ended
  publish R   tell all who use R what the cache here has: `where` names it to them

examples:
  fusefs remote log backup
  fusefs remote where 5d41402abc4b2a76b9719d911017c592
  fusefs remote fsck backup --deep --repair
"""


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "remote",
        help="what the logs of remotes tell; check and mend a remote",
        description="Tell from the logs of remotes what they hold; check and mend a remote.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("action", metavar="ACTION", choices=ACTIONS)
    parser.add_argument("operand", metavar="R|OID", help="a remote's name, URL or path; an object's digits")
    parser.add_argument("--cache", metavar="DIR", type=Path, help="the cache (default: the project's)")
    parser.add_argument("--json", action="store_true", help="print one object")
    parser.add_argument("--offline", action="store_true", help="log: only what is known here")
    parser.add_argument("--deep", action="store_true", help="fsck: read all objects, and hash them")
    parser.add_argument(
        "--repair", action="store_true", help="fsck: mend from the cache, or from another remote"
    )
    parser.add_argument(
        "--adopt", action="store_true", help="fsck: take into the logs what is there and in none"
    )
    parser.add_argument(
        "--forget", action="store_true", help="fsck: strike from the logs what is lost for good"
    )
    parser.add_argument(
        "--end-open",
        action="store_true",
        help="fsck: no machine works on an open transaction any more; logs that are torn go",
    )
    parser.add_argument("--trust", action="store_true", help="trust the project's configuration as your own")


def run(options: argparse.Namespace) -> int:
    """Raises `StoreError` for everything foreseen."""
    project = find_project(current_directory())
    cache = options.cache.resolve() if options.cache else project.cache_dir
    action = {"log": _log, "where": _where, "fsck": _fsck, "publish": _publish}[options.action]
    try:
        with interruptible():
            return action(options, project, cache)
    except Interrupted as interrupted:
        return interrupted.status


@contextmanager
def _opened(
    options: argparse.Namespace, project: Project, cache: Path
) -> Iterator[tuple[RemoteSpec, Remote, Journal]]:
    spec = logged_remote(options.operand, project, trust=options.trust)
    remote = open_remote(spec)
    with closing(remote.storage):
        yield spec, remote, open_journal(spec, remote.storage, cache, writer_of(current_directory()))


def _log(options: argparse.Namespace, project: Project, cache: Path) -> int:
    with _opened(options, project, cache) as (_, _, journal):
        if not options.offline:
            journal.refresh()
        logs = sorted(journal.copies.logs(journal.key), key=lambda log: (log.name.transaction, str(log.name)))
        held = journal.copies.settle(journal.key)
    for note in journal.notes:
        print_error(f"warning: {note}")
    opened = {one.begin.name.transaction for one in held.open}
    if options.json:
        told = [_describe_log(log, log.name.transaction in opened) for log in logs]
        known = {"objects": len(held.there), "unsure": len(held.unsure), "latest": held.latest}
        print(json.dumps({"logs": told, **known, "projects": sorted(held.projects)}))
        return 0
    for log in logs:
        print(escape(_show_log(log, log.name.transaction in opened)))
    unsure = f", {len(held.unsure)} unsure" if held.unsure else ""
    print(f"{len(held.there)} objects there by {len(logs)} logs{unsure}")
    return 0


def _counts(log: Log) -> dict[str, int]:
    return dict(sorted(Counter(record.op for record in log.records).items()))


def _describe_log(log: Log, is_open: bool) -> dict[str, Any]:
    name = log.name
    return {
        "kind": name.kind,
        "transaction": name.transaction,
        "project": name.project,
        "access": name.access,
        "after": log.after,
        "operations": _counts(log),
        "open": is_open,
        "fault": log.fault or None,
    }


def _show_log(log: Log, is_open: bool) -> str:
    counts = ", ".join(f"{count} {op}" for op, count in _counts(log).items()) or "nothing"
    what = f"skipped: {log.fault}" if log.fault else counts
    return f"{log.name.transaction}  {log.name.kind:5}  by {log.name.access}  {what}{'  (open)' * is_open}"


@dataclass(frozen=True, slots=True)
class Place:
    """Somewhere that an object is."""

    remote: str
    oid: Oid
    size: int


def _where(options: argparse.Namespace, project: Project, cache: Path) -> int:
    """0 where it is somewhere; 1 where nothing is known of it."""
    places = find_places(options.operand, project, cache, trust=options.trust)
    if options.json:
        told = [
            {
                "remote": place.remote,
                "oid": str(place.oid),
                "algorithm": place.oid.algorithm,
                "size": None if place.size == UNKNOWN else place.size,
            }
            for place in places
        ]
        print(json.dumps({"places": told}))
    else:
        for place in places:
            size = "size unknown" if place.size == UNKNOWN else f"{place.size} bytes"
            print(escape(f"{place.remote}  {place.oid}  {size}"))
        if not places:
            print_error(f"no log tells of {options.operand}")
    return 0 if places else 1


def find_places(text: str, project: Project, cache: Path, *, trust: bool) -> list[Place]:
    """Where the object is whose digits the user gave, as a file or, without `.dir`, as a manifest.

    No remote is asked. Raises `InputError`."""
    oids = [Oid.parse(text, algorithm) for algorithm in DVC_ALGORITHMS]
    if not oids[0].is_tree:
        oids += [Oid(oid.digest, is_tree=True, algorithm=oid.algorithm) for oid in oids]
    homes = RemoteHomes(trust=trust)
    configured = settle_remotes(homes.of_project(project), (), homes.own, ()).remotes
    names = {remote_key(spec): spec.name for spec in configured}
    places: list[Place] = []
    local = LocalCache(cache)
    with closing(local):
        places += [Place("cache", oid, local.size(oid)) for oid in oids if local.has(oid)]
    copies = LogCopies(cache)
    for key in copies.remotes():
        compiled = copies.compile(key)
        if compiled is None:
            continue
        found = [(oid, compiled.find(oid)) for oid in oids]
        name = names.get(key) or copies.name(key) or f"remote {key[:8]}"
        places += [Place(name, oid, size) for oid, size in found if size is not None]
    return places


def _publish(options: argparse.Namespace, project: Project, cache: Path) -> int:
    with _opened(options, project, cache) as (spec, remote, journal):
        publication = Publication(journal.writer, cache, journal.key)
        key, count = publication.key, publication.publish(remote.storage)
    if options.json:
        print(json.dumps({"remote": spec.name, "cache": key, "objects": count}))
    else:
        print(escape(f"{spec.name}: cache {key[:8]} has {count} objects"))
    return 0


def _fsck(options: argparse.Namespace, project: Project, cache: Path) -> int:
    """0 where everything that the logs tell of is there and sound, now."""
    wishes = Wishes(
        deep=options.deep,
        repair=options.repair,
        adopt=options.adopt,
        forget=options.forget,
        end_all=options.end_open,
    )
    with ExitStack() as stack:
        spec, remote, journal = stack.enter_context(_opened(options, project, cache))
        caches = CacheChain(LocalCache(cache))
        stack.callback(caches.close)
        others: list[Remote] = []
        if options.repair:
            opened = open_remotes(project, cache, (), print_error, trust=options.trust)
            known = stack.enter_context(opened)
            others = [
                one for identity, one in known.items() if identity.split()[-1] != spec.identity.split()[-1]
            ]
        tick = _Ticker() if sys.stderr.isatty() and not options.json else None
        check = Check(remote, journal, Mender(caches, others), wishes, tick or _nothing)
        if tick is not None:
            tick.report = check.report
        try:
            check.run()
        finally:
            if tick is not None:
                tick.end()
        homes = RemoteHomes(trust=options.trust)
        all_specs = settle_remotes(homes.of_project(project), (), homes.own, ()).remotes
        copy_to_others(journal, journal.written, all_specs)
    report = check.report
    if options.json:
        print(json.dumps(_describe(spec.name, report)))
    else:
        _show(spec.name, report)
    for note in report.notes:
        print_error(f"warning: {note}")
    return 1 if any(not finding.mended for finding in report.findings) and not options.forget else 0


def _nothing() -> None:
    """Nobody looks."""


class _Ticker:
    """A line on the terminal that counts what was hashed."""

    report: Report = Report()

    def __call__(self) -> None:
        objects = f"{self.report.hashed} of {self.report.objects} objects hashed"
        print(f"\r{objects if self.report.hashed else 'looking'}\x1b[K", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _describe(name: str, report: Report) -> dict[str, Any]:
    return {
        "remote": name,
        "listed": report.can_list,
        "objects": report.objects,
        "bytes": report.bytes,
        "known": report.known,
        "hashed": report.hashed,
        "findings": [
            {"oid": str(one.oid), "what": one.what, "said": one.said, "mended": one.mended or None}
            for one in report.findings
        ],
        "strays": [str(oid) for oid in report.strays],
        "stray_files": [
            {"path": one.path, "bytes": one.size, "said": one.said} for one in report.stray_files
        ],
        "adopted": report.adopted,
        "corrected": report.corrected,
        "ended": report.ended,
        "running": report.running,
        "base": report.base,
        "notes": report.notes,
    }


def _show(name: str, report: Report) -> None:
    for one in report.findings[:LISTED]:
        mended = f"; mended from {one.mended}" if one.mended else ""
        print(escape(f"{one.oid}  {one.what}: {one.said}{mended}"))
    for oid in report.strays[:LISTED]:
        print(f"{oid}  in no log")
    for stray in report.stray_files[:LISTED]:
        print(escape(f"{stray.path}  {stray.said}"))
    left = sum(max(len(some) - LISTED, 0) for some in (report.findings, report.strays, report.stray_files))
    if left:
        print(f"… and {left} more; --json names all")
    parts = [f"{name}: {report.objects} objects ({format_size(report.bytes)})", f"{report.known} in the logs"]
    counts = Counter(one.what for one in report.findings)
    parts += [f"{count} {kind}" for kind, count in sorted(counts.items())]
    repaired = sum(bool(one.mended) for one in report.findings)
    numbers = {
        "mended": repaired,
        "in no log": len(report.strays),
        "stray files of content directories": len(report.stray_files),
        "adopted": report.adopted,
        "of another size than logged": report.corrected,
        "hashed": report.hashed,
        "dead transactions ended": len(report.ended),
        "open transactions": len(report.running),
    }
    parts += [f"{number} {label}" for label, number in numbers.items() if number]
    print(escape(", ".join(parts)))
