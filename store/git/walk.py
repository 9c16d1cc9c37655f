"""The commits that touched some paths, newest first, each with what it followed.

Callers: `store.history`. Blocking; any thread.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from store.errors import RepositoryUnusable
from store.git import command
from store.git.repository import Repository

_FIRST: Final = 256
_MOST: Final = 1 << 17
"""Commits that are asked for first, and at once; each question is for twice as many as the one before."""


@dataclass(frozen=True, slots=True)
class Step:
    """A commit that touched one of the paths."""

    oid: str
    parents: tuple[str, ...]
    """The commits before it that touched one of them, on each line of history; none for the first."""


def walk_history(repository: Repository, start: str, paths: Sequence[str]) -> Iterator[Step]:
    """The commits reachable from the commit `start` that touched `paths`, newest first.

    Paths are relative to the root, literal, and not followed through renames; without any, every commit.
    Of lines of history that end in the same the first one is walked, as git does. Raises
    `RepositoryUnusable` and `StoreTimeout`.
    """
    skipped, most = 0, _FIRST
    while True:
        arguments = ["rev-list", "--parents", f"--skip={skipped}", f"--max-count={most}"]
        # From the root directory, because paths count from where one stands if `core.worktree` is above.
        done = command.run(
            arguments, directory=Path("/"), git_dir=repository.git_dir, operands=[start], paths=paths
        )
        if done.status != 0:
            raise RepositoryUnusable(
                f"the history of {repository.git_dir} cannot be read: {done.complaint}; "
                "of a shallow or damaged clone only a part is there"
            )
        lines = done.lines()
        for line in lines:
            oid, *parents = line.split(" ")
            yield Step(oid, tuple(parents))
        if len(lines) < most:
            return
        skipped, most = skipped + most, min(2 * most, _MOST)
