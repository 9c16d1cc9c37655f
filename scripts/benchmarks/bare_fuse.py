"""A program: mounts objects of a server with nothing but pyfuse3 and obstore, in the foreground.

    bare_fuse.py ENDPOINT BUCKET LISTING MOUNTPOINT

LISTING has lines `PATH<TAB>KEY<TAB>SIZE`. An open asks for the object, in a thread, and for a large one
reads ask for pieces of it, some ahead; nothing is verified or kept, so this is what these libraries do on
this machine when nothing is done beside.
"""

from __future__ import annotations

import errno
import os
import signal
import stat
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import obstore
import pyfuse3
import trio
from obstore.store import S3Store

THREADS = 64
FOREVER = 1e6
PIECE = 8 << 20
PIECES_AHEAD = 4


class Small:
    """All of an object."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    async def read(self, off: int, size: int) -> bytes:
        return self._data[off : off + size]


class Large:
    """Pieces of an object, each for as long as the reader is near it."""

    def __init__(self, get: Callable[[int, int], memoryview], size: int, nursery: trio.Nursery) -> None:
        self._get = get
        self._size = size
        self._nursery = nursery
        self._pieces: dict[int, memoryview] = {}
        self._asked: dict[int, trio.Event] = {}

    async def read(self, off: int, size: int) -> bytes:
        stop = min(off + size, self._size)
        first = off // PIECE
        for number in range(first, min(first + PIECES_AHEAD, -(-self._size // PIECE))):
            if number not in self._asked:
                self._asked[number] = trio.Event()
                self._nursery.start_soon(self._bring, number)
        for number in [number for number in self._pieces if number < first - 1]:
            del self._pieces[number], self._asked[number]
        parts = []
        while off < stop:
            number, start = divmod(off, PIECE)
            await self._asked[number].wait()
            parts.append(self._pieces[number][start : start + stop - off])
            off += len(parts[-1])
        return bytes(parts[0]) if len(parts) == 1 else b"".join(parts)

    async def _bring(self, number: int) -> None:
        start = number * PIECE
        length = min(PIECE, self._size - start)
        self._pieces[number] = await trio.to_thread.run_sync(self._get, start, length)
        self._asked[number].set()


class Bare(pyfuse3.Operations):
    _nursery: trio.Nursery

    def __init__(self, store: S3Store, listing: str) -> None:
        super().__init__()
        self._store = store
        self._children: list[dict[bytes, int]] = [{}, {}]
        self._keys: list[str] = ["", ""]
        self._sizes = [0, 0]
        self._opened: dict[int, Small | Large] = {}
        self._next = 0
        self._limiter = trio.CapacityLimiter(THREADS)
        for line in listing.splitlines():
            path, key, size = line.split("\t")
            *parents, name = os.fsencode(path).split(b"/")
            place = 1
            for parent in parents:
                place = self._children[place].get(parent) or self._add(place, parent, "", 0)
            self._add(place, name, key, int(size))

    def begin(self, nursery: trio.Nursery) -> None:
        """Where pieces are to be asked for."""
        self._nursery = nursery

    def _add(self, above: int, name: bytes, key: str, size: int) -> int:
        self._children.append({})
        self._keys.append(key)
        self._sizes.append(size)
        number = self._children[above][name] = len(self._keys) - 1
        return number

    def _entry(self, inode: int) -> pyfuse3.EntryAttributes:
        entry = pyfuse3.EntryAttributes()
        entry.st_ino = pyfuse3.InodeT(inode)
        kind = stat.S_IFREG | 0o444 if self._keys[inode] else stat.S_IFDIR | 0o555
        entry.st_mode = pyfuse3.ModeT(kind)
        entry.st_size = self._sizes[inode]
        entry.entry_timeout = entry.attr_timeout = FOREVER
        return entry

    async def lookup(
        self, parent_inode: pyfuse3.InodeT, name: pyfuse3.FileNameT, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        inode = self._children[parent_inode].get(name)
        if inode is None:
            raise pyfuse3.FUSEError(errno.ENOENT)
        return self._entry(inode)

    async def getattr(self, inode: pyfuse3.InodeT, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        return self._entry(inode)

    async def open(
        self, inode: pyfuse3.InodeT, flags: pyfuse3.FlagT, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.FileInfo:
        key = self._keys[inode]
        opened: Small | Large
        if self._sizes[inode] > PIECE:
            opened = Large(partial(self._get_range, key), self._sizes[inode], self._nursery)
        else:
            opened = Small(await trio.to_thread.run_sync(self._get, key, limiter=self._limiter))
        self._next += 1
        self._opened[self._next] = opened
        return pyfuse3.FileInfo(fh=pyfuse3.FileHandleT(self._next), keep_cache=True)

    def _get(self, key: str) -> bytes:
        return obstore.get(self._store, key).bytes().to_bytes()

    def _get_range(self, key: str, start: int, length: int) -> memoryview:
        return memoryview(obstore.get_range(self._store, key, start=start, length=length))

    async def read(self, fh: pyfuse3.FileHandleT, off: int, size: int) -> bytes:
        return await self._opened[fh].read(off, size)

    async def release(self, fh: pyfuse3.FileHandleT) -> None:
        del self._opened[fh]


async def serve(begin: Callable[[trio.Nursery], None] = lambda nursery: None) -> None:
    """Until it is told to end. `begin` is told of the nursery."""
    async with trio.open_nursery() as nursery:
        begin(nursery)
        with trio.open_signal_receiver(signal.SIGTERM) as signals:
            nursery.start_soon(pyfuse3.main)
            async for _ in signals:
                nursery.cancel_scope.cancel()


def main() -> None:
    endpoint, bucket, listing, mountpoint = sys.argv[1:]
    store = S3Store(
        bucket,
        endpoint=endpoint,
        region="us-east-1",
        skip_signature=True,
        client_options={"allow_http": True},
    )
    operations = Bare(store, Path(listing).read_text())
    pyfuse3.init(operations, mountpoint, {"fsname=bare", "ro"})
    try:
        trio.run(serve, operations.begin)
    finally:
        pyfuse3.close(unmount=True)


if __name__ == "__main__":
    main()
