"""Processes that share a cache share a partial, and one that is killed leaves what it had brought."""

from __future__ import annotations

import contextlib
import hashlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from store.layouts import object_path
from tests.patience import until
from tests.servers.nginx import nginx
from tests.servers.proxy import Proxy
from tests.store.fetching.scripted import MIB, oid_of, partial_of, place_of, random_bytes

SECONDS = 60
DATA = random_bytes(8 * MIB + 999, seed=7)
SIZE = len(DATA)
OID = oid_of(DATA)
HEADS = 64 << 10
"""What the answers' heads may add to the bytes of a proxy's count."""


@dataclass
class Served:
    """The object on nginx, behind a proxy."""

    proxy: Proxy
    cache: Path
    log: Path

    @contextlib.contextmanager
    def reader(self, offset: int = 0, length: int = SIZE) -> Iterator[subprocess.Popen[str]]:
        """A process that has the object open and reads it."""
        arguments = (self.cache, self.proxy.url, OID.digest, SIZE, offset, length)
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.store.fetching.reader_process", *map(str, arguments)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).resolve().parents[3],
        )
        with process:
            try:
                assert process.stdout is not None
                assert process.stdout.readline() == "opened\n"
                yield process
            finally:
                process.kill()

    def requested(self) -> list[int]:
        """How many bytes each answer of nginx had, from its log."""
        return sorted(int(line.split()[9]) for line in self.log.read_text().splitlines())


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    root = tmp_path / "remote"
    place = root / object_path(OID)
    place.parent.mkdir(parents=True)
    place.write_bytes(DATA)
    log = tmp_path / "access.log"
    with (
        nginx(tmp_path / "nginx", root, extra=f"access_log {log};") as server,
        Proxy(("127.0.0.1", server.port)) as proxy,
    ):
        yield Served(proxy, tmp_path / "cache", log)


def finish(process: subprocess.Popen[str]) -> str:
    """What it says of its bytes."""
    assert process.stdout is not None
    output = process.stdout.read()  # `communicate` would not see what came along with the line read before
    assert process.wait(SECONDS) == 0
    return output.strip()


def md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def test_two_processes_bring_an_object_once(served: Served) -> None:
    served.proxy.fail(stall_after=MIB // 2)
    with served.reader() as first:
        served.proxy.wait(lambda counts: counts.stalled > 0)
        with served.reader() as second:
            served.proxy.fail()
            assert finish(first) == finish(second) == OID.digest
    assert served.proxy.counts.bytes_down < SIZE + HEADS
    assert place_of(served.cache, OID).read_bytes() == DATA
    assert not partial_of(served.cache, OID).exists()


def test_a_process_that_is_killed_holds_nobody_up_and_its_blocks_are_not_moved_again(served: Served) -> None:
    with served.reader(0, 3 * MIB) as first:
        assert finish(first) == md5(DATA[: 3 * MIB])
    served.proxy.fail(stall_after=MIB // 2)
    with served.reader(6 * MIB, 2 * MIB) as second:
        served.proxy.wait(lambda counts: counts.stalled > 0)
        second.kill()
        second.wait()
    served.proxy.wait(lambda counts: counts.open == 0)  # or what is still to come to it would be counted
    served.proxy.fail()
    before = served.proxy.counts.bytes_down
    here = partial_of(served.cache, OID).stat().st_blocks * 512
    assert 3 * MIB <= here < SIZE
    with served.reader() as third:
        assert finish(third) == OID.digest
    moved = served.proxy.counts.bytes_down - before
    assert SIZE - here - MIB <= moved <= SIZE - 3 * MIB + HEADS
    until(served.requested)  # nginx writes its log after the last byte
    assert max(served.requested()) < SIZE
    assert place_of(served.cache, OID).read_bytes() == DATA


def test_a_process_reads_what_another_has_brought_while_it_still_brings_more(served: Served) -> None:
    with served.reader(0, MIB) as first:
        assert finish(first) == md5(DATA[:MIB])
    served.proxy.fail(stall_after=0)
    with served.reader(5 * MIB, MIB) as second:
        served.proxy.wait(lambda counts: counts.stalled > 0)
        with served.reader(0, 10) as third:
            assert finish(third) == md5(DATA[:10])
        assert second.poll() is None


def test_the_bytes_come_from_the_server_in_ranges(served: Served) -> None:
    with served.reader(4 * MIB + 5, 10) as process:
        assert finish(process) == md5(DATA[4 * MIB + 5 :][:10])
    until(lambda: [length for length in served.requested() if length > 1000] == [MIB])
