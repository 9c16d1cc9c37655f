"""Random reads by several readers, with faults in between, give the bytes or an error, never other bytes."""

from __future__ import annotations

import random
import threading
from pathlib import Path

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from store.errors import RemoteCorrupt, RemoteSlow, RemoteUnreachable, StoreError
from tests.store.fetching.scripted import MIB, ScriptedStorage, daemon, oid_of, partial_of, random_bytes

DATA = random_bytes(6 * MIB + 4321, seed=3)
SIZE = len(DATA)
OID = oid_of(DATA)
FAULTS = (RemoteUnreachable("reset"), RemoteSlow("stalled"), RemoteCorrupt("ended early"))


class Faulty:
    """Raises at random parts, by a sequence that a seed gives; the same remote fails three times at most."""

    def __init__(self, seed: int, share: float) -> None:
        self._random = random.Random(seed)
        self._share = share
        self._left = 3
        self._lock = threading.Lock()

    def __call__(self, _: int) -> None:
        with self._lock:
            if self._left and self._random.random() < self._share:
                self._left -= 1
                raise self._random.choice(FAULTS)


reads = st.lists(st.tuples(st.integers(0, SIZE - 1), st.integers(1, 2 * MIB)), min_size=1, max_size=6)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    readers=st.lists(reads, min_size=1, max_size=4),
    seed=st.integers(0, 1 << 32),
    share=st.sampled_from([0.0, 0.1, 0.4]),
    ranges=st.booleans(),
    step=st.sampled_from([100_000, MIB]),
    verify=st.sampled_from(["blocks", "whole", "off"]),
    keeps=st.sampled_from(["all", "none", "some"]),
    damaged=st.booleans(),
)
def test_random_reads(
    tmp_path_factory: pytest.TempPathFactory,
    readers: list[list[tuple[int, int]]],
    seed: int,
    share: float,
    ranges: bool,
    step: int,
    verify: str,
    keeps: str,
    damaged: bool,
) -> None:
    cache: Path = tmp_path_factory.mktemp("model") / "cache"
    order = random.Random(seed)
    storages = [
        ScriptedStorage(before_part=Faulty(seed + number, share), ranges=ranges, step=step)
        for number in range(2)
    ]
    for storage in storages:
        storage.holds(DATA)

    def may_keep(_: int) -> bool:
        return keeps == "all" or (keeps == "some" and order.random() < 0.5)

    async def main() -> None:
        async with (
            daemon(cache, *storages, verify=verify, may_keep=may_keep, budget=16 * MIB) as made,
            trio.open_nursery() as nursery,
        ):

            async def read(wanted: list[tuple[int, int]]) -> None:
                opened = await made.open(OID, SIZE)
                for offset, length in wanted:
                    try:
                        data = bytes(await opened.read(offset, length))
                    except StoreError:
                        assert share
                    else:
                        assert data == DATA[offset : offset + length]
                opened.close()

            for wanted in readers:
                nursery.start_soon(read, wanted)

    trio.run(main)
    path = partial_of(cache, OID)
    if damaged and path.exists():
        with path.open("r+b") as file:
            for block in range(0, SIZE, MIB):
                file.seek(block + order.randrange(min(MIB, SIZE - block)))
                file.write(b"?")
    trio.run(main)
