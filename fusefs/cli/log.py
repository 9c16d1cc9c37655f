"""`fusefs log TARGET`: the versions of a dataset, newest first. Needs no mount, and no data."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from itertools import chain, islice
from pathlib import Path
from typing import Any

from fusefs.cli import print_error
from fusefs.cli.commit import format_size
from fusefs.cli.json_array import print_array
from fusefs.dataset import compiled_trees
from fusefs.logs import escape
from fusefs.place import is_in_git, open_place, split_target
from store.errors import InputError, NotStored, NotTracked, RevisionUnknown, StoreError
from store.history import Delta, Followed, LoggedVersion, read_history
from store.local_cache import LocalCache
from store.tracker import open_tracker
from store.tree_sizes import Tally

EPILOG = """\
TARGET is a .dvc file, a tracked file or directory, a path in one, or any directory of the project. A
commit is listed if the content of TARGET is another there than before. `?` is what cannot be told
because a manifest or an object is not in the cache.

examples:
  fusefs log data
  fusefs log data@v1.0
  fusefs log --rev main -n 5 --repo https://example.org/project.git data/images
  fusefs log --json data | jq -r '.[] | .commit'
"""


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "log",
        help="list the versions of a dataset",
        description="List the versions of a dataset, newest first: commit, date, author, tags, what changed.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("target", metavar="TARGET", help="a tracked path, with --repo from its root")
    parser.add_argument("--rev", metavar="REV", default="", help="where to start (default: HEAD)")
    parser.add_argument("--repo", metavar="REPO", default="", help="a repository's directory or URL")
    parser.add_argument("--cache", metavar="DIR", type=Path, help="the cache (default: the project's)")
    parser.add_argument("-n", dest="most", metavar="N", type=_positive, help="at most so many versions")
    parser.add_argument("--no-changes", action="store_true", help="do not read manifests to count changes")
    parser.add_argument("--json", action="store_true", help="an array of objects")


def run(options: argparse.Namespace) -> int:
    cache = options.cache and options.cache.resolve()
    with ExitStack() as stack:
        followed = _follow(options.target, options.rev, options.repo, cache, stack)
        versions = islice(read_history(followed, counting=not options.no_changes), options.most)
        found = _require_one(versions, followed)
        if options.json:
            print_array(describe(version) for version in found)
            return 0
        for number, version in enumerate(found):
            if number:
                print()
            for line in summarize(version, changes=not options.no_changes):
                print(escape(line), flush=True)
    return 0


def _require_one(versions: Iterator[LoggedVersion], followed: Followed) -> Iterator[LoggedVersion]:
    """The same versions. Raises `NotTracked` where there is none, as for a path that an output never had."""
    first = next(versions, None)
    if first is None:
        raise NotTracked(f"no version of {followed.name} in the history of {followed.start.oid[:10]}")
    return chain((first,), versions)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


def _follow(target: str, rev: str, repo: str, cache: Path | None, stack: ExitStack) -> Followed:
    """What is followed, and from where; a target `PATH@REV` is split where its left side is tracked."""
    if not target:
        raise InputError("an empty target names nothing; give a tracked path")
    failure: StoreError | None = None
    for path, start in [(target, rev or "HEAD")] if rev or "@" not in target else _readings(target, repo):
        with ExitStack() as opened:
            try:
                place = opened.enter_context(open_place(path, repo, cache))
                commit, notice = place.resolve(start)
                partial = place.clone is not None
                tracker = open_tracker(place.repository, commit, place.path, path, partial=partial)
            except (NotTracked, NotStored) as error:
                failure = failure or error
                continue
            except RevisionUnknown as error:
                # A path before the sign, but no such revision: that is what is wrong.
                failure = failure if isinstance(failure, RevisionUnknown) else error
                continue
            if notice is not None:
                print_error(f"warning: {notice}")
            stack.enter_context(opened.pop_all())
            return Followed(
                place.repository, tracker, commit, LocalCache(place.cache), compiled_trees(), target
            )
    raise failure or NotTracked(f"{target} does not lie in a git repository")


def _readings(target: str, repo: str) -> Iterator[tuple[str, str]]:
    """The ways to read a target with `@` in it: path, revision."""
    for path, rev in split_target(target):
        if repo or is_in_git(Path(path)):
            yield path, rev
    yield target, "HEAD"


def describe(version: LoggedVersion) -> dict[str, Any]:
    """What `--json` prints of a version; numbers that cannot be known are null."""
    commit, delta = version.commit, version.delta
    return {
        "commit": commit.oid,
        "date": datetime.fromtimestamp(commit.time, UTC).isoformat(),
        "author": commit.author,
        "subject": commit.subject,
        "tags": list(version.tags),
        "oid": version.oid or None,
        "files": version.total.files,
        "bytes": version.total.size,
        "added": _describe_tally(delta.added if delta else None),
        "changed": _describe_tally(delta.changed if delta else None),
        "removed": _describe_tally(delta.removed if delta else None),
        "problem": version.problem or None,
    }


def _describe_tally(tally: Tally | None) -> dict[str, int | None] | None:
    return None if tally is None else {"files": tally.files, "bytes": tally.size}


def summarize(version: LoggedVersion, *, changes: bool) -> Iterator[str]:
    """The lines about a version, for people."""
    commit = version.commit
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(commit.time))
    tags = f"  ({', '.join(version.tags)})" if version.tags else ""
    yield f"{commit.oid[:12]}  {when}  {commit.author}{tags}"
    yield f"    {commit.subject}"
    if version.problem:
        yield f"    cannot be read: {version.problem}"
        return
    yield "    " + "  ".join([_total(version.total), *(_changes(version.delta) if changes else ())])


def _total(total: Tally) -> str:
    files = "? files" if total.files is None else f"{total.files:,} file{'s' * (total.files != 1)}"
    return f"{files}, {_size(total.size)}"


def _changes(delta: Delta | None) -> list[str]:
    if delta is None:
        return ["added ?, changed ?, removed ?"]
    tallies = {"added": delta.added, "changed": delta.changed, "removed": delta.removed}
    told = [f"{verb} {tally.files:,} ({_size(tally.size)})" for verb, tally in tallies.items() if tally.files]
    return [", ".join(told)] if told else []


def _size(size: int | None) -> str:
    return "? bytes" if size is None else format_size(size)
