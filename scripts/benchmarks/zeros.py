"""A program: mounts a file `zeros` with nothing but pyfuse3, in the foreground: what a request costs alone.

zeros.py SIZE MOUNTPOINT
"""

from __future__ import annotations

import stat
import sys

import pyfuse3
import trio

from benchmarks.bare_fuse import serve

FOREVER = 1e6
FILE = pyfuse3.InodeT(2)
ZEROS = bytes(1 << 20)


class Zeros(pyfuse3.Operations):
    def __init__(self, size: int) -> None:
        super().__init__()
        self._size = size

    async def lookup(
        self, parent_inode: pyfuse3.InodeT, name: pyfuse3.FileNameT, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        return await self.getattr(FILE, ctx)

    async def getattr(self, inode: pyfuse3.InodeT, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        entry = pyfuse3.EntryAttributes()
        entry.st_ino = inode
        entry.st_mode = pyfuse3.ModeT(stat.S_IFREG | 0o444 if inode == FILE else stat.S_IFDIR | 0o555)
        entry.st_size = self._size
        entry.entry_timeout = entry.attr_timeout = FOREVER
        return entry

    async def open(
        self, inode: pyfuse3.InodeT, flags: pyfuse3.FlagT, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.FileInfo:
        return pyfuse3.FileInfo(fh=pyfuse3.FileHandleT(0), keep_cache=True)

    async def read(self, fh: pyfuse3.FileHandleT, off: int, size: int) -> bytes:
        return ZEROS[:size]

    async def release(self, fh: pyfuse3.FileHandleT) -> None:
        pass


def main() -> None:
    size, mountpoint = sys.argv[1:]
    pyfuse3.init(Zeros(int(size)), mountpoint, {"fsname=zeros", "ro"})
    try:
        trio.run(serve)
    finally:
        pyfuse3.close(unmount=True)


if __name__ == "__main__":
    main()
