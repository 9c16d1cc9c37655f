"""A program: gets objects with bare obstore and prints the seconds, bytes and objects.

    get_obstore.py ENDPOINT BUCKET async|threads IN_FLIGHT LIST

LIST holds keys, each ended by a NUL; `async` asks for them in so many tasks of one event loop, `threads` in
so many threads; a single one is streamed. What comes is dropped. The clock starts when all is loaded.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import obstore
from obstore.store import S3Store

PART: int = 1 << 20


async def take(store: S3Store, keys: Iterator[str]) -> int:
    size = 0
    for key in keys:
        answer = await obstore.get_async(store, key)
        size += len(await answer.bytes_async())
    return size


async def take_in_tasks(store: S3Store, keys: list[str], in_flight: int) -> int:
    shared = iter(keys)
    return sum(await asyncio.gather(*(take(store, shared) for _ in range(in_flight))))


def take_in_threads(store: S3Store, keys: list[str], in_flight: int) -> int:
    shared, lock = iter(keys), threading.Lock()

    def take_some() -> int:
        size = 0
        while True:
            with lock:
                key = next(shared, None)
            if key is None:
                return size
            size += len(obstore.get(store, key).bytes())

    with ThreadPoolExecutor(in_flight) as pool:
        return sum(task.result() for task in [pool.submit(take_some) for _ in range(in_flight)])


async def stream(store: S3Store, key: str) -> int:
    answer = await obstore.get_async(store, key)
    size = 0
    async for part in answer.stream(min_chunk_size=PART):
        size += len(part)
    return size


def main() -> None:
    endpoint, bucket, how, in_flight, listing = sys.argv[1:]
    keys = [key.decode() for key in Path(listing).read_bytes().split(b"\0")[:-1]]
    store = S3Store(
        bucket,
        endpoint=endpoint,
        region="us-east-1",
        skip_signature=True,
        client_options={"allow_http": True},
    )
    start = time.monotonic()
    if len(keys) == 1:
        size = asyncio.run(stream(store, keys[0]))
    elif how == "async":
        size = asyncio.run(take_in_tasks(store, keys, int(in_flight)))
    else:
        size = take_in_threads(store, keys, int(in_flight))
    print(time.monotonic() - start, size, len(keys), flush=True)
    os._exit(0)  # obstore's threads may call into an interpreter that is being taken down, which aborts


if __name__ == "__main__":
    main()
