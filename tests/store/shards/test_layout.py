"""Shards are what `tarfile`, GNU tar and WebDataset read, and any range of one is a slice of it."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
import tracemalloc
from array import array
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from webdataset.tariterators import group_by_keys, tar_file_expander

from store.errors import InputError
from store.shards.dataset import dataset_json
from store.shards.layout import (
    Body,
    Header,
    Layout,
    SizesUnknown,
    Zeros,
    shard_name,
    shard_number,
)
from store.shards.recipe import ShardsRecipe
from store.shards.tar_format import BLOCK, MTIME, RECORD, member_header, member_header_length
from store.tree import UNKNOWN, Tree
from store.tree_compiler import Leaf
from tests.store.shards.conftest import NewVersion, Version

LONG = b"d" * 120
ODD: dict[bytes, bytes] = {
    b"plain.jpg": b"x" * 700,
    b"plain.cls": b"7",
    b"empty.txt": b"",
    b"block.bin": b"b" * BLOCK,
    b"README": b"no extension",
    b".hidden": b"h",
    b"several.dots.tar.gz": b"s",
    "gr\u00fc\u00dfe/\u65e5\u672c.png".encode(): b"utf-8",
    b"raw/\xff\xfe.png": b"not utf-8",
    b"new\nline.txt": b"n",
    b"-rf": b"dash",
    b"with space/ x .txt": b"sp",
    b"n" * 100: b"just fits",
    b"n" * 101: b"does not",
    b"n" * 255: b"the longest name",
    LONG + b"/" + b"n" * 96 + b".jpg": b"prefix and name",
    LONG + b"/" + b"n" * 97 + b".jpg": b"a byte too much",
    b"p" * 155 + b"/" + b"n" * 100: b"both full",
    b"p" * 156 + b"/n": b"prefix too long",
    b"a/" * 500 + b"deep.txt": b"deep",
    b"\xc3\xa4" * 60 + b"/" + b"\xc3\xb6" * 100 + b".jpg": b"long utf-8",
    b"\xff" * 150 + b"/" + b"\xfe" * 200: b"long and not utf-8",
    b"/".join([b"x" * 255] * 15 + [b"y" * 250]): b"the longest path",
}


def read_archive(data: bytes) -> dict[bytes, bytes]:
    """What Python's tarfile finds, every member's attributes looked at."""
    found = {}
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
        for member in archive:
            assert member.isreg()
            assert (member.mode, member.uid, member.gid, member.mtime) == (0o444, 0, 0, MTIME)
            assert (member.uname, member.gname, member.linkname) == ("", "", "")
            body = archive.extractfile(member)
            assert body is not None
            found[os.fsencode(member.name)] = body.read()
    return found


def test_tarfile_reads_every_odd_name(new_version: NewVersion) -> None:
    version = new_version(ODD)
    layout = version.layout()
    archive = version.archive(layout)
    assert read_archive(archive) == ODD
    assert len(archive) == layout.size(0)
    assert len(archive) % RECORD == 0
    assert not any(archive[-2 * BLOCK :])


def test_gnu_tar_unpacks_every_odd_name(new_version: NewVersion, tmp_path: Path) -> None:
    version = new_version({path: data for path, data in ODD.items() if len(path) < 2000})
    (tmp_path / "000000.tar").write_bytes(version.archive(version.layout()))
    out = tmp_path / "out"
    out.mkdir()
    subprocess.run(["tar", "-xf", tmp_path / "000000.tar", "-C", out], check=True, stdin=subprocess.DEVNULL)
    for path, data in version.files.items():
        unpacked = out / os.fsdecode(path)
        assert unpacked.read_bytes() == data
        assert unpacked.stat().st_mtime == MTIME


def test_gnu_tar_lists_in_order_and_says_nothing_else(new_version: NewVersion, tmp_path: Path) -> None:
    """Of long names that are not UTF-8 it says that it does not know how pax tells so."""
    version = new_version({path: data for path, data in ODD.items() if path[0] != 0xFF})
    (tmp_path / "000000.tar").write_bytes(version.archive(version.layout()))
    done = subprocess.run(
        ["tar", "--quoting-style=literal", "--null", "-tf", tmp_path / "000000.tar"],
        check=True,
        capture_output=True,
    )
    rows = version.layout().rows(0).tolist()
    assert done.stdout == b"".join(os.fsencode(version.tree.path(row)) + b"\n" for row in rows)
    assert done.stderr == b""


@pytest.mark.parametrize("recipe", ["7", "7,shuffle=1"])
def test_webdataset_finds_whole_samples(new_version: NewVersion, recipe: str) -> None:
    version = new_version(
        {
            b"d%d/%03d.%s" % (number % 3, number, kind): b"%d %s" % (number, kind)
            for number in range(40)
            for kind in (b"jpg", b"cls", b"seg.png")
        }
    )
    layout = version.layout(recipe)
    assert (layout.shards, layout.samples, layout.files) == (6, 40, 120)
    shards = [
        {"url": shard_name(number), "stream": io.BytesIO(version.archive(layout, number))}
        for number in range(layout.shards)
    ]
    samples = list(group_by_keys(tar_file_expander(shards)))
    assert len(samples) == 40
    for sample in samples:
        number = b"%d" % int(sample["__key__"][-3:])
        assert {kind: sample[kind] for kind in ("jpg", "cls", "seg.png")} == {
            "jpg": number + b" jpg",
            "cls": number + b" cls",
            "seg.png": number + b" seg.png",
        }
    keys = [sample["__key__"] for sample in samples]
    assert (keys == sorted(keys)) == ("shuffle" not in recipe)
    assert len(set(keys)) == 40


@pytest.fixture(scope="session")
def whole(new_version: NewVersion) -> tuple[Version, Layout, bytes]:
    version = new_version(ODD)
    layout = version.layout("1000,shuffle=3")
    return version, layout, version.archive(layout)


@settings(max_examples=300)
@given(data=st.data())
def test_any_range_is_a_slice(whole: tuple[Version, Layout, bytes], data: st.DataObject) -> None:
    version, layout, archive = whole
    offset = data.draw(st.integers(0, len(archive) + 10))
    length = data.draw(st.integers(0, 2000) | st.integers(0, len(archive)))
    pieces = layout.shard(0).pieces(offset, length)
    assert version.assemble(pieces) == archive[offset : offset + length]
    assert not any(isinstance(piece, Zeros) and isinstance(after, Zeros) for piece, after in pairwise(pieces))


def test_every_boundary(whole: tuple[Version, Layout, bytes]) -> None:
    version, layout, archive = whole
    shard = layout.shard(0)
    for start in shard.starts.tolist():
        for offset in range(max(0, start - 2), start + 3):
            for length in (1, 2, BLOCK, BLOCK + 1):
                assert version.assemble(shard.pieces(offset, length)) == archive[offset : offset + length]


def test_there_is_nothing_before_and_behind(whole: tuple[Version, Layout, bytes]) -> None:
    _, layout, archive = whole
    assert layout.pieces(0, len(archive), 10) == []
    assert layout.pieces(0, 5, 0) == []
    for offset, length in ((-1, 5), (5, -1)):
        with pytest.raises(ValueError, match="no range of bytes"):
            layout.pieces(0, offset, length)
    for number in (-1, 1):
        with pytest.raises(IndexError):
            layout.size(number)


@given(st.binary(min_size=1, max_size=400), st.integers(0, 2**63 - 1))
def test_a_headers_length_is_known_before_it_is_made(path: bytes, size: int) -> None:
    header = member_header(path, size)
    assert len(header) == member_header_length(path, size)
    assert len(header) % BLOCK == 0


def test_headers_never_change() -> None:
    """Bytes that have been seen: others need another name for the format."""
    numbers = b"0000444\x000000000\x000000000\x0000000000005\x0007033241600\x00010373\x00 "
    devices = b"0000000\x000000000\x00"
    header = b"a/b.jpg" + bytes(93) + numbers + b"0" + bytes(100) + b"ustar\x0000" + bytes(64) + devices
    assert member_header(b"a/b.jpg", 5) == header.ljust(BLOCK, b"\0")
    long = member_header(b"\xff" * 101, 8**11)
    assert long[BLOCK : 2 * BLOCK].rstrip(b"\0") == (
        b"21 hdrcharset=BINARY\n111 path=" + b"\xff" * 101 + b"\n19 size=8589934592\n"
    )


class Sparse(io.RawIOBase):
    """A shard whose files have no bytes but zeros, for whoever seeks in it."""

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        self._shard = layout.shard(0)
        self._offset = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        assert whence == io.SEEK_SET
        self._offset = offset
        return offset

    def tell(self) -> int:
        return self._offset

    def read(self, length: int = -1) -> bytes:
        assert 0 <= length <= RECORD
        pieces = self._shard.pieces(self._offset, length)
        data = b"".join(p.data if isinstance(p, Header) else bytes(p.length) for p in pieces)
        self._offset += len(data)
        return data


HUGE = {b"a.bin": 8**11 - 1, b"b.bin": 8**11, b"c.bin": 10**14, b"n" * 200: 8**11 + 5, b"z.bin": 3}


def test_tarfile_reads_members_of_8_gib_and_more(new_tree: Callable[[list[Leaf]], Tree]) -> None:
    tree = new_tree([Leaf(path, bytes(16), size) for path, size in HUGE.items()])
    layout = Layout(tree, ShardsRecipe(10), tree.size)
    with tarfile.open(fileobj=Sparse(layout), mode="r:") as archive:  # type: ignore[arg-type]
        assert {member.name.encode(): member.size for member in archive} == HUGE
    assert layout.size(0) > sum(HUGE.values())


def test_gnu_tar_reads_members_of_8_gib_and_more(
    new_tree: Callable[[list[Leaf]], Tree], tmp_path: Path
) -> None:
    sizes = {b"b.bin": 8**11, b"z.bin": 3}
    tree = new_tree([Leaf(path, bytes(16), size) for path, size in sizes.items()])
    shard = Layout(tree, ShardsRecipe(10), tree.size).shard(0)
    path = tmp_path / "000000.tar"
    offset = 0
    with path.open("wb") as file:
        file.truncate(shard.size)  # a hole but for the headers
        for piece in shard.pieces(0, shard.size):
            if isinstance(piece, Header):
                file.seek(offset)
                file.write(piece.data)
            offset += len(piece.data) if isinstance(piece, Header) else piece.length
    listed = subprocess.run(["tar", "-tvf", path], check=True, capture_output=True, text=True).stdout
    assert [int(line.split()[2]) for line in listed.splitlines()] == list(sizes.values())
    assert offset == shard.size


def test_what_is_larger_than_a_file_can_be_is_refused(new_tree: Callable[[list[Leaf]], Tree]) -> None:
    tree = new_tree([Leaf(b"a", bytes(16), 2**62), Leaf(b"b", bytes(16), 2**62 - 1)])
    with pytest.raises(InputError, match="take fewer samples a shard"):
        Layout(tree, ShardsRecipe(2), tree.size).size(0)
    assert Layout(tree, ShardsRecipe(1), tree.size).size(0) > 2**62


def test_sizes_are_learnt_first(new_tree: Callable[[list[Leaf]], Tree]) -> None:
    tree = new_tree([Leaf(b"%d.jpg" % number, bytes(16), UNKNOWN) for number in range(10)])
    sizes = array("q", tree.size)
    layout = Layout(tree, ShardsRecipe(4), sizes)
    sizes[layout.unknown(1)[0]] = 5
    with pytest.raises(SizesUnknown, match="sizes of 3 files are not known") as caught:
        layout.size(1)
    assert caught.value.count == 3
    with pytest.raises(SizesUnknown, match="sizes of 9 files"):
        dataset_json(layout, "oid")
    for row in layout.unknown(1):
        sizes[row] = 7
    assert layout.unknown(1) == []
    assert layout.size(1) == RECORD
    with pytest.raises(SizesUnknown, match="sizes of 4 files"):
        layout.size(0)


def test_dataset_json(new_version: NewVersion) -> None:
    version = new_version({b"%d.%s" % (n, kind): b"x" * n for n in range(10) for kind in (b"a", b"b")})
    data = dataset_json(version.layout("4,shuffle=9"), "0a1b.dir")
    assert data.endswith(b"}\n")
    assert json.loads(data) == {
        "bytes": 90,
        "files": 20,
        "layout": "ustar+pax v1",
        "oid": "0a1b.dir",
        "order": "xxh3-128 v1",
        "recipe": "4,shuffle=9",
        "samples": 10,
        "shards": 3,
    }
    assert json.loads(dataset_json(version.layout("4"), "x"))["order"] == "tree"


def test_no_files_no_shards(new_tree: Callable[[list[Leaf]], Tree]) -> None:
    tree = new_tree([])
    layout = Layout(tree, ShardsRecipe(5, 1), tree.size)
    assert (layout.shards, layout.samples, layout.files, layout.content_bytes()) == (0, 0, 0, 0)
    with pytest.raises(IndexError):
        layout.rows(0)


def test_names_of_shards() -> None:
    for number in (0, 7, 999_999, 1_000_000):
        assert shard_number(shard_name(number)) == number
    assert shard_name(7) == "000007.tar"
    for name in ("7.tar", "0000007.tar", "000007.tar\n", "000007", "00000७.tar", "-00007.tar", ""):
        assert shard_number(name) is None


def test_many_files_take_columns_and_no_objects(new_tree: Callable[[list[Leaf]], Tree]) -> None:
    files = 60_000
    tree = new_tree(
        [
            Leaf(b"%03d/%06d.%s" % (n % 100, n, kind), bytes(16), n)
            for n in range(files // 2)
            for kind in (b"jpg", b"cls")
        ]
    )
    tracemalloc.start()
    try:
        layout = Layout(tree, ShardsRecipe(1000, 5), tree.size)
        kept, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 20 * files
    assert most < 120 * files
    assert layout.shards == 30
    assert sum(len(layout.rows(number)) for number in range(30)) == files
    middle = layout.shard(15)
    (piece,) = middle.pieces(int(middle.starts[1]) - 1 - int(-middle.sizes[0] % BLOCK), 1)
    assert isinstance(piece, Body)
