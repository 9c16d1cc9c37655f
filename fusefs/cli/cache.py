"""`fusefs cache`: what is kept, and making less of it; reading it again, and mending what went bad."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from fusefs import mountinfo
from fusefs.cli import print_error
from fusefs.cli.commit import format_size
from fusefs.cli.scrub import repair, verify
from fusefs.directories import cache_directory
from fusefs.interruption import Interrupted, interruptible
from fusefs.logs import escape
from fusefs.mount_options import parse_cache_size, parse_remote
from fusefs.opened_remotes import open_remotes
from fusefs.place import current_directory
from fusefs.status import LimitsStatus, Status
from fusefs.survey import survey
from store.budget import Limits
from store.dvc.project import Project, find_project
from store.keeping.cache_locks import SWEEPING, sole
from store.keeping.confirmation import confirm_now
from store.keeping.kinds import kinds_of_cache, kinds_of_user
from store.keeping.records import Fetched
from store.keeping.sweep import Measured, Outcome, Stock, Sweep
from store.ledger import Ledger

ACTIONS: Final = ("list", "trim", "verify", "repair")
EPILOG: Final = """\
What you committed, and what DVC brought, is never deleted. Of the objects that fusefs fetched those go that
were not used for longest, what was used only once before what is used again and again; each only after its
remote has said that it still has it, and none that is open or pinned. Interrupted, verify goes on where it
stopped.

  list      what is kept: how many, how large, unused since when, where (the default)
  trim      delete until --cache-size and --cache-free are kept, and what is too old
  verify    read the objects that fusefs fetched again (--all: all of them); exits with 1 for corrupt ones
  repair    the same, and fetch those again that are corrupt

examples:
  fusefs cache
  fusefs cache trim --cache-size 500G --dry-run
  fusefs cache verify --json | jq -r '.corrupt[].oid'
  fusefs cache repair --cache /srv/cache
