"""A garbage collection's plan and what came of it, for people and programs: for `fusefs gc`."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from fusefs.cli import print_error
from fusefs.cli.commit import format_size
from fusefs.collecting import Scope
from fusefs.logs import escape
from store.collecting.plan import Amount, Outcome, Plan, Progress, amount_of, by_kind


class Report:
    """A plan, what came of it, and how that is told."""

    def __init__(
        self, options: argparse.Namespace, scope: Scope, place: str, plan: Plan, ticker: Ticker
    ) -> None:
        self._options = options
        self._scope = scope
        self._place = place
        self._plan = plan
        self._outcome = Outcome()
        self._ticker = ticker

    def run(self, collect: Callable[[Plan, Outcome], None]) -> None:
        """Print the plan, and do it if that is wished. Raises what `collect` raises, when all is told."""
        self._ticker.clear()
        for note in self._scope.notes:
            print_error(f"warning: {note}")
        if not self._options.json:
            for line in self._show_plan():
                print(escape(line), flush=True)
        try:
            if self._options.yes:
                collect(self._plan, self._outcome)
        finally:
            self._ticker.clear()
            if self._options.json:
                print(json.dumps(self._describe()), flush=True)
            elif self._options.yes:
                print(escape(self._show_outcome()), flush=True)
            for note in self._outcome.notes:
                print_error(f"warning: {note}")

    def _show_plan(self) -> Iterator[str]:
        plan = self._plan
        commits, trees = self._scope.commits, len(self._scope.projects)
        revisions = f"{commits} commit{'s' * (commits != 1)} and {trees} work tree{'s' * (trees != 1)}"
        yield f"{self._place}: {_show(plan.there)}; {_show(plan.kept)} named by {revisions}"
        kinds = [_show(amount, kind) for kind, amount in by_kind(plan.garbage).items() if amount.objects]
        yield f"to be deleted: {_show(amount_of(plan.garbage))}{': ' * bool(kinds)}{', '.join(kinds)}"
        for why, amount in sorted(plan.stays.items()):
            yield f"stays: {_show(amount)} {_REASONS.get(why, why)}"
        if not self._options.yes and plan.garbage:
            yield "nothing was deleted; --yes does it"

    def _show_outcome(self) -> str:
        left = [
            f"{count} stayed {_REASONS.get(why, why)}" for why, count in sorted(self._outcome.left.items())
        ]
        return "; ".join([f"deleted {_show(amount_of(self._outcome.deleted))}", *left])

    def _describe(self) -> Mapping[str, Any]:
        """What `--json` prints; bytes are those of objects."""
        plan, outcome = self._plan, self._outcome
        return {
            "place": self._place,
            "dry_run": not self._options.yes,
            "commits": self._scope.commits,
            "projects": sorted(self._scope.identities),
            "there": plan.there._asdict(),
            "kept": plan.kept._asdict(),
            "garbage": {
                **amount_of(plan.garbage)._asdict(),
                "kinds": {kind: amount._asdict() for kind, amount in by_kind(plan.garbage).items()},
            },
            "stays": {why: amount._asdict() for why, amount in plan.stays.items()},
            "deleted": {
                **amount_of(outcome.deleted)._asdict(),
                "kinds": {kind: amount._asdict() for kind, amount in by_kind(outcome.deleted).items()},
            },
            "left": outcome.left,
            "notes": [*self._scope.notes, *outcome.notes],
        }


class Ticker:
    """A line on the terminal that tells people how far a collection is; to be called now and then."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.progress = Progress()
        self._is_shown = not options.json and sys.stderr.isatty()
        self._said = 0.0

    def __call__(self) -> None:
        if self._is_shown and time.monotonic() - self._said >= _SHOWN_SECONDS:
            self._said = time.monotonic()
            print(f"\r{escape(describe(self.progress))}\x1b[K", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Take the line away, before something else is printed."""
        if self._said:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
            self._said = 0.0


def describe(progress: Progress) -> str:
    """How far a collection is."""
    if not progress.total:
        return f"{progress.phase}: {progress.done}" if progress.done else progress.phase
    return f"{progress.phase}: {progress.done} of {progress.total}"


_SHOWN_SECONDS: Final = 0.2
_REASONS: Final = {
    "young": "younger than --grace, or named by what is",
    "unpushed": "that no remote is known to have; --unpushed deletes it, too",
    "unlogged": "that no log tells of yet",
    "unreadable": "of which it is not known what they hold; `fusefs remote fsck` says more",
    "open": "that somebody uses",
    "pinned": "with further names: pinned by a mount, or linked into a work tree",
    "other": "that is not what it should be; `fusefs cache verify` says more",
    "denied": "that belongs to somebody else",
}


_SINGULAR: Final = {"indexes": "index"}


def _show(amount: Amount, what: str = "objects") -> str:
    name = _SINGULAR.get(what, what[:-1]) if amount.objects == 1 else what
    return f"{amount.objects} {name} ({format_size(amount.bytes)})"
