"""The view `shards`: a version as tar archives for WebDataset and whoever else reads streams.

A directory of `000000.tar`, `000001.tar` and so on, and `dataset.json`, which says how many. Nothing is made:
a shard is computed headers around the objects' bytes (`store.shards`). Its size follows from the sizes of its
files, so `stat` and `open` of a shard wait for these where they are not known, and a listing does not.

Row 0 is the directory, row 1 `dataset.json`, shard n is row n + 2. Lives on the event loop.
"""

from __future__ import annotations

import stat
from array import array
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Generic, TypeVar
from weakref import WeakValueDictionary

import pyfuse3
import trio
import xxhash

from fusefs.attributes import BLOCK_BYTES, DIRECTORY_BYTES, FOREVER, PREFERRED_READ, absent
from fusefs.content_times import time_of
from fusefs.errnos import EISDIR
from fusefs.kernel_caches import forget_file
from fusefs.plain import BytesFile, PlainSpace
from fusefs.spaces import OpenFile, first_inode
from fusefs.tree_space import DOTS, TreeSpace
from fusefs.views.view import Surroundings
from store.errors import ObjectCorrupt
from store.shards.dataset import DATASET_NAME, dataset_json
from store.shards.layout import Layout, Shard, shard_name, shard_number
from store.shards.reader import Allowance, ShardReader
from store.shards.recipe import ShardsRecipe
from store.tree import ROOT_ROW, UNKNOWN

LAYOUTS_KEPT: Final = 4
"""Of a million files one takes 12 MB."""
SHARDS_KEPT: Final = 16
"""Between `stat` and `open`; who has one open keeps it himself."""
ROWS_KEPT: Final = 1 << 16
"""Files of a shard that is kept so: a larger one is laid out again, unless somebody has it open."""

_DATASET_ROW: Final = 1
_FIRST_SHARD: Final = 2
_NANOSECONDS: Final = 10**9

K = TypeVar("K")
V = TypeVar("V")


