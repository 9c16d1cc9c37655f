"""`.fusefs/revs` of native mode, and the root of `mount --revs` there: every name is a link, which leads to
`.fusefs/commits` at the moment it is read.

What a name leads to may change, and that a name leads nowhere, too; an overlay keeps either for as long as it
likes. So a name is a link that is always there, and is resolved whenever it is followed; one of no revision
leads nowhere (ENOENT). Commits are directories, and never change. Live on the event loop.
"""

from __future__ import annotations

import fnmatch
import re
import stat
from typing import Final

import pyfuse3

from fusefs.attributes import FOREVER, absent
from fusefs.errnos import EINVAL, ENOENT
from fusefs.plain import ListedDirectory, PlainSpace
from fusefs.revisions import NamesDirectory, decode_name, encode_name
from fusefs.spaces import first_inode
from fusefs.versions import Versions
from store.errors import RevisionUnknown, StoreError

COMMITS: Final = b"commits"
MOST_NAMES: Final = 100_000
"""That somebody may ask for, there or not: each is remembered."""
_COMMIT: Final = re.compile(rb"[0-9a-f]{40}|[0-9a-f]{64}")


class _Directory(PlainSpace):
    """What the two have in common: row 0, a directory of names that never change. Where it is the root of a
    mount that only the user `private_to` may enter, it belongs to him."""

    def __init__(self, number: int, *, uid: int, gid: int, private_to: int = -1) -> None:
        self._first = first_inode(number)
        self._uid = uid
        self._gid = gid
        self._private_to = private_to

    def directory(self) -> pyfuse3.EntryAttributes:
        """The attributes of row 0."""
        return self._attributes(0)

    def _attributes(self, row: int) -> pyfuse3.EntryAttributes:
        entry = pyfuse3.EntryAttributes()
        entry.st_ino = pyfuse3.InodeT(self._first + row)
        entry.st_uid, entry.st_gid = self._uid, self._gid
        mode, entry.st_nlink = (stat.S_IFLNK | 0o777, 1) if row else (stat.S_IFDIR | 0o555, 2)
        entry.st_mode = pyfuse3.ModeT(mode)
        if not row and self._private_to >= 0:
            entry.st_uid, entry.st_mode = self._private_to, pyfuse3.ModeT(stat.S_IFDIR | 0o700)
        entry.entry_timeout = entry.attr_timeout = FOREVER
        return entry

    async def getattr(self, row: int) -> pyfuse3.EntryAttributes:
        return self._attributes(row)


class RevisionLinks(_Directory):
    """Row 0 is the directory, the others are the links that were asked for.

    Names are those that match `pattern`, a glob; `way` leads from here to the control directory.
    """

    def __init__(
        self,
        versions: Versions,
        number: int,
        *,
        uid: int,
        gid: int,
        private_to: int = -1,
        pattern: str = "*",
        way: bytes = b"..",
    ) -> None:
        super().__init__(number, uid=uid, gid=gid, private_to=private_to)
        self.number = number
        self._versions = versions
        self._pattern = pattern
        self._way = way
        self._rows: dict[bytes, int] = {}
        self._names: list[bytes] = [b""]

    async def lookup(self, row: int, name: bytes) -> pyfuse3.EntryAttributes:
        matches = fnmatch.fnmatchcase(decode_name(name), self._pattern)
        return self._attributes(self._row(name)) if matches else absent()

    def _row(self, name: bytes) -> int:
        row = self._rows.get(name)
        if row is None:
            if len(self._rows) >= MOST_NAMES:
                raise StoreError(f"{MOST_NAMES} names of revisions were asked for; mount it anew")
            self._versions.journal.append("link", directory=self.number, name=name)
            row = self._rows[name] = len(self._names)
            self._names.append(name)
        return row

    def link_again(self, name: bytes) -> None:
        """What the journal says of a name that a daemon before us was asked for."""
        self._row(name)

    async def readlink(self, row: int) -> bytes:
        if not row:
            raise pyfuse3.FUSEError(EINVAL)
        try:
            space = await self._versions.open(decode_name(self._names[row]))
        except RevisionUnknown:
            raise pyfuse3.FUSEError(ENOENT) from None
        return b"/".join((self._way, COMMITS, space.rev.encode()))

    def opendir(self, row: int) -> NamesDirectory:
        return NamesDirectory(self)

    async def list_names(self) -> ListedDirectory:
        entries = [(b".", self.directory()), (b"..", self.directory())]
        for rev in await self._versions.list_names(self._pattern):
            name = encode_name(rev)
            entries.append((name, self._attributes(self._row(name))))
        return ListedDirectory(entries)


class CommitsSpace(_Directory):
    """Row 0, and no other: a commit's tree is a space of its own. Never listed."""

    def __init__(self, versions: Versions, number: int, *, uid: int, gid: int) -> None:
        super().__init__(number, uid=uid, gid=gid)
        self._versions = versions
        self._number = number

    async def lookup(self, row: int, name: bytes) -> pyfuse3.EntryAttributes:
        if not _COMMIT.fullmatch(name):
            return absent()
        try:
            return (await self._versions.open(name.decode(), (self._number, name))).root(FOREVER)
        except RevisionUnknown:
            return absent()

    async def readlink(self, row: int) -> bytes:
        raise pyfuse3.FUSEError(EINVAL)

    def opendir(self, row: int) -> ListedDirectory:
        return ListedDirectory([])
