"""`FetchLayer`: where the kernel looks for the bytes of an object that no cache has.

It is the last of the layers that `open` asks, laid out as a cache is. Looking up an object here fetches it
into the cache and answers ESTALE, on which the kernel repeats the whole open, once, and finds the object
there. What is large, slow, one of many or cannot be kept is answered by a file of ours that is read as in
fuse mode: the one that stands in the tree, under the same inode. A failure is answered by its errno, which is
what the reader gets; ENOENT it never is, which the kernel would remember.

Lives on the event loop.
"""

from __future__ import annotations

import re
import stat
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final

import pyfuse3
import trio

from fusefs.attributes import FOREVER, absent
from fusefs.errnos import ESTALE
from fusefs.native.forgetting import Forgetting
from fusefs.native.fresh import Fresh
from fusefs.native.held_files import HeldFiles
from fusefs.native.seen_opens import SeenOpens
from fusefs.native.stream import Stream
from fusefs.native.tree_layer import TreeLayer
from fusefs.plain import PlainSpace
from fusefs.spaces import FETCH_SPACE, first_inode
from store.cache_layers import CacheLayers
from store.digest_index import DigestIndex
from store.errors import ObjectMissing, StoreError
from store.oid import MD5, MD5_DOS2UNIX, Oid
from store.open_objects import OpenBytes, OpenObject
from store.open_objects import OpenFile as CachedFile
from store.threads import Threads
from store.tree import UNKNOWN
from store.tree_files import TreeFiles

PATIENCE: Final = 1.5
"""Seconds that a look-up takes at most, where the file's size is known: nothing can interrupt it, but reads
of a file of ours can be."""
KEEPING_SECONDS: Final = 2.0
"""How long it may take to bring what was fetched to its place."""
RETURNS: Final = 2
RETURN_SECONDS: Final = 2.0
"""The kernel asks twice before it repeats an open, which it does once: a third ESTALE is the reader's. So an
object that is looked for more often in so short a time is read through us, although it is in a cache: it was
gone from there for a moment, or came there from memory when the kernel had looked into the one and not yet
into the other, or is not seen there by the kernel at all."""
MOST_REMEMBERED: Final = 1 << 14
MOST_LOOKS: Final = 4096
"""Rows that are looked at on the loop: a dataset may have any number of empty files."""

_ROOT, _FILES, _MD5, _FIRST_MD5 = 0, 1, 2, 3
_FIRST_DOS2UNIX: Final = _FIRST_MD5 + 256
_PREFIX: Final = re.compile(rb"[0-9a-f]{2}")
_REST: Final = re.compile(rb"[0-9a-f]{30}")


