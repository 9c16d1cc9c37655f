"""`MirrorSpace`: the directories of a version as they stand in a view, and what a view makes of its files.

A row of the space is a row of the tree, and always a directory: one of the version's, or one that stands
for a file. A `Rule` says which files those are, and what is `Inside` a directory beside the version's own.
What is inside belongs to further spaces, one for each row, whose numbers follow the mirror's own. So every
inode follows from rows, and nothing is remembered of directories that are merely listed. Lives on the event
loop.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Protocol

import pyfuse3
import trio

from fusefs.attributes import DIRECTORY_BYTES, FOREVER, WORD_BYTES, absent
from fusefs.content_times import time_of
from fusefs.plain import PlainSpace
from fusefs.spaces import Space, first_inode
from fusefs.tree_space import DOTS, OID, REV, TreeSpace
from fusefs.views.view import Surroundings
from store.tree import ROOT_ROW, Tree

LISTED_AT_ONCE: Final = 1024
"""Rows. Between two such batches others get their turn: few of a million may be shown."""
_NANOSECONDS: Final = 10**9
_UNCOUNTED_LINKS: Final = 1
"""What a directory says that counts no subdirectories: a name alone tells of a file that it becomes one."""


class Inside(Protocol):
    """What stands in a directory beside what the mirror shows there. Its files are another space's."""

    async def lookup(self, name: bytes) -> pyfuse3.EntryAttributes:
        """As `Space.lookup`. A name that the mirror has, too, is the mirror's."""

    async def list(self, start: int, base: int, token: pyfuse3.ReaddirToken) -> None:
        """Reply entries from the place `start` on; the next one behind place p is at `base` + p + 1."""


class Rule(Protocol):
    """What becomes of the rows of a tree in a view."""

    def shows(self, row: int) -> bool:
        """Whether a file is listed, as a directory. By its name: it is asked of every file of a listing."""

    async def admits(self, row: int) -> bool:
        """Whether a file that is not listed is a directory for who names it. Raises `StoreError`."""

    async def enter(self, row: int) -> Inside | None:
        """What is in a row's directory beside the version's own directories; None: nothing.

        Raises `StoreError`: the directory is there and cannot be looked into.
        """

    def space(self, row: int) -> Space:
        """Answers for the files inside a row's directory, also when it has been forgotten since."""

    def inodes_of(self, rows: Sequence[int]) -> Sequence[int]:
        """See `ViewSpace`."""


class MirrorDirectory:
    """A directory that is being listed."""

    def __init__(self, mirror: MirrorSpace, row: int) -> None:
        self._mirror = mirror
        self._row = row
        self._inside: Inside | None = None
        self._is_entered = False

    async def list(self, start: int, token: pyfuse3.ReaddirToken) -> None:
        mirror, row, tree, rule = self._mirror, self._row, self._mirror.tree, self._mirror.rule
        if not self._is_entered:
            self._inside = await rule.enter(row)
            self._is_entered = True
        for place in range(start, len(DOTS)):
            if not pyfuse3.readdir_reply(
                token, DOTS[place], mirror.fill(tree.parent[row] if place else row, row), place + 1
            ):
                return
        rows, base = tree.children(row), len(DOTS)
        for place in range(max(start - base, 0), len(rows)):
            child = rows[place]
            if mirror.lists(child) and not pyfuse3.readdir_reply(
                token, tree.name(child), mirror.fill(child, row), base + place + 1
            ):
                return
            if place % LISTED_AT_ONCE == LISTED_AT_ONCE - 1:
                await trio.lowlevel.checkpoint()
        base += len(rows)
        if self._inside is not None:
            await self._inside.list(max(start - base, 0), base, token)


