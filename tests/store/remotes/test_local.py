"""The contract of a storage, held by a directory; and what a directory shared with others may hold."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from store.errors import (
    InputError,
    RemoteCorrupt,
    RemoteMissing,
    RemoteUnreachable,
)
from store.remotes.opening import open_remote
from store.remotes.spec import RemoteSpec
from store.remotes.storage import Address
from tests.store.remotes.contract import LIMITS, Place, StorageContract, read
from tests.store.remotes.places import FilePlace, fifo


class TestContract(StorageContract):
    @pytest.fixture
    def place(self, tmp_path: Path) -> Place:
        (tmp_path / "remote").mkdir()
        return FilePlace(tmp_path / "remote", str(tmp_path / "remote"))


@pytest.fixture
def place(tmp_path: Path) -> FilePlace:
    made = FilePlace(tmp_path / "remote", str(tmp_path / "remote"))
    made.put("object", b"bytes")
    return made


def link_to_a_file(path: Path) -> None:
    path.symlink_to("/etc/passwd")


def link_on_the_way(path: Path) -> None:
    path.parent.rmdir()
    path.parent.symlink_to("/etc")


@pytest.mark.parametrize("make", [link_to_a_file, link_on_the_way, fifo])
def test_nothing_but_files_of_the_directory_is_read(place: FilePlace, make: Callable[[Path], None]) -> None:
    (place.root / "dir").mkdir()
    make(place.root / "dir/passwd")
    storage = place.open(LIMITS)
    with pytest.raises(RemoteCorrupt):
        read(storage, "dir/passwd")
    with pytest.raises(RemoteCorrupt):
        storage.size(Address("dir/passwd"))
    assert [listed.key for listed in storage.list("")] == ["object"]


@pytest.mark.parametrize("key", ["../remote/object", "/etc/passwd", "a/../../remote/object", "nul\0"])
def test_no_key_leads_out(place: FilePlace, key: str) -> None:
    with pytest.raises(RemoteMissing):
        read(place.open(LIMITS), key)


def test_the_directory_itself_may_be_a_link_and_be_replaced(place: FilePlace, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(place.root)
    storage = FilePlace(tmp_path / "link", str(tmp_path / "link")).open(LIMITS)
    assert read(storage, "object") == b"bytes"
    FilePlace(tmp_path / "other", "").put("object", b"others")
    (tmp_path / "link").unlink()
    (tmp_path / "link").symlink_to(tmp_path / "other")
    assert read(storage, "object") == b"others"


def test_a_directory_that_is_not_there_is_no_empty_remote(tmp_path: Path) -> None:
    storage = FilePlace(tmp_path, str(tmp_path / "unmounted")).open(LIMITS)
    with pytest.raises(RemoteUnreachable, match="here: its directory is not there"):
        storage.size(Address("object"))
    with pytest.raises(RemoteUnreachable):
        list(storage.list("files/"))


def test_a_file_that_shrinks_is_no_short_object(place: FilePlace) -> None:
    place.put("large", b"x" * (3 << 20))
    with place.open(LIMITS).read(Address("large")) as body:
        parts = iter(body)
        next(parts)
        os.truncate(place.root / "large", 1 << 20)
        with pytest.raises(RemoteCorrupt, match="became shorter"):
            list(parts)


def test_a_relative_path_is_refused() -> None:
    with pytest.raises(InputError, match="absolute"):
        open_remote(RemoteSpec("here", "some/path"))