class FetchLayer(PlainSpace):
    """The directories of a cache, in which every object of the versions that are shown can be looked up.

    `trees` tells those versions, `layers` what the kernel sees in the caches itself; `forgetting` has it look
    again.
    """

    def __init__(
        self,
        trees: Callable[[], Sequence[TreeLayer]],
        layers: CacheLayers,
        held: HeldFiles,
        seen: SeenOpens,
        threads: Threads,
        stream: Stream,
        forgetting: Forgetting,
        fresh: Fresh | None,
    ) -> None:
        self._stream = stream
        self._forgetting = forgetting
        self._fresh = fresh
        self._shown: set[Oid] = set()
        """What is in `fresh`."""
        self._trees = trees
        self._layers = layers
        self._held = held
        self._seen = seen
        self._threads = threads
        self._indexing = trio.Lock()
        self._indices: dict[TreeFiles, DigestIndex] = {}
        self._returned: OrderedDict[Oid, tuple[float, int]] = OrderedDict()
        """Since when the kernel was sent to find objects in the layers before us, and how often."""

    def directory(self) -> pyfuse3.EntryAttributes:
        """The attributes of its root."""
        return _attributes(_ROOT)

    async def lookup(self, row: int, name: bytes) -> pyfuse3.EntryAttributes:
        if row == _ROOT and name == b"files":
            return _attributes(_FILES)
        if row == _FILES:
            return _attributes(_MD5) if name == b"md5" else absent()
        if row in (_ROOT, _MD5):
            first = _FIRST_MD5 if row == _MD5 else _FIRST_DOS2UNIX
            return _attributes(first + int(name, 16)) if _PREFIX.fullmatch(name) else absent()
        if not _REST.fullmatch(name):
            return absent()
        algorithm, first = (MD5, _FIRST_MD5) if row < _FIRST_DOS2UNIX else (MD5_DOS2UNIX, _FIRST_DOS2UNIX)
        return await self._look_for(Oid(f"{row - first:02x}{name.decode()}", algorithm=algorithm))

    async def _look_for(self, oid: Oid) -> pyfuse3.EntryAttributes:
        tree, rows = await self._find(oid)
        files, row = tree.files, rows[0]
        if len(rows) > 1:
            await files.reconcile(rows)  # whichever of them it is for, the kernel would find it
        tree.check_size(row)  # or it would come to where the kernel finds it
        returns = self._count_returns(oid)
        if returns < RETURNS and await self._is_seen(oid, files.sizes[row]):
            self._note_return(oid)
            raise pyfuse3.FUSEError(ESTALE)
        opened = await self._open(files, row)
        if opened is not None:
            try:
                tree.check_size(row)
            except StoreError:
                files.close(opened)
                raise
            is_small = isinstance(opened, CachedFile | OpenBytes)
            if is_small and (self._is_one_of_many() or returns):
                self._forgetting.find_anew()
            elif is_small:
                self._show(files, opened)
                is_seen = await self._is_seen(oid, opened.size)
                if not is_seen:
                    with trio.move_on_after(KEEPING_SECONDS):
                        await files.await_kept(oid)
                    is_seen = await self._is_seen(oid, opened.size)
                if is_seen:
                    files.close(opened)
                    self._seen.asked(oid)
                    self._note_return(oid)
                    raise pyfuse3.FUSEError(ESTALE)
            self._held.put(files, row, opened)
        return tree.entry(row, files.sizes[row])

    def _show(self, files: TreeFiles, opened: OpenObject) -> None:
        """Have the kernel find what is in memory until it is in a cache."""
        oid = opened.oid
        if self._fresh is None or not isinstance(opened, OpenBytes) or not files.is_on_its_way(oid):
            return
        if oid not in self._shown:
            self._fresh.show(oid, opened.data)
            self._shown.add(oid)
        self._forgetting.note_shown()

    def note_settled(self, oid: Oid) -> None:
        """What was on its way into a cache is there, or cannot be kept."""
        if self._fresh is not None and oid in self._shown:
            self._shown.remove(oid)
            self._fresh.take_back(oid)

    def _is_one_of_many(self) -> bool:
        """Whether a small object that has come is to be read through us, since many came just before it."""
        is_one = self._stream.is_on()
        self._stream.note()
        return is_one

    async def _open(self, files: TreeFiles, row: int) -> OpenObject | None:
        """Fetch a file, as opening it in fuse mode does; None if that takes long. Raises the same."""
        with trio.CancelScope() as scope:
            if files.sizes[row] != UNKNOWN:
                scope.deadline = trio.current_time() + PATIENCE
            return await files.open(row)
        return None

    async def _find(self, oid: Oid) -> tuple[TreeLayer, list[int]]:
        """The files of a version that have the object for content. Raises `ObjectMissing`."""
        for tree in self._trees():
            index = self._indices.get(tree.files)
            if index is None:
                async with self._indexing:
                    index = self._indices.get(tree.files)
                    if index is None:
                        index = await self._threads.on_disk(DigestIndex, tree.tree)
                        self._indices[tree.files] = index
            is_crowded = index.looks(oid) > MOST_LOOKS
            rows = await self._threads.on_disk(index.find, oid) if is_crowded else index.find(oid)
            if rows:
                return tree, rows
        raise ObjectMissing(f"object {oid} is in no version that this mount shows")

    async def _is_seen(self, oid: Oid, known: int) -> bool:
        """Will the kernel find the object, of the length that is known of it, in a cache?"""
        try:
            length = self._layers.try_length(oid)
        except BlockingIOError:
            length = await self._threads.on_disk(self._layers.length, oid)
        return length != UNKNOWN and known in (UNKNOWN, length)

    def _count_returns(self, oid: Oid) -> int:
        """How often the kernel was just sent to find the object in the layers before us."""
        since, returns = self._returned.get(oid, (0.0, 0))
        return returns if trio.current_time() - since <= RETURN_SECONDS else 0

    def _note_return(self, oid: Oid) -> None:
        returns = self._count_returns(oid)
        since = self._returned[oid][0] if returns else trio.current_time()
        self._returned[oid] = (since, returns + 1)
        self._returned.move_to_end(oid)
        if len(self._returned) > MOST_REMEMBERED:
            self._returned.popitem(last=False)

    async def getattr(self, row: int) -> pyfuse3.EntryAttributes:
        return _attributes(row)


def _attributes(row: int) -> pyfuse3.EntryAttributes:
    entry = pyfuse3.EntryAttributes()
    entry.st_ino = pyfuse3.InodeT(first_inode(FETCH_SPACE) + row)
    entry.st_mode, entry.st_nlink = pyfuse3.ModeT(stat.S_IFDIR | 0o755), 2
    entry.entry_timeout = entry.attr_timeout = FOREVER
    return entry
