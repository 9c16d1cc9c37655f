"""`fusefs gc`: what no kept revision names is deleted, of the cache or of a remote."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from fusefs.cli import print_error
from fusefs.cli.gc_report import Report, Ticker
from fusefs.cli.target_flags import add_trust_flag
from fusefs.collecting import Scope, Wish, check_whose, keep_claimed, open_scope
from fusefs.interruption import Interrupted, interruptible
from fusefs.mount_options import argument_type
from fusefs.opened_remotes import open_remotes
from fusefs.place import current_directory
from fusefs.remote_logs import copy_to_others, logged_remote, open_journal, writer_of
from store.cache_chain import CacheChain
from store.collecting.cache_side import CacheCollection
from store.collecting.kept import Kept, Manifests
from store.collecting.remote_side import RemoteCollection
from store.dvc.project import find_project
from store.dvc.remotes import add_remote
from store.errors import InputError
from store.keeping.confirmation import is_elsewhere
from store.local_cache import LocalCache
from store.remote_manifests import RemoteManifests
from store.remotes.opening import open_remote
from store.remotes.spec import RemoteSpec

GRACE: Final = "14d"
EPILOG: Final = """\
Kept is what the work trees of the project name, what is checked out in them, and what the options add.
Without --yes nothing is deleted: the plan is printed.

Of the cache nothing goes that is open or pinned, or that no remote has just said to have (unless --unpushed
is given). A remote's logs say whose its objects are: one that other projects use, or that has objects in no
log, is left alone until these projects are given, and so is one that somebody works on just now. `dvc push`
writes no logs: let nobody run it on the remote meanwhile. `git fetch` first: only revisions that are here can
be kept.

examples:
  fusefs gc --all-branches --all-tags            # the plan for the cache
  fusefs gc --all-commits --yes
  fusefs gc --all-branches --num 3 --date 2024-12-31
  fusefs gc --remote backup -aT --grace 30d --yes
  fusefs gc --remote backup -A --project ../other --json
"""
_DURATION: Final = re.compile(r"(\d{1,6})([smhdw]?)")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800, "": 1}
_DIGITS: Final = re.compile(r"([0-9a-f]{32})(\.dir)?")


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "gc",
        help="delete what no kept revision names",
        description="Delete from the cache, or from a remote, what no kept revision names.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "-w", "--workspace", action="store_true", help="keep what the work trees name (always done)"
    )
    parser.add_argument(
        "-a", "--all-branches", action="store_true", help="keep the tips of all branches, git's remotes' too"
    )
    parser.add_argument("-T", "--all-tags", action="store_true", help="keep all tags")
    parser.add_argument(
        "-A", "--all-commits", action="store_true", help="keep all commits that any reference leads to"
    )
    parser.add_argument("--all-experiments", action="store_true", help="keep all experiments of DVC's")
    parser.add_argument(
        "--rev", metavar="REV", action="append", default=[], help="keep this revision; may be repeated"
    )
    parser.add_argument(
        "-n",
        "--num",
        metavar="N",
        type=argument_type(_parse_count),
        default=1,
        help="with --rev and --all-branches: keep so many commits of each, first parents (default: 1)",
    )
    parser.add_argument(
        "--date",
        metavar="YYYY-MM-DD",
        type=argument_type(_parse_date),
        help="keep all commits since that day, which any reference leads to",
    )
    parser.add_argument(
        "-p",
        "--project",
        metavar="PATH",
        action="append",
        default=[],
        type=Path,
        help="another project that uses the cache or the remote: its revisions count, too; may be repeated",
    )
    parser.add_argument("-r", "--remote", metavar="R", help="collect there (default: in the cache)")
    parser.add_argument("--cache", metavar="DIR", type=Path, help="the cache (default: the project's)")
    parser.add_argument(
        "--grace",
        metavar="TIME",
        type=argument_type(parse_duration),
        default=parse_duration(GRACE),
        help=f"keep what is younger: 12h, 14d, 4w (default: {GRACE})",
    )
    parser.add_argument(
        "--unpushed", action="store_true", help="of the cache, delete also what no remote is known to have"
    )
    parser.add_argument(
        "--without",
        metavar="ID",
        action="append",
        default=[],
        type=argument_type(_parse_digits),
        help="a manifest that is lost, or a project that is no more: nothing is kept for it; may be repeated",
    )
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument("-y", "--yes", action="store_true", help="delete")
    chosen.add_argument("--dry-run", action="store_true", help="only print the plan (the default)")
    parser.add_argument("--json", action="store_true", help="print one object")
    add_trust_flag(parser)


def parse_duration(text: str) -> float:
    """Seconds. Raises `ValueError`."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no time such as 12h, 14d or 4w")
    return float(int(match[1]) * _SECONDS[match[2]])


