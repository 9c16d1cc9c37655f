"""A process that reads a range of a large object by a remote's URL and prints its MD5.

python -m tests.store.fetching.reader_process CACHE URL DIGEST SIZE OFFSET LENGTH
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import trio

from store.fetching import breaker
from store.oid import Oid
from store.remotes.opening import open_remote
from store.remotes.spec import RemoteSpec
from tests.store.fetching.scripted import daemon

PIECE = 128 << 10

# Tests count the bytes that come: nothing is asked for once more because what answers is late.
breaker.UNKNOWN_HEDGE_SECONDS = 3600.0  # type: ignore[misc]


async def main(cache: Path, url: str, oid: Oid, size: int, offset: int, length: int) -> None:
    storage = open_remote(RemoteSpec("remote", url)).storage
    async with daemon(cache, storage) as made:
        opened = await made.open(oid, size)
        print("opened", flush=True)
        digest = hashlib.md5(usedforsecurity=False)
        for start in range(offset, offset + length, PIECE):
            digest.update(await opened.read(start, min(PIECE, offset + length - start)))
        if length == size:
            await opened.bring()
        print(digest.hexdigest(), flush=True)
        opened.close()


if __name__ == "__main__":
    _, cache, url, digest, *numbers = sys.argv
    trio.run(main, Path(cache), url, Oid(digest), *map(int, numbers))