"""


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "cache",
        help="list, trim, verify and repair what is kept",
        description="List, trim, verify and repair what fusefs keeps in a cache and in your own directory.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("action", metavar="ACTION", nargs="?", default="list", choices=ACTIONS)
    parser.add_argument("path", metavar="PATH", nargs="?", default="", help="a path in the project")
    parser.add_argument("--cache", metavar="DIR", type=Path, help="the cache (default: the project's)")
    parser.add_argument("--json", action="store_true", help="print one object")
    for name, what in (("size", "keep at most so much"), ("free", "leave so much of the disk free")):
        parser.add_argument(
            f"--cache-{name}", metavar="SIZE", type=_size, default=0, help=f"trim: {what}, 500G perhaps"
        )
    parser.add_argument("--dry-run", action="store_true", help="trim: only say what would go")
    parser.add_argument("--all", action="store_true", help="verify: also what fusefs did not fetch")
    parser.add_argument(
        "--remote",
        metavar="NAME|URL",
        type=_remote,
        action="append",
        default=[],
        help="trim, repair: ask this remote (default: those of the project); may be repeated",
    )
    parser.add_argument("--trust", action="store_true", help="trust the project's configuration as your own")


def run(options: argparse.Namespace) -> int:
    """Raises `StoreError` for everything foreseen."""
    project = find_project(Path(options.path) if options.path else current_directory())
    cache = options.cache.resolve() if options.cache else project.cache_dir
    action = {"list": _list, "trim": _trim, "verify": verify, "repair": repair}[options.action]
    try:
        with closing(Ledger(cache, create=False)) as ledger, interruptible():
            return action(options, ledger, project)
    except Interrupted as interrupted:
        return interrupted.status


def _size(text: str) -> int:
    try:
        return parse_cache_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _remote(text: str) -> str:
    try:
        return parse_remote(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _sweep(ledger: Ledger) -> Sweep:
    return Sweep(ledger, (*kinds_of_cache(ledger.cache), *kinds_of_user(cache_directory())))


def _list(options: argparse.Namespace, ledger: Ledger, _: Project) -> int:
    measured = _sweep(ledger).measure()
    limited = find_limits(ledger.cache)
    if options.json:
        print(json.dumps(describe(ledger.cache, measured, limited), indent=2))
        return 0
    for line in tabulate(ledger.cache, measured, limited):
        print(escape(line))
    return 0


def find_limits(cache: Path) -> list[Status]:
    """The mounts that keep what they fetch in this cache within limits."""
    found = survey(mountinfo.visible_mounts(mountinfo.read_mounts()))
    return [
        one.status
        for one in found
        if one.status.limits is not None
        and one.status.limits.cache == str(cache)
        and (one.status.limits.size or one.status.limits.free)
    ]


def _stocks(cache: Path, measured: Measured) -> Sequence[Stock]:
    objects = measured.objects
    return (Stock("objects", cache, objects.objects, objects.bytes, objects.oldest), *measured.stocks)


def describe(cache: Path, measured: Measured, limited: Sequence[Status]) -> dict[str, Any]:
    """What `--json` prints; bytes are those on the disk, times seconds since the epoch."""
    return {
        "cache": str(cache),
        "kinds": [
            {
                "kind": stock.name,
                "count": stock.count,
                "bytes": stock.bytes,
                "oldest_use": stock.oldest,
                "place": str(stock.place),
            }
            for stock in _stocks(cache, measured)
        ],
        "bytes": measured.kept,
        "free": measured.free if measured.free >= 0 else None,
        "limits": [
            {"mountpoint": status.mountpoint, "size": status.limits.size, "free": status.limits.free}
            for status in limited
            if status.limits is not None
        ],
    }


def tabulate(cache: Path, measured: Measured, limited: Sequence[Status]) -> list[str]:
    """Lines for people."""
    rows = [("KIND", "COUNT", "SIZE", "UNUSED SINCE", "WHERE")]
    for stock in _stocks(cache, measured):
        oldest = "" if stock.oldest is None else datetime.fromtimestamp(stock.oldest, UTC).strftime("%F %R")
        rows.append((stock.name, str(stock.count), format_size(stock.bytes), oldest, str(stock.place)))
    rows.append(("total", "", format_size(measured.kept), "", ""))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    free = [f"{format_size(measured.free)} free on the cache's disk"] if measured.free >= 0 else []
    limits = [_show_limits(status.limits, status.mountpoint) for status in limited if status.limits]
    return [line.rstrip() for line in (*lines, *free, *limits)]


def _show_limits(limits: LimitsStatus, mountpoint: str) -> str:
    size = [f"at most {format_size(limits.size)}"] if limits.size else []
    free = [f"{format_size(limits.free)} left free"] if limits.free else []
    return f"limits: {', '.join((*size, *free))}, by the mount on {mountpoint}"


def _trim(options: argparse.Namespace, ledger: Ledger, project: Project) -> int:
    limits = Limits(options.cache_size, options.cache_free)
    sweep = _sweep(ledger)
    with _lock_sweeping(ledger, options.dry_run) as alone:
        if not alone:
            print_error(f"somebody else is trimming {ledger.cache} just now; try again later")
            return 1
        before = sweep.begin(limits, dry=options.dry_run)
        with open_remotes(project, ledger.cache, options.remote, print_error, trust=options.trust) as remotes:
            while (batch := sweep.next_batch()) is not None:
                objects = [thing for thing in batch if isinstance(thing, Fetched)]
                sweep.drop(batch, confirm_now(objects, remotes) if objects else set())
    outcome = sweep.outcome
    if options.json:
        print(json.dumps(_describe_trim(outcome, before, options.dry_run)))
    else:
        print(_summarize_trim(outcome, options.dry_run))
    if outcome.finished:
        return 0
    print_error(f"the limits are not kept: {_why(outcome)}")
    return 1


@contextmanager
def _lock_sweeping(ledger: Ledger, dry: bool) -> Iterator[bool]:
    """Looking needs no lock, and must leave nothing behind in a cache without a ledger."""
    if dry or not ledger.path.exists():
        yield True
        return
    with sole(ledger.cache, SWEEPING) as alone:
        yield alone


def _describe_trim(outcome: Outcome, before: Measured, dry: bool) -> dict[str, Any]:
    return {
        "dry_run": dry,
        "objects": outcome.objects,
        "others": outcome.others,
        "freed": outcome.freed,
        "bytes": before.kept - (0 if dry else outcome.freed),
        "within_limits": outcome.finished,
        "stayed": outcome.kept,
    }


def _summarize_trim(outcome: Outcome, dry: bool) -> str:
    verb = "would go" if dry else "deleted"
    things = f", {outcome.others} other things" if outcome.others else ""
    plural = "s" * (outcome.objects != 1)
    return f"{outcome.objects} object{plural}{things} {verb}, {format_size(outcome.freed)}"


_REASONS: Final = {
    "unconfirmed": "whose remote could not say that it has them",
    "busy": "while a commit is under way",
    "open": "that are open",
    "pinned": "that a mount pins",
    "other": "that are not what they should be; run `fusefs cache verify`",
    "denied": "that belong to somebody else",
}


def _why(outcome: Outcome) -> str:
    stayed = [f"{count} {_REASONS.get(why, why)}" for why, count in sorted(outcome.kept.items())]
    return f"objects stayed, {'; '.join(stayed)}" if stayed else "nothing else is fusefs's to delete"
