"""`RevisionsSpace`: a directory of versions, each under its name, opened when it is looked up.

`.fusefs/revs` of every mount, where any revision may be named, and the root of `fusefs mount --revs`,
where those do that match. A `/` in a name is `%2F` here, and a `%` is `%25`. What a name leads to is
asked again a second after; an inode that was found stays with its commit.

Row 0 is the directory. The other rows are placeholders for names in a listing: nothing is opened to
list it, and a placeholder is looked up before it is used, because its entry is not kept.
"""

from __future__ import annotations

import fnmatch
import re
import stat
from collections.abc import Mapping
from typing import Any, Final, Protocol

import pyfuse3

from fusefs.attributes import FOREVER, absent
from fusefs.control import DIRECTORY_SECONDS
from fusefs.plain import ListedDirectory, PlainSpace
from fusefs.spaces import first_inode
from fusefs.tree_space import DOTS, TreeSpace
from fusefs.versions import Versions
from store.errors import RevisionUnknown

MOVING_SECONDS: Final = 1.0
_COMMIT: Final = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


def encode_name(rev: str) -> bytes:
    """A revision as a file name."""
    return rev.replace("%", "%25").replace("/", "%2F").encode("utf-8", "surrogateescape")


def decode_name(name: bytes) -> str:
    """A file name as a revision."""
    text = name.decode("utf-8", "surrogateescape")
    return text.replace("%2F", "/").replace("%2f", "/").replace("%25", "%")


class HasNames(Protocol):
    """A directory whose names somebody else knows."""

    async def list_names(self) -> ListedDirectory: ...


class NamesDirectory:
    """A listing of names that are asked for when it is first read."""

    def __init__(self, space: HasNames) -> None:
        self._space = space
        self._listed: ListedDirectory | None = None

    async def list(self, start: int, token: pyfuse3.ReaddirToken) -> None:
        if self._listed is None:
            self._listed = await self._space.list_names()
        await self._listed.list(start, token)


class RevisionsSpace(PlainSpace):
    """Names of revisions that match `pattern` (a glob; empty: any that git knows)."""

    def __init__(self, versions: Versions, pattern: str, *, number: int, uid: int, gid: int) -> None:
        self._versions = versions
        self._pattern = pattern
        self._number = number
        self._uid = uid
        self._gid = gid
        self._rows: dict[bytes, int] = {}
        self._found: dict[bytes, TreeSpace] = {}

    def directory(self) -> pyfuse3.EntryAttributes:
        return self._attributes(0)

    def _attributes(self, row: int) -> pyfuse3.EntryAttributes:
        entry = pyfuse3.EntryAttributes()
        entry.st_ino = pyfuse3.InodeT(first_inode(self._number) + row)
        entry.st_uid, entry.st_gid = self._uid, self._gid
        entry.st_mode, entry.st_nlink = pyfuse3.ModeT(stat.S_IFDIR | 0o555), 2
        entry.entry_timeout = entry.attr_timeout = 0 if row else DIRECTORY_SECONDS
        return entry

    async def lookup(self, row: int, name: bytes) -> pyfuse3.EntryAttributes:
        if name in DOTS:  # asked for only when the mount is exported by NFS
            return self._attributes(row if name == b"." else 0)
        rev = decode_name(name)
        if row or (self._pattern and not fnmatch.fnmatchcase(rev, self._pattern)):
            return _unknown()
        try:
            space = await self._versions.open(rev, (self._number, name))
        except RevisionUnknown:
            self._found.pop(name, None)
            return _unknown()
        if self._found.get(name) is not space:
            self._versions.journal.append("found", directory=self._number, name=name, number=space.number)
            self._found[name] = space
        return space.root(FOREVER if _COMMIT.fullmatch(rev) else MOVING_SECONDS)

    def find_again(self, values: Mapping[str, Any]) -> None:
        """What the journal says of a name's directory. Raises KeyError where that is not open."""
        self._found[values["name"]] = self._versions.space(values["number"])

    async def list_names(self) -> ListedDirectory:
        entries = [(b".", self.directory()), (b"..", self.directory())]
        for rev in await self._versions.list_names(self._pattern or "*"):
            name = encode_name(rev)
            entries.append((name, self._listed(name)))
        return ListedDirectory(entries)

    def _listed(self, name: bytes) -> pyfuse3.EntryAttributes:
        """What a listing says of a name: a placeholder, or the directory that was found there last.

        That one may be somebody's working directory, and an entry that says otherwise would take its
        name away.
        """
        space = self._found.get(name)
        if space is None:
            return self._attributes(self._rows.setdefault(name, len(self._rows) + 1))
        entry = self._attributes(0)
        entry.st_ino = pyfuse3.InodeT(first_inode(space.number))
        entry.st_mode = space.root(0).st_mode
        entry.entry_timeout = entry.attr_timeout = 0
        return entry

    async def getattr(self, row: int) -> pyfuse3.EntryAttributes:
        return self._attributes(row)

    def opendir(self, row: int) -> NamesDirectory | ListedDirectory:
        return ListedDirectory([]) if row else NamesDirectory(self)

    def capacity(self) -> tuple[int, int]:
        return 0, len(self._rows)


def _unknown() -> pyfuse3.EntryAttributes:
    """Not there now; a tag of that name may come."""
    entry = absent()
    entry.entry_timeout = MOVING_SECONDS
    return entry
