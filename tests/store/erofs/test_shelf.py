"""Which images are believed, and of which objects the lengths are looked at (again)."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import numpy as np
import pytest

from store.cache_chain import CacheChain
from store.erofs.checking import check_lengths
from store.erofs.image import write_image
from store.erofs.look import Look
from store.erofs.shelf import (
    ImageDamaged,
    find_unchecked,
    former_images,
    image_path,
    note_checked,
    open_image,
)
from store.errors import ObjectCorrupt
from store.layouts import object_path
from store.learnt_sizes import PREFIXES, Stamps
from store.local_cache import LocalCache
from store.oid import MD5, MD5_DOS2UNIX
from tests.store.erofs.test_image import check, describe, leaf, mounted, needs_root

ALL = {MD5: bytes([1]) * PREFIXES, MD5_DOS2UNIX: bytes([1]) * PREFIXES}
NONE = {MD5: bytes(PREFIXES), MD5_DOS2UNIX: bytes(PREFIXES)}
LOOK = Look(0, 0)


def stamps(**others: int) -> Stamps:
    """Stamps that tell all directories apart; `others` are those of md5, by two digits."""
    told = {MD5: [1 << 32 | n + 1 for n in range(PREFIXES)], MD5_DOS2UNIX: [n + 9 for n in range(PREFIXES)]}
    for digits, stamp in others.items():
        told[MD5][int(digits.removeprefix("at_"), 16)] = stamp
    return told


def test_an_image_is_found_by_all_that_it_tells(tmp_path: Path) -> None:
    tree = tmp_path / "abc.tree"
    image = image_path(tree, b"sizes", LOOK, "oid")
    assert image == image_path(tree, b"sizes", Look(0, 0), "oid")
    others = [
        image_path(tree, b"other", LOOK, "oid"),
        image_path(tree, b"sizes", Look(0, 0, private_to=0), "oid"),
        image_path(tree, b"sizes", Look(0, 1), "oid"),
        image_path(tree, b"sizes", LOOK, "another"),
    ]
    assert len({image, *others}) == 5
    for path in (image, *others):
        path.touch()
    assert former_images(image) == others[:1]


def test_what_was_checked_is_looked_at_again_where_it_has_changed(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.touch()
    assert find_unchecked(None, stamps()) == find_unchecked(image, stamps()) == ALL
    note_checked(image, stamps(at_02=0))  # of that directory nothing could be told
    changed = find_unchecked(image, stamps(at_fe=77))
    assert [place for place, mark in enumerate(changed[MD5]) if mark] == [0x02, 0xFE]
    assert changed[MD5_DOS2UNIX] == NONE[MD5_DOS2UNIX]
    note_checked(image, stamps())
    assert find_unchecked(image, stamps()) == NONE
    os.setxattr(image, "user.fusefs.checked", b"something else")
    assert find_unchecked(image, stamps()) == ALL


def test_objects_are_held_against_the_sizes(tmp_path: Path) -> None:
    described = describe(tmp_path, [leaf(b"a", 1), leaf(b"b", 2, MD5_DOS2UNIX), leaf(b"absent", 3)])
    tree, sizes = described.tree, np.full(described.tree.rows, 7, np.int64)
    chain = CacheChain(LocalCache(tmp_path / "cache"))
    places = [tmp_path / "cache" / object_path(tree.oid(tree.lookup(0, name) or 0)) for name in (b"a", b"b")]
    for place in places:
        place.parent.mkdir(parents=True)
        place.write_bytes(b"x" * 7)
    check_lengths(tree, sizes, chain, ALL)
    for place in places:
        place.write_bytes(b"x" * 6)
        check_lengths(tree, sizes, chain, NONE)
        with pytest.raises(ObjectCorrupt, match="6 bytes, not 7"):
            check_lengths(tree, sizes, chain, ALL)
        place.write_bytes(b"x" * 7)
    chain.close()


def test_only_ones_own_image_is_opened(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        open_image(tmp_path / "none")
    write_image(describe(tmp_path, [leaf(b"a", 1)]), tmp_path / "image")
    check(tmp_path / "image")
    (tmp_path / "link").symlink_to(tmp_path / "image")
    with pytest.raises(OSError, match="symbolic links"):
        open_image(tmp_path / "link")
    if os.geteuid() == 0:
        os.chown(tmp_path / "image", 12345, 12345)
        with pytest.raises(ImageDamaged, match="another user"):
            open_image(tmp_path / "image")


@needs_root
def test_a_private_root(tmp_path: Path) -> None:
    write_image(describe(tmp_path, [leaf(b"d/f", 1)], Look(1, 2, private_to=5)), tmp_path / "image")
    check(tmp_path / "image")
    with mounted(tmp_path / "image") as root:
        status, below = root.stat(), (root / "d").stat()
        assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o700, 5, 2)
        assert (stat.S_IMODE(below.st_mode), below.st_uid) == (0o755, 1)
