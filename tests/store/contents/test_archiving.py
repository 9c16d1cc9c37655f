"""Archives that `tar` makes a cache of, and chunks that a change leaves alone."""

from __future__ import annotations

import hashlib
import io
import random
import subprocess
from pathlib import Path

import pytest

from store.contents import chunking
from store.contents.archiving import ARCHIVE_BYTES, build_archive, grouped
from store.contents.chunking import chunks
from store.layouts import object_path
from store.local_cache import LocalCache
from store.oid import MD5, MD5_DOS2UNIX, Oid
from store.remotes.storage import SENT_AT_ONCE
from tests.mount.datasets import filler, md5


@pytest.mark.parametrize("algorithm", [MD5, MD5_DOS2UNIX])
def test_tar_lists_and_extracts_a_cache(tmp_path: Path, algorithm: str) -> None:
    contents = {Oid(md5(data), algorithm=algorithm): data for data in (filler(n * 300, n) for n in range(20))}
    archive = build_archive(list(contents.items()))
    assert hashlib.sha256(archive.data).hexdigest() == archive.name
    (tmp_path / "archive.tar").write_bytes(archive.data)
    listed = subprocess.run(
        ["tar", "-tf", tmp_path / "archive.tar"], capture_output=True, text=True, check=True, timeout=30
    )
    assert listed.stdout.split() == [object_path(oid) for oid in contents] and not listed.stderr
    subprocess.run(
        ["tar", "-xf", tmp_path / "archive.tar", "-C", tmp_path], check=True, capture_output=True, timeout=30
    )
    cache = LocalCache(tmp_path)
    assert {oid: cache.read(oid) for oid in contents} == contents
    cache.close()


def test_an_archive_follows_from_its_members() -> None:
    contents = [(Oid(md5(data)), data) for data in (b"one", b"two")]
    assert build_archive(contents) == build_archive(contents)
    assert build_archive(contents).name != build_archive(contents[::-1]).name
    # What was pushed before is found by this name: other bytes would share nothing with it.
    assert build_archive(contents).name.startswith("d1d3f72e774528a1e85b4ab3")


def test_an_archive_is_sent_in_one_request() -> None:
    contents = [(number, size) for number, size in enumerate([0, 1, 511, 512, 513, 4096, 500_000] * 40)]
    groups = list(grouped(contents))
    assert [number for group in groups for number in group] == [number for number, _ in contents]
    assert len(groups) > 2
    sizes = dict(contents)
    for group in groups:
        data = b"".join(b"x" * sizes[number] for number in group)
        archive = build_archive(
            [(Oid(md5(b"%d" % number)), bytes(memoryview(data)[: sizes[number]])) for number in group]
        )
        assert len(archive.data) <= SENT_AT_ONCE
    filled = [sum(sizes[number] for number in group) for group in groups[:-1]]
    assert min(filled) > ARCHIVE_BYTES // 2


def parts_of(data: bytes) -> dict[bytes, int]:
    return {hashlib.sha256(chunk).digest(): len(chunk) for chunk in chunks(io.BytesIO(data))}


def test_chunks_are_cut_as_they_always_were() -> None:
    """Another cut would share nothing with what was pushed before."""
    data = filler(3 << 20, 1)
    lengths = [len(chunk) for chunk in chunks(io.BytesIO(data))]
    assert sum(lengths) == len(data)
    assert lengths == [278914, 292048, 305716, 477575, 270770, 304431, 291710, 347199, 386146, 191219]


def test_chunks_keep_to_their_bounds() -> None:
    for data in (bytes(5 << 20), filler(5 << 20, 2), b"ab" * (2 << 20)):
        lengths = [len(chunk) for chunk in chunks(io.BytesIO(data))]
        assert sum(lengths) == len(data)
        assert max(lengths) <= chunking.LARGEST and min(lengths[:-1]) >= chunking.SMALLEST
    assert list(chunks(io.BytesIO(b""))) == []
    assert [bytes(chunk) for chunk in chunks(io.BytesIO(b"one"))] == [b"one"]


def test_a_change_moves_no_cuts_but_those_beside_it() -> None:
    """As a hundred edits in a gigabyte: bytes changed, put in, taken out."""
    data = filler(32 << 20, 3)
    numbers = random.Random(4)
    before = parts_of(data)
    for edit in (lambda a: a, lambda a: b"", lambda a: a * 2):
        at = numbers.randrange(len(data) - 100)
        data = data[:at] + edit(numbers.randbytes(50)) + data[at + 50 :]
    after = parts_of(data)
    again = sum(length for part, length in after.items() if part not in before)
    assert 0 < again <= 0.05 * len(data)
