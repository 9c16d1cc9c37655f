"""Sources give exactly the bytes of a range, and files made of them read ahead in moderation."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.errors import ObjectCorrupt, ObjectMissing
from store.media.source import LEAST_READ, MOST_READ, SourceFile, open_source_file
from tests.store.media.sources import BytesSource, FailingSource

DATA = bytes(range(251)) * 12_000


@given(st.lists(st.tuples(st.integers(0, len(DATA) + 10), st.integers(-1, 200_000)), max_size=8))
def test_a_file_reads_as_the_bytes_do(reads: list[tuple[int, int]]) -> None:
    file = SourceFile(BytesSource(DATA))
    for offset, size in reads:
        assert file.seek(offset) == offset
        end = len(DATA) if size < 0 else offset + size
        assert file.read(size) == DATA[offset:end]
        assert file.tell() == max(offset, min(end, len(DATA)))


def test_a_first_read_asks_for_little_and_the_next_for_more() -> None:
    source = BytesSource(DATA)
    file = SourceFile(source)
    file.read(10)
    assert source.bytes_read == LEAST_READ
    while file.read(4096):
        pass
    assert source.bytes_read == len(DATA)
    assert source.reads <= 6 + len(DATA) // MOST_READ
    file.seek(1000)
    file.read(10)
    assert source.bytes_read == len(DATA) + LEAST_READ


def test_seeks_are_those_of_files() -> None:
    file = SourceFile(BytesSource(DATA))
    assert file.seek(-10, os.SEEK_END) == len(DATA) - 10
    assert file.read() == DATA[-10:]
    assert file.seek(-5, os.SEEK_CUR) == len(DATA) - 5
    with pytest.raises(ValueError, match="before the beginning"):
        file.seek(-1)


def test_an_error_is_raised_or_held() -> None:
    with pytest.raises(ObjectCorrupt):
        SourceFile(FailingSource(DATA, 0)).read(1)
    held = SourceFile(FailingSource(DATA, 0), hold_errors=True)
    assert held.read(1) == b""
    with pytest.raises(ObjectCorrupt):
        held.raise_error()
    held.raise_error()


def test_other_libraries_can_read_it(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("x", DATA)
    with open_source_file(tmp_path / "a.zip") as source, zipfile.ZipFile(SourceFile(source)) as archive:  # type: ignore[arg-type]
        assert archive.read("x") == DATA


def test_a_local_file_is_a_source(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(DATA)
    with open_source_file(path, "00" * 16) as source:
        assert (source.size, source.oid, source.name) == (len(DATA), "00" * 16, "clip.mp4")
        assert source.read_at(100, 1000) == DATA[100:1100]
        path.write_bytes(b"short")
        with pytest.raises(ObjectCorrupt, match=r"clip\.mp4 ends at 5"):
            source.read_at(0, 10)


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(ObjectMissing, match="does not exist"):
        open_source_file(tmp_path / "clip.mp4")
