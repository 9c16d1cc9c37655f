"""`ReadAhead`: sequential readers get their window, others pay nothing."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from store.fetching.block_map import BLOCK_BYTES
from store.fetching.read_ahead import LARGEST_REQUEST, LARGEST_WINDOW, ReadAhead

MIB = 1 << 20
GIB = 1 << 30
KERNEL_READ = 128 << 10


class Reader:
    """Reads by a `ReadAhead` and remembers what has been moved for it."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.ahead = ReadAhead(size)
        self.offered: list[int] = []
        self.touched: set[int] = set()
        self.read_bytes = 0

    def read(self, offset: int, length: int) -> list[range]:
        length = min(length, self.size - offset)
        self.read_bytes += length
        self.touched.update(range(offset // BLOCK_BYTES, (offset + length - 1) // BLOCK_BYTES + 1))
        runs = self.ahead.note(offset, length)
        self.offered += [block for run in runs for block in run]
        return runs

    @property
    def moved(self) -> int:
        return len(self.touched | set(self.offered)) * BLOCK_BYTES


def sequential(size: int) -> tuple[Reader, list[range]]:
    reader = Reader(size)
    runs = [run for offset in range(0, size, KERNEL_READ) for run in reader.read(offset, KERNEL_READ)]
    return reader, runs


def test_a_sequential_reader_gets_large_requests_well_ahead() -> None:
    reader = Reader(GIB)
    least_ahead = LARGEST_WINDOW
    for offset in range(0, GIB - 2 * LARGEST_WINDOW, KERNEL_READ):
        reader.read(offset, KERNEL_READ)
        if offset > 2 * LARGEST_WINDOW:
            least_ahead = min(least_ahead, (reader.offered[-1] + 1) * BLOCK_BYTES - offset)
    assert least_ahead >= LARGEST_WINDOW - LARGEST_REQUEST - BLOCK_BYTES


def test_nothing_is_left_out_or_offered_twice() -> None:
    reader, runs = sequential(300 * MIB + 5)
    assert reader.touched | set(reader.offered) == set(range(301))
    assert len(reader.offered) == len(set(reader.offered))
    assert max(map(len, runs)) == LARGEST_REQUEST // BLOCK_BYTES
    assert len(runs) < 60


def test_one_mebibyte_from_the_middle_moves_eight_at_most() -> None:
    for read_ahead in (KERNEL_READ, 2 * KERNEL_READ, MIB):
        reader = Reader(GIB)
        begin = GIB // 2 + 4097
        for offset in range(begin, begin + MIB + read_ahead, KERNEL_READ):
            reader.read(offset, KERNEL_READ)
        assert reader.moved <= 8 * MIB


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, GIB - 1), max_size=50), st.integers(1, MIB))
def test_a_random_reader_moves_no_more_than_twice_what_it_reads(offsets: list[int], length: int) -> None:
    reader = Reader(GIB)
    for offset in offsets:
        reader.read(offset, length)
    assert len(reader.offered) * BLOCK_BYTES <= reader.read_bytes


@settings(deadline=None)
@given(
    size=st.integers(1, 64 * MIB),
    reads=st.lists(st.tuples(st.floats(0, 1), st.integers(1, 2 * MIB)), max_size=100),
)
def test_what_is_offered_is_within_the_object_and_behind_the_read(
    size: int, reads: list[tuple[float, int]]
) -> None:
    reader = Reader(size)
    for share, length in reads:
        offset = min(int(share * size), size - 1)
        for run in reader.read(offset, length):
            assert offset // BLOCK_BYTES < run.start < run.stop <= -(-size // BLOCK_BYTES)


@settings(max_examples=10, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(1, 8))
def test_pieces_out_of_order_are_still_one_stream(shuffle: random.Random, together: int) -> None:
    """The kernel sends a handful of reads at once."""
    reader = Reader(100 * MIB)
    offsets = list(range(0, 100 * MIB, KERNEL_READ))
    for start in range(0, len(offsets), together):
        group = offsets[start : start + together]
        shuffle.shuffle(group)
        for offset in group:
            reader.read(offset, KERNEL_READ)
    assert len(set(reader.offered)) >= 75
    assert len(reader.offered) == len(set(reader.offered))


def test_several_streams_of_one_handle_each_get_theirs() -> None:
    reader = Reader(GIB)
    for step in range(0, 32 * MIB, KERNEL_READ):
        for begin in (0, GIB // 4, GIB // 2):
            reader.read(begin + step, KERNEL_READ)
    assert {block * BLOCK_BYTES // (GIB // 4) for block in reader.offered} == {0, 1, 2}
    assert len(reader.offered) > 60
