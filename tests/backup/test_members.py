"""Headers of members: those of `tarfile`, made and read in a shorter way."""

from __future__ import annotations

import tarfile

import pytest

from store.backup.format import TRAILER_NAME
from store.backup.members import BLOCK, TIME, member_header, read_header

NAMES = (TRAILER_NAME, "ab/" + "0" * 30, f"files/md5/ff/{'f' * 30}.dir", f"fusefs/derived/00/{'9' * 30}")


@pytest.mark.parametrize("size", [0, 1, 511, 512, 20_000, (1 << 32) + 1, (1 << 33) - 1, 1 << 33, 1 << 40])
@pytest.mark.parametrize("name", NAMES)
def test_they_are_those_of_tar(name: str, size: int) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = size, 0o444, TIME
    header = member_header(name, size)
    assert header == info.tobuf(tarfile.GNU_FORMAT)
    assert read_header(header) == ((name, size) if size < 1 << 33 else None)


def test_nothing_else_is_read() -> None:
    header = member_header(NAMES[1], 1000)
    for place in range(BLOCK):
        changed = bytearray(header)
        changed[place] ^= 0x11
        assert read_header(bytes(changed)) is None
    assert read_header(b"") is None
