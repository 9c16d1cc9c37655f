"""What a repository holds on to: its work trees, and all commits that a reference leads to.

Callers: `fusefs.collecting`. Blocking; any thread.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from store.errors import RepositoryUnusable
from store.git import command
from store.git.commit import Commit
from store.git.objects import is_oid
from store.git.repository import Repository
from store.git.revisions import list_refs


@dataclass(frozen=True, slots=True)
class WorkTree:
    """A work tree of a repository, its main one or a linked one."""

    path: Path
    head: str
    """The commit that is checked out, on a branch or detached; empty before the first commit."""


def list_work_trees(repository: Repository) -> list[WorkTree]:
    """All of them, also those whose directories are not there. Raises `RepositoryUnusable`."""
    listing = ["worktree", "list", "--porcelain", "-z"]
    done = command.run(listing, directory=repository.git_dir, git_dir=repository.git_dir)
    if done.status != 0:
        raise RepositoryUnusable(f"the work trees of {repository.git_dir} cannot be listed: {done.complaint}")
    found = []
    for part in os.fsdecode(done.output).split("\0\0"):
        fields = dict(line.partition(" ")[::2] for line in part.split("\0") if line)
        if "worktree" in fields and "bare" not in fields:
            head = fields.get("HEAD", "")
            found.append(WorkTree(Path(fields["worktree"]), head if is_oid(head) and int(head, 16) else ""))
    return found


def is_shallow(repository: Repository) -> bool:
    """Is only the end of the history here? Raises `RepositoryUnusable`."""
    question = ["rev-parse", "--is-shallow-repository"]
    asked = command.run(question, directory=repository.git_dir, git_dir=repository.git_dir, limit=1 << 16)
    if asked.status != 0:
        raise RepositoryUnusable(f"the history of {repository.git_dir} cannot be read: {asked.complaint}")
    return asked.lines() != ["false"]


def all_commits(repository: Repository, heads: Sequence[str]) -> list[str]:
    """Every commit that a reference of any kind, or one of `heads`, leads to, the newest first.

    Raises `RepositoryUnusable`."""
    arguments = ["rev-list", "--all"]
    done = command.run(arguments, directory=repository.git_dir, git_dir=repository.git_dir, operands=heads)
    if done.status != 0:
        raise RepositoryUnusable(f"the history of {repository.git_dir} cannot be read: {done.complaint}")
    return [line for line in done.lines() if is_oid(line)]


def first_parents(repository: Repository, commit: str, count: int) -> list[str]:
    """A commit and those before it, `count` in all or as many as there are; of a merge the first parent.

    Raises `RepositoryUnusable`."""
    arguments = ["rev-list", "--first-parent", f"--max-count={count}"]
    done = command.run(arguments, directory=repository.git_dir, git_dir=repository.git_dir, operands=[commit])
    if done.status != 0:
        raise RepositoryUnusable(f"the history of {repository.git_dir} cannot be read: {done.complaint}")
    return [line for line in done.lines() if is_oid(line)]


def tips(repository: Repository, spaces: Iterable[str]) -> list[Commit]:
    """The commits that the references below `spaces` lead to; those to trees and files lead to none.

    Raises what `Repository.resolve` raises."""
    oids = dict.fromkeys(oid for _, oid in list_refs(repository.git_dir, *spaces))
    found = []
    for oid in oids:
        kind = repository.objects.header(oid).kind
        if kind == "commit":
            found.append(repository.commit(oid))
        elif kind == "tag":  # of a tag
            found.append(repository.resolve(oid))
    return found
