"""`GitFiles`: the files of a commit, as the rest of the store reads files.

Only the trees on the way to a path are read: a repository of a million files costs as many look-ups
as the path has parts. For a mount of the whole there is `entries`.

Callers: what reads metafiles at a revision (`store.dvc`), and whole-project trees. Blocking; any thread.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from errno import EIO, EISDIR, ENOENT, ENOTDIR
from itertools import islice
from typing import Final, NamedTuple, NoReturn

from store.dvc.files import Item
from store.errors import ObjectCorrupt, ObjectMissing, RepositoryUnusable
from store.git.commit import Commit
from store.git.repository import Repository
from store.git.trees import Mode, TreeEntry

ENTRIES_LIMIT: Final = 20_000_000
"""Entries of one commit. A few small trees that name each other many times unfold to more atoms than
there are; that is an attack."""

PATH_LIMIT: Final = 4096
"""Bytes of a path."""

_SIZED_AT_ONCE: Final = 1000
_DAMAGED: Final = (ObjectCorrupt, ObjectMissing, RepositoryUnusable)


class GitEntry(NamedTuple):
    """A file, symlink or submodule. A tuple, because there may be millions."""

    path: bytes
    mode: Mode
    oid: str
    size: int | None
    """Bytes; None for a submodule and for a blob that a partial clone has not fetched."""


@dataclass(frozen=True, slots=True)
class GitFiles:
    """The `Files` of `commit`. Symlinks are not followed: reading one is refused."""

    repository: Repository
    commit: Commit

    def read(self, path: str, limit: int) -> bytes | None:
        """At most `limit` + 1 bytes of the file at `path`; None where nothing is.

        Verified unless there are more than `limit`. Raises `OSError` for what cannot be read and for
        what is no regular file, and `StoreTimeout`.
        """
        entry = self._look_up(path)
        if entry is None:
            return None
        if entry.mode not in (Mode.FILE, Mode.EXECUTABLE):
            code = EIO if entry.mode is Mode.SYMLINK else EISDIR
            raise OSError(code, _NOT_READ[entry.mode], path)
        try:
            return self.repository.objects.read_beginning(entry.oid, limit + 1)
        except _DAMAGED as error:
            _raise_oserror(error, path)

    def list(self, path: str) -> list[Item]:
        """What the directory `path` holds, sorted; a submodule is an empty directory. Raises `OSError`."""
        entry = self._look_up(path)
        if entry is None:
            raise OSError(ENOENT, os.strerror(ENOENT), path)
        if entry.mode is Mode.SUBMODULE:
            return []
        if entry.mode is not Mode.TREE:
            raise OSError(ENOTDIR, os.strerror(ENOTDIR), path)
        try:
            tree = self.repository.trees.read(entry.oid)
        except _DAMAGED as error:
            _raise_oserror(error, path)
        directories = (Mode.TREE, Mode.SUBMODULE)
        items = [Item(os.fsdecode(one.name), one.mode in directories) for one in tree.values()]
        return sorted(items, key=lambda item: item.name)

    def exists(self, path: str) -> bool:
        """Whether anything has that path; False where a directory on the way cannot be read."""
        try:
            return self._look_up(path) is not None
        except OSError:
            return False

    def find(self, path: str) -> TreeEntry | None:
        """The entry at `path`, of whatever mode; the root is the empty path.

        Raises what `Trees.read` raises.
        """
        entry = TreeEntry(b"", Mode.TREE, self.commit.tree)
        for name in os.fsencode(path).split(b"/") if path else ():
            if entry.mode is not Mode.TREE:
                return None
            below = self.repository.trees.read(entry.oid).get(name)
            if below is None:
                return None
            entry = below
        return entry

    def entries(self, prefix: str = "") -> Iterator[GitEntry]:
        """Everything below the directory `prefix` but directories, depth first, in git's order.

        Paths are relative to the root. Raises `RepositoryUnusable` for hostile trees and for more
        than `ENTRIES_LIMIT` entries, and what `Objects.read` raises.
        """
        leaves = self._leaves(prefix)
        total = 0
        while some := list(islice(leaves, _SIZED_AT_ONCE)):
            total += len(some)
            if total > ENTRIES_LIMIT:
                raise RepositoryUnusable(
                    f"commit {self.commit.oid} unfolds to more than {ENTRIES_LIMIT} files; it is refused"
                )
            blobs = [entry.oid for _, entry in some if entry.mode is not Mode.SUBMODULE]
            sizes = iter(self.repository.objects.sizes(blobs))
            for path, entry in some:
                size = None if entry.mode is Mode.SUBMODULE else next(sizes)
                yield GitEntry(path, entry.mode, entry.oid, size)

    def prefetch(self, wanted: Callable[[str], bool]) -> None:
        """In a partial clone, fetch at once the files and symlinks whose paths are `wanted` (metafiles, say).

        Raises what `Objects.prefetch` and `entries` raise.
        """
        oids = [
            entry.oid
            for path, entry in islice(self._leaves(""), ENTRIES_LIMIT)
            if entry.mode is not Mode.SUBMODULE and wanted(os.fsdecode(path))
        ]
        self.repository.objects.prefetch(oids)

    def _leaves(self, prefix: str) -> Iterator[tuple[bytes, TreeEntry]]:
        start = self.find(prefix)
        if start is None:
            return
        # Not recursive: a tree may be as deep as its author liked. The rest of a tree waits as an
        # iterator, so that one level is held and not what lies below it.
        root = os.fsencode(prefix)
        waiting = [(root, iter((start._replace(name=b""),)))]
        while waiting:
            above, rest = waiting[-1]
            entry = next(rest, None)
            if entry is None:
                waiting.pop()
                continue
            path = b"/".join(part for part in (above, entry.name) if part)
            if len(path) > PATH_LIMIT:
                raise RepositoryUnusable(f"commit {self.commit.oid} holds a path of more than 4096 bytes")
            if entry.mode is Mode.TREE:
                waiting.append((path, iter(self.repository.trees.read(entry.oid).values())))
            else:
                yield path, entry

    def _look_up(self, path: str) -> TreeEntry | None:
        try:
            return self.find(path)
        except _DAMAGED as error:
            _raise_oserror(error, path)


_NOT_READ: Final = {
    Mode.TREE: os.strerror(EISDIR),
    Mode.SUBMODULE: "a submodule; those are not followed",
    Mode.SYMLINK: "a symlink; those are not followed in a revision",
}


def _raise_oserror(error: Exception, path: str) -> NoReturn:
    """As the protocol has it: one file that cannot be read is reported beside those that can."""
    raise OSError(EIO, str(error), path) from None
