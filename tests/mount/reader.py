"""One of many processes that read a mount while objects come and go. Run as a program.

`reader.py MOUNT PLAIN SEED STEPS`: random operations on MOUNT, held against PLAIN, a directory of
the same bytes. What lies below `always` must be readable, below `never` it must be EIO, and below
`sometimes` it is one or the other. Prints how often it was which, as JSON; an assertion ends it.
"""

from __future__ import annotations

import errno
import hashlib
import json
import mmap
import os
import random
import sys
from collections.abc import Callable

Operation = Callable[[str, random.Random], None]


def md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


class Reader:
    """Reads one pair of directories."""

    def __init__(self, mount: str, plain: str) -> None:
        self.mount = mount
        self.plain = plain
        self.paths = sorted(
            os.path.relpath(os.path.join(here, name), plain)
            for here, _, names in os.walk(plain)
            for name in names
        )
        self.answered: dict[str, int] = {"bytes": 0, "EIO": 0}

    def step(self, order: random.Random) -> None:
        operation = order.choice((self.whole, self.ranges, self.ranges, self.mapped, self.stat, self.list))
        path = order.choice(self.paths)
        try:
            operation(path, order)
        except OSError as error:
            assert error.errno == errno.EIO, (path, error)
            assert not path.startswith("always"), (path, operation.__name__)
            self.answered["EIO"] += 1
        else:
            # Names can always be listed; nothing else of what is never there can be had.
            assert not path.startswith("never") or operation == self.list, (path, operation.__name__)
            self.answered["bytes"] += 1

    def original(self, path: str) -> bytes:
        with open(os.path.join(self.plain, path), "rb") as file:
            return file.read()

    def whole(self, path: str, order: random.Random) -> None:
        with open(os.path.join(self.mount, path), "rb") as file:
            assert md5(file.read()) == md5(self.original(path)), path

    def ranges(self, path: str, order: random.Random) -> None:
        data = self.original(path)
        with open(os.path.join(self.mount, path), "rb", buffering=0) as file:
            for _ in range(5):
                if order.random() < 0.2:
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                offset, length = order.randrange(len(data) + 10), order.choice((1, 4096, 50_000))
                got = os.pread(file.fileno(), length, offset)
                assert got == data[offset : offset + length], (path, offset, length)

    def mapped(self, path: str, order: random.Random) -> None:
        data = self.original(path)
        with open(os.path.join(self.mount, path), "rb") as file:
            flags = order.choice((mmap.MAP_SHARED, mmap.MAP_PRIVATE))
            with mmap.mmap(file.fileno(), 0, flags, mmap.PROT_READ) as mapping:
                assert mapping[:] == data, path

    def stat(self, path: str, order: random.Random) -> None:
        assert os.stat(os.path.join(self.mount, path)).st_size == len(self.original(path)), path

    def list(self, path: str, order: random.Random) -> None:
        here, there = (os.path.dirname(os.path.join(root, path)) for root in (self.mount, self.plain))
        assert sorted(os.listdir(here)) == sorted(os.listdir(there)), path


def main(mount: str, plain: str, seed: str, steps: str) -> None:
    reader, order = Reader(mount, plain), random.Random(seed)
    for _ in range(int(steps)):
        reader.step(order)
    json.dump(reader.answered, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
