"""A cache on a disk that is full: served all the same, and never wrong."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from tests.store.fetching.scripted import (
    MIB,
    ScriptedStorage,
    daemon,
    partial_of,
    place_of,
    random_bytes,
    read_all,
)

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs to be root"),
]

DATA = random_bytes(6 * MIB + 1)
SIZE = len(DATA)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MiB."""
    path = tmp_path / "small"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", path], check=True)
    yield path
    # Lazily: a thread that nobody waits for any more may still have a file open.
    subprocess.run(["umount", "--lazy", path], check=True)


@pytest.mark.parametrize("ranges", [True, False])
def test_what_fits_is_kept_and_the_rest_is_served(small: Path, ranges: bool) -> None:
    storage = ScriptedStorage(ranges=ranges)
    oid = storage.holds(DATA)

    async def main() -> None:
        async with daemon(small / "cache", storage) as made:
            opened = await made.open(oid, SIZE)
            assert await read_all(opened) == DATA
            assert opened.verified == "length"
            opened.close()

    trio.run(main)
    assert partial_of(small / "cache", oid).stat().st_blocks * 512 >= 2 * MIB
    assert not place_of(small / "cache", oid).exists()


def test_whole_finds_room_elsewhere(small: Path) -> None:
    storage = ScriptedStorage()
    oid = storage.holds(DATA)

    async def main() -> None:
        async with daemon(small / "cache", storage, verify="whole") as made:
            opened = await made.open(oid, SIZE)
            assert await read_all(opened) == DATA
            assert opened.verified == "hash"
            opened.close()

    trio.run(main)
    assert not place_of(small / "cache", oid).exists()