class _Latest(Generic[K, V]):
    """What was used last, at most `most`."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: OrderedDict[K, V] = OrderedDict()

    def get(self, key: K) -> V | None:
        value = self._kept.get(key)
        if value is not None:
            self._kept.move_to_end(key)
        return value

    def put(self, key: K, value: V) -> None:
        self._kept[key] = value
        self._kept.move_to_end(key)
        while len(self._kept) > self._most:
            self._kept.popitem(last=False)

    def drop(self, key: K) -> None:
        self._kept.pop(key, None)


class ShardsView:
    """The view in one mount, and what all its spaces share."""

    def __init__(self, surroundings: Surroundings) -> None:
        self.surroundings = surroundings
        self.allowance = Allowance()
        self.layouts: _Latest[int, Layout] = _Latest(LAYOUTS_KEPT)
        self.shards: _Latest[tuple[int, int], Shard] = _Latest(SHARDS_KEPT)
        self.open_shards: WeakValueDictionary[tuple[int, int], Shard] = WeakValueDictionary()

    async def open(self, version: TreeSpace, recipe: str) -> ShardsSpace:
        parsed = ShardsRecipe.parse(recipe)
        layout = await self.lay_out(version, parsed)
        space = ShardsSpace(self, version, parsed, layout.shards)
        self.layouts.put(space.number, layout)
        return space

    async def lay_out(self, version: TreeSpace, recipe: ShardsRecipe) -> Layout:
        """Cut a version: a second or so a million files. Raises `StoreTimeout`."""
        threads = self.surroundings.engine.threads
        return await threads.on_disk(Layout, version.tree, recipe, version.files.sizes)


def make_view(surroundings: Surroundings) -> ShardsView:
    return ShardsView(surroundings)


class _ShardFile:
    """An open shard. `corrections` tells when it was laid out anew last: then this one is outdated."""

    direct: Final = False

    def __init__(self, reader: ShardReader, name: str, corrections: Callable[[], int]) -> None:
        self._reader = reader
        self._name = name
        self._corrections = corrections
        self._opened_at = corrections()

    async def read(self, offset: int, length: int) -> bytes | memoryview:
        data = await self._reader.read(offset, length)
        if self._corrections() != self._opened_at:  # its bytes would stand among others in the page cache
            raise ObjectCorrupt(
                f"{self._name} was opened before one of its files was corrected; open it again"
            )
        return data

    def close(self) -> None:
        self._reader.close()


class _Listing:
    """The directory while it is being listed."""

    def __init__(self, space: ShardsSpace) -> None:
        self._space = space

    async def list(self, start: int, token: pyfuse3.ReaddirToken) -> None:
        for place, (name, row) in enumerate(self._space.names(start), start + 1):
            if not pyfuse3.readdir_reply(token, name, self._space.listed(row), place):
                return


class ShardsSpace(PlainSpace):
    """A version cut as one recipe wants it, into so many `shards`."""

    def __init__(self, view: ShardsView, version: TreeSpace, recipe: ShardsRecipe, shards: int) -> None:
        surroundings = view.surroundings
        self._view = view
        self._version = version
        self._files = version.files
        self._recipe = recipe
        self._shards = shards
        self._threads = surroundings.engine.threads
        self._start_soon = surroundings.engine.nursery.start_soon
        self._owner = (surroundings.uid, surroundings.gid)
        self._umask = surroundings.umask
        self.number = surroundings.numbers.take(lambda _: self)
        self._laying_out = trio.Lock()
        # What is known of a shard since it was first laid out, or of `dataset.json`.
        self._sizes = array("q", [UNKNOWN]) * (_FIRST_SHARD + shards)
        self._times = array("q", [0]) * (_FIRST_SHARD + shards)
        self._corrections = 0
        self._corrected: dict[int, int] = {}
        """Shards that were told otherwise before, and when the last time was."""
        self._outdated: set[int] = set()
        """Those of which the kernel may have pages of before."""
        digest = version.tree.digest_of(ROOT_ROW) + f"{version.oid} {recipe}".encode()
        self._times[ROOT_ROW] = self._times[_DATASET_ROW] = time_of(xxhash.xxh3_64_intdigest(digest))
        self._listing_timeout = FOREVER

    # As a view

    def directory(self) -> pyfuse3.EntryAttributes:
        return self._attributes(ROOT_ROW)

    def root_names(self) -> list[bytes]:
        return [name for name, _ in self.names(len(DOTS))]

    def supersede(self) -> None:
        self._listing_timeout = 0.0

    def restore(self) -> None:
        self._listing_timeout = FOREVER

    def inodes_of(self, rows: Sequence[int]) -> Sequence[int]:
        self._corrections += 1
        layout = self._view.layouts.get(self.number)
        numbers = range(self._shards) if layout is None else layout.shards_of(rows)
        told = [number for number in numbers if self._sizes[_FIRST_SHARD + number] != UNKNOWN]
        for number in told:
            self._corrected[number] = self._corrections
            self._outdated.add(number)
            self._sizes[_FIRST_SHARD + number] = UNKNOWN
            self._view.shards.drop((self.number, number))
            self._view.open_shards.pop((self.number, number), None)
        first = first_inode(self.number)
        self._sizes[_DATASET_ROW] = UNKNOWN
        return [first + _DATASET_ROW, *(first + _FIRST_SHARD + number for number in told)]

    # As a space

    def names(self, start: int) -> Iterator[tuple[bytes, int]]:
        """Names and rows of a listing from a place on."""
        beside = [*((dot, ROOT_ROW) for dot in DOTS), (DATASET_NAME.encode(), _DATASET_ROW)]
        yield from beside[start:]
        for number in range(max(0, start - len(beside)), self._shards):
            yield shard_name(number).encode(), _FIRST_SHARD + number

    def listed(self, row: int) -> pyfuse3.EntryAttributes:
        """The entry of a listing."""
        entry = self._attributes(row)
        entry.entry_timeout = self._listing_timeout
        return entry

    def _attributes(self, row: int) -> pyfuse3.EntryAttributes:
        entry = pyfuse3.EntryAttributes()
        entry.st_ino = pyfuse3.InodeT(first_inode(self.number) + row)
        entry.st_uid, entry.st_gid = self._owner
        entry.st_blksize = PREFERRED_READ
        entry.entry_timeout = entry.attr_timeout = FOREVER
        if row == ROOT_ROW:
            entry.st_mode, entry.st_nlink = pyfuse3.ModeT(stat.S_IFDIR | (0o777 & ~self._umask)), 2
            entry.st_size = DIRECTORY_BYTES
        else:
            entry.st_mode, entry.st_nlink = pyfuse3.ModeT(stat.S_IFREG | (0o666 & ~self._umask)), 1
            size = self._sizes[row]
            if size == UNKNOWN:
                entry.attr_timeout = 0  # upon which the kernel asks again before it is used
            entry.st_size = max(size, 0)
            entry.st_blocks = -(-entry.st_size // BLOCK_BYTES)
        entry.st_mtime_ns = entry.st_ctime_ns = entry.st_atime_ns = self._times[row] * _NANOSECONDS
        return entry

    async def lookup(self, row: int, name: bytes) -> pyfuse3.EntryAttributes:
        if name in DOTS:  # asked for only when the mount is exported by NFS
            return self._attributes(ROOT_ROW)
        if name == DATASET_NAME.encode():
            return self._attributes(_DATASET_ROW)
        number = shard_number(name.decode("ascii", "replace"))
        if number is None or number >= self._shards:
            return absent()
        return self._attributes(_FIRST_SHARD + number)

    async def getattr(self, row: int) -> pyfuse3.EntryAttributes:
        if row != ROOT_ROW and self._sizes[row] == UNKNOWN:
            if row == _DATASET_ROW:
                await self._describe()
            else:
                await self._lay_out(row - _FIRST_SHARD)
        return self._attributes(row)

    def opendir(self, row: int) -> _Listing:
        return _Listing(self)

    async def open(self, row: int) -> OpenFile:
        if row == ROOT_ROW:
            raise pyfuse3.FUSEError(EISDIR)
        if row == _DATASET_ROW:
            return BytesFile(await self._describe())
        number = row - _FIRST_SHARD
        shard = await self._lay_out(number)
        while number in self._outdated:
            self._outdated.discard(number)
            await self._threads.on_disk(forget_file, first_inode(self.number) + row)
            shard = await self._lay_out(number)
        reader = ShardReader(self._files, shard, self._view.allowance, self._start_soon)
        name = f"{shard_name(number)} of shards {self._recipe}"
        return _ShardFile(reader, name, lambda: self._corrected.get(number, 0))

    def capacity(self) -> tuple[int, int]:
        """As of the version, and the entries that are here."""
        return self._files.bytes_known, _FIRST_SHARD + self._shards

    # What has to be laid out

    async def _layout(self) -> Layout:
        layout = self._view.layouts.get(self.number)
        if layout is None:
            async with self._laying_out:
                layout = self._view.layouts.get(self.number)
                if layout is None:
                    layout = await self._view.lay_out(self._version, self._recipe)
                    self._view.layouts.put(self.number, layout)
        return layout

    async def _lay_out(self, number: int) -> Shard:
        """A shard with the sizes that its files have. Raises what learning them raises, and `InputError`."""
        shard = self._laid_out(number)
        while shard is None:
            layout = await self._layout()
            await self._files.learn(await self._threads.on_disk(layout.unknown, number))
            async with self._laying_out:
                shard = self._laid_out(number)
                if shard is not None:  # by somebody else, meanwhile
                    break
                corrections = self._corrections
                made, digest = await self._threads.on_disk(_make_shard, layout, number)
            if corrections != self._corrections:
                continue  # what was made of sizes that did not hold is not told
            shard = self._view.open_shards[self.number, number] = made
            self._sizes[_FIRST_SHARD + number] = shard.size
            self._times[_FIRST_SHARD + number] = time_of(digest)
            if len(shard.rows) <= ROWS_KEPT:
                self._view.shards.put((self.number, number), shard)
        return shard

    def _laid_out(self, number: int) -> Shard | None:
        key = (self.number, number)
        return self._view.shards.get(key) or self._view.open_shards.get(key)

    async def _describe(self) -> bytes:
        """`dataset.json`. Raises what learning all sizes raises."""
        while True:
            layout = await self._layout()
            await self._files.learn(await self._threads.on_disk(layout.all_unknown))
            corrections = self._corrections
            content = await self._threads.on_disk(dataset_json, layout, self._version.oid)
            if corrections == self._corrections:
                self._sizes[_DATASET_ROW] = len(content)
                return content


def _make_shard(layout: Layout, number: int) -> tuple[Shard, int]:
    """A shard and its digest; it does not hold on to all of the layout. Any worker thread."""
    shard = layout.shard(number)
    return shard, shard.digest()