class MirrorSpace(PlainSpace):
    """A version through a view. `rule_of` makes the rule: it may need the mirror's numbers."""

    def __init__(
        self, version: TreeSpace, surroundings: Surroundings, rule_of: Callable[[MirrorSpace], Rule]
    ) -> None:
        self.tree: Tree = version.tree
        self.files = version.files
        self.rev = version.rev
        self._uid, self._gid = surroundings.uid, surroundings.gid
        self._mode = pyfuse3.ModeT(stat.S_IFDIR | (0o777 & ~surroundings.umask))
        self._words_per_digest = self.tree.digest_width // WORD_BYTES
        self.number = surroundings.numbers.take(self._find, 1 + self.tree.rows)
        self._root_timeout = FOREVER
        self.rule = rule_of(self)

    def _find(self, number: int) -> Space:
        return self if number == self.number else self.rule.space(number - self.number - 1)

    def first_inside(self, row: int) -> int:
        """The inode of row 0 of the space that answers for what is inside a row's directory."""
        return first_inode(self.number + 1 + row)

    def inodes_of(self, rows: Sequence[int]) -> Sequence[int]:
        """See `ViewSpace`."""
        return self.rule.inodes_of(rows)

    def supersede(self) -> None:
        """See `ViewSpace`."""
        self._root_timeout = 0

    def restore(self) -> None:
        """See `ViewSpace`."""
        self._root_timeout = FOREVER

    def root_names(self) -> Iterator[bytes]:
        """See `ViewSpace`."""
        return (self.tree.name(row) for row in self.tree.children(ROOT_ROW))

    def lists(self, row: int) -> bool:
        """Whether a row is in the listing of its directory. Symlinks are not: what they lead to is another
        thing here."""
        return self.tree.is_directory(row) or (not self.tree.is_symlink(row) and self.rule.shows(row))

    def seconds(self, row: int) -> int:
        """When a row is said to have been changed, by its content, since the epoch."""
        return time_of(self.tree.digest_words[row * self._words_per_digest])

    def fill(self, row: int, listed_in: int = -1) -> pyfuse3.EntryAttributes:
        """The attributes of a row's directory, for the listing of a directory where one is named."""
        entry = pyfuse3.EntryAttributes()
        entry.st_ino = pyfuse3.InodeT(first_inode(self.number) + row)
        entry.st_uid, entry.st_gid = self._uid, self._gid
        entry.st_mode, entry.st_nlink = self._mode, _UNCOUNTED_LINKS
        entry.st_size = DIRECTORY_BYTES
        entry.st_mtime_ns = entry.st_ctime_ns = entry.st_atime_ns = self.seconds(row) * _NANOSECONDS
        entry.attr_timeout = FOREVER
        entry.entry_timeout = self._root_timeout if listed_in == ROOT_ROW else FOREVER
        return entry

    def directory(self) -> pyfuse3.EntryAttributes:
        """The root's; whoever names it sets how long that holds."""
        return self.fill(ROOT_ROW)

    def capacity(self) -> tuple[int, int]:
        """What the version has."""
        return self.files.bytes_known, self.tree.rows

    async def lookup(self, row: int, name: bytes) -> pyfuse3.EntryAttributes:
        if name in DOTS:  # asked for only when the mount is exported by NFS
            return self.fill(self.tree.parent[row] if name == b".." else row)
        child = self.tree.lookup(row, name)
        if child is not None and (self.lists(child) or await self._is_admitted(child)):
            return self.fill(child)
        inside = await self.rule.enter(row)
        return absent() if inside is None else await inside.lookup(name)

    async def _is_admitted(self, row: int) -> bool:
        return not self.tree.is_symlink(row) and await self.rule.admits(row)

    async def getattr(self, row: int) -> pyfuse3.EntryAttributes:
        return self.fill(row)

    def opendir(self, row: int) -> MirrorDirectory:
        return MirrorDirectory(self, row)

    def xattr_names(self, row: int) -> tuple[bytes, ...]:
        names = () if self.tree.is_directory(row) else (OID,)
        return (*names, REV) if self.rev else names

    async def xattr(self, row: int, name: bytes) -> bytes | None:
        if name not in self.xattr_names(row):
            return None
        return (str(self.tree.oid(row)) if name == OID else self.rev).encode()
