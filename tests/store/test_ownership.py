"""`Ownership`: what new things in a cache get, by what is there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from store.ownership import Ownership, make_root


@pytest.mark.parametrize(
    ("root", "objects", "mode"),
    [(0o700, None, 0o700), (0o700, 0o775, 0o700), (0o755, 0o2775, 0o2775), (0o2770, 0o2775, 0o2770)],
)
def test_a_directory_is_as_those_beside_it(root: int, objects: int | None, mode: int, tmp_path: Path) -> None:
    """`cache.shared` may have come later than the cache; DVC makes directories below it accordingly."""
    cache = tmp_path / "cache"
    cache.mkdir()
    if objects is not None:
        (cache / "files/md5").mkdir(parents=True)
        (cache / "files/md5").chmod(objects)
    cache.chmod(root)
    opened = os.open(cache, os.O_RDONLY)
    try:
        ownership = Ownership.of_directory(opened, shared_with_group=False)
        new = ownership.open_directory("new", opened, create=True)
        assert os.fstat(new).st_mode & 0o7777 == mode
        os.close(new)
    finally:
        os.close(opened)


def test_what_leads_elsewhere_tells_nothing(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o2777)
    (tmp_path / "cache/files").mkdir(parents=True)
    (tmp_path / "cache/files/md5").symlink_to(tmp_path / "shared")
    (tmp_path / "cache").chmod(0o755)
    opened = os.open(tmp_path / "cache", os.O_RDONLY)
    try:
        assert Ownership.of_directory(opened, shared_with_group=False).directory_mode == 0o755
    finally:
        os.close(opened)


def test_a_root_that_is_shared_with_the_group(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir(mode=0o755)
    make_root(tmp_path / "there/new/cache", 0o777, shared_with_group=True)
    names = ("there", "there/new", "there/new/cache")
    modes = {name: (tmp_path / name).stat().st_mode & 0o7777 for name in names}
    assert modes == {"there": 0o755, "there/new": 0o2775, "there/new/cache": 0o2775}
