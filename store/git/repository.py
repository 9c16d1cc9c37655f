"""`Repository`: a git repository that is read: its commits by name, its objects, its trees.

Nothing here touches the working tree, the index or a lock. git's own check of the owner
(`safe.directory`) is made once, when the repository is opened.

Callers: `store.git.files`, `store.git.clones`, and what opens revisions. Blocking; any thread.
"""

from __future__ import annotations

import fnmatch
import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from store.errors import ObjectCorrupt, ObjectMissing, RepositoryUnusable, RevisionUnknown
from store.git import command, revisions
from store.git.commit import Commit, parse_commit
from store.git.objects import Fetch, Objects, is_oid
from store.git.trees import Trees

_COMMIT_LIMIT: Final = 16 << 20
"""Bytes of a commit or tag object, whose message may be long."""

_TAGS_DEEP: Final = 10
_HASHES: Final = ("sha1", "sha256")
_ABOUT: Final = ("--show-object-format", "--absolute-git-dir")
_Places = tuple[str, Path, Path, Path | None]
"""The hash's name, the git directory, that of the objects, the work tree."""

_TAGGED: Final = re.compile(rb"object ([0-9a-f]+)\ntype (\w+)\n")


@dataclass(frozen=True, slots=True)
class Repository:
    """An opened repository. To be closed, or used in `with`: processes stay open in it."""

    git_dir: Path
    """Absolute; of a linked work tree its own, which leads to the repository's."""
    work_tree: Path | None
    """Absolute; None for a bare repository, and where the path was inside the git directory."""
    objects: Objects
    trees: Trees

    @classmethod
    def open(cls, path: Path, fetch: Fetch | None = None) -> Self:
        """The repository that `path` lies in: a work tree or anything below it, or a bare repository.

        `path` need not exist, but then a directory above it. Raises `RepositoryUnusable`, also where
        git refuses because somebody else owns it, and `StoreTimeout`.
        """
        start = _nearest_directory(path)
        found = _ask(start, None, *_ABOUT, "--git-path", "objects", "--show-toplevel")
        hash_name, git_dir, objects_path, work_tree = _read_places(start, found) or _ask_places(start, path)
        if work_tree is not None and not start.resolve().is_relative_to(work_tree.resolve()):
            work_tree = None  # `core.worktree` may say anything
        if hash_name not in _HASHES:
            raise RepositoryUnusable(
                f"{path}: its objects are named by {hash_name!r}, which is not known here"
            )
        objects = Objects(objects_path, hash_name, fetch)
        return cls(git_dir, work_tree, objects, Trees(objects))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the processes that answer for the objects."""
        self.objects.close()

    def resolve(self, rev: str) -> Commit:
        """The commit that `rev` names: anything that `git rev-parse` takes, or a DVC experiment.

        Raises `RevisionUnknown` (with the nearest names), also for a tree or a blob and for what two
        refs share as a name; `ObjectMissing`, `ObjectCorrupt` and `StoreTimeout`.
        """
        oid = revisions.find_oid(self.git_dir, rev)
        for _ in range(_TAGS_DEEP):
            try:
                kind, data = self.objects.read_any(oid, ("commit", "tag"), _COMMIT_LIMIT)
            except ObjectMissing:
                if is_oid(rev):  # which git takes for a revision whether it is there or not
                    raise RevisionUnknown(f"no commit {rev} in {self.git_dir}; git fetch it first") from None
                raise
            except ObjectCorrupt:
                kind = self.objects.header(oid).kind
                if kind in ("commit", "tag"):
                    raise
                raise RevisionUnknown(f"{rev!r} names a {kind}, not a commit") from None
            if kind == "commit":
                return parse_commit(data, oid)
            tagged = _TAGGED.match(data)
            if tagged is None:
                break
            oid = tagged[1].decode()
        raise RevisionUnknown(f"{rev!r} names a tag that leads to no commit")

    def commit(self, oid: str) -> Commit:
        """The commit of that oid. Raises what `Objects.read` raises."""
        return parse_commit(self.objects.read(oid, "commit", _COMMIT_LIMIT), oid)

    def names(self, pattern: str = "*") -> list[str]:
        """Tags and branches that match a glob, sorted; `*` matches `/` as well, as for `git tag`.

        A name that is a tag and a branch comes twice: as `tags/NAME` and as `heads/NAME`.
        """
        return [name for name in revisions.list_names(self.git_dir) if fnmatch.fnmatchcase(name, pattern)]

    def commits(self, paths: Sequence[str], limit: int, start: str = "HEAD") -> list[Commit]:
        """At most `limit` commits that touched one of `paths`, newest first, from `start` back.

        Paths are relative to the root, literal, and not followed through renames; none means all
        commits. Raises as `resolve` does, and `RepositoryUnusable`.
        """
        oid = self.resolve(start).oid
        listing = ["rev-list", f"--max-count={max(limit, 0)}"]
        # From the root directory, because paths count from where one stands if `core.worktree` is above.
        done = command.run(listing, directory=Path("/"), git_dir=self.git_dir, operands=[oid], paths=paths)
        if done.status != 0:
            raise RepositoryUnusable(f"the history of {self.git_dir} cannot be read: {done.complaint}")
        return [self.commit(line) for line in done.lines()]

    @property
    def remote_url(self) -> str | None:
        """Where `origin` is, as the configuration has it; there may be a secret in it."""
        asked = command.run(
            ["config", "--get", "remote.origin.url"],
            directory=self.git_dir,
            git_dir=self.git_dir,
            limit=1 << 16,
        )
        return _one_path(asked.output) or None if asked.status == 0 else None


def _nearest_directory(path: Path) -> Path:
    start = path.absolute()
    for directory in (start, *start.parents):
        try:
            if directory.is_dir():
                return directory
        except OSError:  # denied, or a name that is too long: what is above may do
            continue
    return Path("/")


def _read_places(start: Path, found: command.Done) -> _Places | None:
    """What one question answered; None where a path of several lines makes it unclear, or git refused.

    Without a work tree git stops at the last part, having said the others.
    """
    lines = found.lines()
    if len(lines) != (4 if found.status == 0 else 3):
        return None
    hash_name, git_dir, objects, *work_tree = lines
    # Real, because git counts from where it stands, and that directory may go.
    place = Path(os.path.realpath(start / objects))
    return hash_name, Path(git_dir), place, Path(work_tree[0]) if work_tree else None


def _ask_places(start: Path, path: Path) -> _Places:
    """The same, one by one. Raises `RepositoryUnusable`."""
    found = _ask(start, None, *_ABOUT)
    if found.status != 0:
        raise _unusable(path, found)
    hash_name, _, git_dir_path = _one_path(found.output).partition("\n")
    git_dir = Path(git_dir_path)
    inside = _ask(start, None, "--show-toplevel")
    work_tree = Path(_one_path(inside.output)) if inside.status == 0 else None
    stored = _ask(git_dir, git_dir, "--git-path", "objects")
    if stored.status != 0:
        raise _unusable(path, stored)
    return hash_name, git_dir, git_dir / _one_path(stored.output), work_tree


def _ask(directory: Path, git_dir: Path | None, *questions: str) -> command.Done:
    return command.run(["rev-parse", *questions], directory=directory, git_dir=git_dir, limit=1 << 16)


def _one_path(output: bytes) -> str:
    return os.fsdecode(output.removesuffix(b"\n"))


def _unusable(path: Path, done: command.Done) -> RepositoryUnusable:
    if match := re.search(r"dubious ownership in repository at '(.*)'", done.errors):
        owned = shlex.quote(match[1])
        return RepositoryUnusable(
            f"the repository {match[1]} belongs to somebody else, and git does not read it; "
            f"if you trust it: git config --global --add safe.directory {owned}"
        )
    if "not a git repository" in done.complaint:
        return RepositoryUnusable(f"{path} is in no git repository")
    return RepositoryUnusable(f"git cannot read the repository of {path}: {done.complaint}")