def _parse_count(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or not 1 <= int(text[:10]) < 1 << 31:
        raise ValueError(f"{text!r} is no number of commits")
    return int(text)


def _parse_date(text: str) -> float:
    """When a day begins here, in seconds since the epoch. Raises `ValueError`."""
    try:
        return datetime.strptime(text, "%Y-%m-%d").astimezone().timestamp()
    except (ValueError, OverflowError):
        raise ValueError(f"{text!r} is no day such as 2024-12-31") from None


def _parse_digits(text: str) -> str:
    match = _DIGITS.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is neither a manifest nor a project: both have 32 hex digits")
    return match[1]


def run(options: argparse.Namespace) -> int:
    """Raises `StoreError` for everything foreseen."""
    wish = Wish(
        options.all_branches,
        options.all_tags,
        options.all_experiments,
        options.all_commits,
        tuple(options.rev),
        options.num,
        options.date,
    )
    if options.num > 1 and not (options.rev or options.all_branches):
        print_error("--num counts from --rev or --all-branches")
        return 2
    if options.remote and options.yes and not (options.workspace or wish.revs or wish.needs_history):
        print_error("say which revisions a remote is to keep: -w, -a, -T, -A, --date or --rev")
        return 2
    if options.remote and options.unpushed:
        print_error("--unpushed is for the cache; of a remote nothing is known to be elsewhere")
        return 2
    try:
        with interruptible(), open_scope([current_directory(), *options.project]) as scope:
            if scope.shallow and (options.remote or wish.needs_history):
                raise InputError(
                    f"{scope.shallow[0]} is a shallow clone, which does not know what else is kept; "
                    "`git fetch --unshallow` brings the rest"
                )
            return (_collect_remote if options.remote else _collect_cache)(options, scope, wish)
    except Interrupted as interrupted:
        return interrupted.status


def _collect_cache(options: argparse.Namespace, scope: Scope, wish: Wish) -> int:
    project = find_project(current_directory())
    cache = options.cache.resolve() if options.cache else project.cache_dir
    if options.unpushed:
        check_whose(cache, scope)
    ticker = Ticker(options)
    with ExitStack() as stack:
        stack.callback(ticker.clear)
        if options.yes:
            stack.enter_context(scope.locked())
        scope.read(wish)
        specs = scope.remotes(trust=options.trust)
        manifests = stack.enter_context(_manifests(scope, cache, specs))
        kept = _keep(options, scope, manifests, strictly=options.unpushed)
        remotes = stack.enter_context(open_remotes(project, cache, (), print_error, trust=options.trust))
        work = CacheCollection(
            cache,
            kept,
            manifests,
            list(remotes.values()),
            grace=options.grace,
            unpushed=options.unpushed,
            tick=ticker,
            progress=ticker.progress,
        )
        report = Report(options, scope, f"cache {cache}", work.plan(), ticker)
        scope.notes += work.notes
        report.run(work.collect)
    return 0


def _collect_remote(options: argparse.Namespace, scope: Scope, wish: Wish) -> int:
    project = find_project(current_directory())
    cache = options.cache.resolve() if options.cache else project.cache_dir
    spec = logged_remote(options.remote, project, trust=options.trust)
    if not is_elsewhere(spec, cache):
        raise InputError(
            f"the remote {spec.name} leads to the cache {cache}: collect garbage there, without --remote"
        )
    ticker = Ticker(options)
    with ExitStack() as stack:
        stack.callback(ticker.clear)
        scope.read(wish)
        specs: list[RemoteSpec] = []
        for one in (spec, *scope.remotes(trust=options.trust)):
            add_remote(specs, one)
        manifests = stack.enter_context(_manifests(scope, cache, specs))
        kept = _keep(options, scope, manifests, strictly=False)
        remote = open_remote(spec)
        stack.enter_context(closing(remote.storage))
        journal = open_journal(spec, remote.storage, cache, writer_of(current_directory()))
        work = RemoteCollection(
            remote,
            journal,
            kept,
            manifests,
            projects=frozenset([*scope.identities, *options.without]),
            grace=options.grace,
            tick=ticker,
            progress=ticker.progress,
        )
        report = Report(options, scope, f"remote {spec.name}", work.plan(), ticker)
        try:
            report.run(work.collect)
        finally:
            journal.copies.compile(journal.key)
            copy_to_others(journal, journal.written, specs)
    return 0


def _keep(options: argparse.Namespace, scope: Scope, manifests: Manifests, *, strictly: bool) -> Kept:
    kept, left_out = keep_claimed(scope.claims, manifests, frozenset(options.without), strictly=strictly)
    scope.notes += left_out
    return kept


@contextmanager
def _manifests(scope: Scope, cache: Path, specs: Sequence[RemoteSpec]) -> Iterator[Manifests]:
    """What reads manifests: from the caches of all projects, then from remotes."""
    roots = dict.fromkeys([cache, *(project.cache_dir for project in scope.projects)])
    first, *others = (LocalCache(root) for root in roots)
    with closing(CacheChain(first, *others)) as caches, closing(RemoteManifests(cache)) as remotes:
        yield Manifests(caches, lambda oids: remotes.bring(oids, specs))
