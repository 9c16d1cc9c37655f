"""Archives whose indexes are lost are read by themselves, and hostile ones not at all."""

from __future__ import annotations

import hashlib
import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.contents.archiving import build_archive
from store.layouts import object_path
from store.oid import MD5, MD5_DOS2UNIX, Oid
from store.oplog.unpacking import unpack
from tests.mount.datasets import filler, md5

CONTENTS = [b"", b"a", filler(511, 1), filler(512, 2), filler(5000, 3)]
ARCHIVE = build_archive([(Oid(md5(data)), data) for data in CONTENTS])


@pytest.mark.parametrize("algorithm", [MD5, MD5_DOS2UNIX])
def test_an_archive_is_its_own_index(algorithm: str) -> None:
    made = build_archive([(Oid(md5(data), algorithm=algorithm), data) for data in CONTENTS])
    assert unpack(made.data, made.name) == made


@given(st.data())
def test_what_is_changed_or_cut_is_none(draw: st.DataObject) -> None:
    place = draw.draw(st.integers(0, len(ARCHIVE.data) - 1))
    changed = bytearray(ARCHIVE.data)
    changed[place] ^= draw.draw(st.integers(1, 255))
    for data in (bytes(changed), ARCHIVE.data[:place]):
        assert unpack(data, ARCHIVE.name) is None
        assert unpack(data, hashlib.sha256(data).hexdigest()) is None


def info(name: str, data: bytes, **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    made = tarfile.TarInfo(name)
    made.size = len(data)
    for key, value in fields.items():
        setattr(made, key, value)
    return made, data


PLACE = object_path(Oid(md5(b"a")))


@pytest.mark.parametrize(
    "members",
    [
        [],
        [info("/etc/passwd", b"a")],
        [info("files/md5/../../x", b"a")],
        [info(PLACE, b"", type=tarfile.SYMTYPE, linkname="/etc/passwd")],
        [info(PLACE, b"", type=tarfile.LNKTYPE, linkname="/etc/passwd")],
        [info(PLACE, b"a"), info(PLACE, b"a")],
        [info(PLACE, b"b")],
        [info(PLACE, b"a", size=1 << 40)],
        [info(PLACE, b"a"), info(object_path(Oid(md5(b"b"), algorithm=MD5_DOS2UNIX)), b"b")],
        [info(object_path(Oid(md5(b"[]"), is_tree=True)), b"[]")],
    ],
)
def test_hostile_archives_with_right_names_are_none(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    file = io.BytesIO()
    for header, data in members:
        file.write(header.tobuf(tarfile.USTAR_FORMAT if header.size < 1 << 33 else tarfile.GNU_FORMAT))
        file.write(data.ljust(-(-len(data) // 512) * 512, b"\0"))
    data = file.getvalue().ljust(10240, b"\0")
    assert unpack(data, hashlib.sha256(data).hexdigest()) is None
