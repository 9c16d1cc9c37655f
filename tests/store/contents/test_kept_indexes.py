"""Indexes of archives that a process keeps for the next one: fewer requests, and never another byte."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import trio

from store.contents.index import decode_archive, encode_archive
from store.contents.kept_indexes import INDEXES, KeptIndexes
from store.contents.names import ARCHIVE, ARCHIVE_INDEX, ContentName
from store.errors import StoreError
from store.oid import Oid
from tests.mount.datasets import filler
from tests.store.contents.content_remote import ContentRemote, Counted, oid_of, reading

pytestmark = pytest.mark.usefixtures("unhurried")

FILES = {f"{number}": filler(3000 + number, number) for number in range(20)}


@pytest.fixture
def remote(tmp_path: Path) -> ContentRemote:
    return ContentRemote(tmp_path / "remote")


def kept(tmp_path: Path) -> Path:
    (path,) = (path for path in (tmp_path / "own" / INDEXES).rglob("*") if path.is_file())
    return path


def read_all(tmp_path: Path, remote: ContentRemote, manifest: Oid, failures: int = 0) -> Counted:
    """By another process, with an empty cache."""
    shutil.rmtree(tmp_path / "cache", ignore_errors=True)

    async def main() -> Counted:
        failed = 0
        async with reading(tmp_path, remote.root, manifests=(manifest,)) as (reader, (storage,)):
            for data in FILES.values():
                try:
                    assert await reader.read(oid_of(data)) == data
                except StoreError:
                    failed += 1
        assert failed == failures
        return storage

    return trio.run(main)


def test_the_next_process_asks_for_no_index(tmp_path: Path, remote: ContentRemote) -> None:
    manifest = remote.put_version(FILES)
    assert len(read_all(tmp_path, remote, manifest).of("read", ARCHIVE_INDEX)) == 1
    assert read_all(tmp_path, remote, manifest).of("read", ARCHIVE_INDEX) == []
    assert kept(tmp_path).parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("damage", ["changed", "cut", "a link", "a directory"])
def test_one_that_is_damaged_here_is_read_anew(tmp_path: Path, remote: ContentRemote, damage: str) -> None:
    manifest = remote.put_version(FILES)
    read_all(tmp_path, remote, manifest)
    place = kept(tmp_path)
    data = place.read_bytes()
    if damage == "a link":
        place.rename(tmp_path / "else")
        place.symlink_to(tmp_path / "else")
    elif damage == "a directory":
        place.unlink()
        place.mkdir()
    else:
        place.write_bytes(data[:-1] if damage == "cut" else data[:-1] + bytes([data[-1] ^ 1]))
    assert len(read_all(tmp_path, remote, manifest).of("read", ARCHIVE_INDEX)) == 1
    if damage != "a directory":
        assert kept(tmp_path).read_bytes() == data and not kept(tmp_path).is_symlink()


def test_one_that_lied_is_not_believed_again(tmp_path: Path, remote: ContentRemote) -> None:
    """When the remote has been mended, its index is asked for: by the process that notices, too."""
    manifest = remote.put_version(FILES)
    index = next(remote.root.rglob(ARCHIVE_INDEX))
    right = index.read_bytes()
    told = decode_archive(right, index.parent.name)
    moved = [member._replace(offset=member.offset + 512) for member in told.members()]
    lie = encode_archive(told.name, told.size, told.algorithm, moved[:-1])
    index.write_bytes(lie)
    read_all(tmp_path, remote, manifest, failures=len(FILES))
    KeptIndexes(next((tmp_path / "own" / INDEXES).iterdir())).keep(told.name, lie)
    index.write_bytes(right)
    storage = read_all(tmp_path, remote, manifest)
    assert len(storage.of("read", ARCHIVE_INDEX)) == 1
    assert kept(tmp_path).read_bytes() == right


def test_an_archive_that_has_gone_takes_its_index_along(tmp_path: Path, remote: ContentRemote) -> None:
    manifest = remote.put_version(FILES)
    read_all(tmp_path, remote, manifest)
    name = kept(tmp_path).name
    remote.place(ContentName.of_archive(name), ARCHIVE).unlink()
    read_all(tmp_path, remote, manifest, failures=len(FILES))
    remote.place(ContentName.of_archive(name), ARCHIVE_INDEX).unlink()
    few = remote.put_archive(list(FILES.values())[:10]), remote.put_archive(list(FILES.values())[10:])
    assert not read_all(tmp_path, remote, Oid("1" * 32, is_tree=True)).of("missed", ARCHIVE)
    names = {path.name for path in (tmp_path / "own" / INDEXES).rglob("*") if path.is_file()}
    assert names >= {archive.name for archive in few}


def test_where_nothing_can_be_kept_all_is_asked_for(tmp_path: Path, remote: ContentRemote) -> None:
    manifest = remote.put_version(FILES)
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / INDEXES).write_text("no directory")
    for _ in range(2):
        assert len(read_all(tmp_path, remote, manifest).of("read", ARCHIVE_INDEX)) == 1


def test_others_files_are_not_read(tmp_path: Path) -> None:
    indexes = KeptIndexes(tmp_path)
    indexes.keep("a" * 64, b"mine")
    assert indexes.read("a" * 64) == b"mine"
    if os.geteuid() == 0:
        os.chown(tmp_path / ("a" * 64), 65534, 65534)
        assert indexes.read("a" * 64) is None
