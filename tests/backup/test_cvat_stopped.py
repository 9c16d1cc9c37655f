"""A restore of CVAT's backup that ends at any point leaves whole objects alone, and is run again."""

from __future__ import annotations

from pathlib import Path

import pytest

from store.backup.cvat.restoring import CvatBackup, Version
from store.errors import InputError, ObjectMissing
from store.local_cache import LocalCache
from tests.backup.archives import there
from tests.backup.cvat_zips import task_files, write_zip
from tests.mount.datasets import md5

FILES = task_files(4)


class Stopped(Exception):
    """What ended it."""


def restore(file: Path, cache: LocalCache, stop: int) -> Version:
    """Restore, and end behind the `stop`-th file."""

    def told(files: int, size: int) -> None:
        if files == stop:
            raise Stopped

    with file.open("rb") as opened:
        return CvatBackup(opened, "the zip").restore(cache, told)


@pytest.mark.parametrize("stop", range(1, len(FILES) + 1))
def test_it_is_stopped_behind_any_file(tmp_path: Path, stop: int) -> None:
    file, root = write_zip(tmp_path / "task.zip", FILES), tmp_path / "cache"
    cache = LocalCache(root)
    with pytest.raises(Stopped):
        restore(file, cache, stop)
    assert not there(root / "fusefs/incoming")
    for name in there(root / "files") if (root / "files").exists() else ():
        assert md5((root / "files" / name).read_bytes()) == "".join(name.split("/")[-2:])
    version = restore(file, cache, 0)
    descriptor, size = cache.open(version.oid)
    with open(descriptor, "rb") as manifest:
        data = manifest.read()
    assert len(data) == size
    assert all(name.encode() in data for name in FILES)
    assert version.nfiles == len(FILES)
    cache.close()


def test_a_damaged_member_leaves_no_version(tmp_path: Path) -> None:
    file, root = write_zip(tmp_path / "task.zip", FILES), tmp_path / "cache"
    whole = restore(file, LocalCache(tmp_path / "other"), 0)
    data = bytearray(file.read_bytes())
    place = data.index(b"PNG", data.index(b"data/street/03.png"))
    data[place + 20] ^= 1
    file.write_bytes(data)
    cache = LocalCache(root)
    with pytest.raises(InputError, match="' cannot be unpacked"):
        restore(file, cache, 0)
    assert not there(root / "fusefs/incoming")
    with pytest.raises(ObjectMissing):
        cache.open(whole.oid)
    cache.close()
