"""Extended attributes: whose content a file is, and whether the cache has it."""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

import pytest

from tests.mount.datasets import Cache, md5
from tests.mount.mounts import Mounter

pytestmark = [pytest.mark.fuse, pytest.mark.modes("fuse", "native")]

FILES = {"one": b"1", "below/two": b"22", "empty": b""}


@pytest.fixture(scope="module")
def cache(shared_mounter: Mounter) -> Cache:
    return Cache(shared_mounter.home / "objects")


@pytest.fixture(scope="module")
def oid(cache: Cache) -> str:
    return cache.put_dataset(FILES)


@pytest.fixture(scope="module")
def root(shared_mounter: Mounter, cache: Cache, oid: str) -> Path:
    return shared_mounter.mount(oid, "--cache", cache.root).path


def test_a_file_has_its_oid(root: Path) -> None:
    for path, data in FILES.items():
        assert os.getxattr(root / path, "user.fusefs.oid") == md5(data).encode()


def test_the_root_has_the_manifest_s_oid(root: Path, oid: str) -> None:
    assert os.getxattr(root, "user.fusefs.oid") == oid.encode()


def test_cached_says_what_is_in_the_cache_now(mounter: Mounter) -> None:
    cache = Cache(mounter.home / "objects")
    root = mounter.mount(cache.put_dataset(FILES), "--cache", cache.root, "--no-pin").path
    assert os.getxattr(root / "one", "user.fusefs.cached") == b"1"
    cache.remove(md5(b"1"))
    assert os.getxattr(root / "one", "user.fusefs.cached") == b"0"
    assert os.getxattr(root / "below/two", "user.fusefs.cached") == b"1"
    cache.put(b"1")
    assert os.getxattr(root / "one", "user.fusefs.cached") == b"1"


def test_what_is_listed_can_be_read(root: Path) -> None:
    assert set(os.listxattr(root / "one")) == {
        "user.fusefs.oid",
        "user.fusefs.cached",
        "user.fusefs.verified",
    }
    for path in ("one", "below", ".", "empty", ".fusefs", ".fusefs/status"):
        for name in os.listxattr(root / path):
            assert os.getxattr(root / path, name)


@pytest.mark.parametrize(
    "name",
    [
        "user.mine",
        "user.fusefs.",
        "user.fusefs.other",
        "user.fusefs.rev",
        "user.fusefs.oidx",
        "security.capability",
        "security.selinux",
        "system.posix_acl_access",
        "trusted.overlay.opaque",
    ],
)
def test_others_are_not_there(root: Path, name: str) -> None:
    for path in ("one", "below", ".fusefs/status"):
        with pytest.raises(OSError) as caught:
            os.getxattr(root / path, name)
        assert caught.value.errno in (errno.ENODATA, errno.EOPNOTSUPP)


def test_an_unknown_user_attribute_is_no_data(root: Path) -> None:
    with pytest.raises(OSError) as caught:
        os.getxattr(root / "one", "user.mine")
    assert caught.value.errno == errno.ENODATA


def test_a_buffer_that_is_too_small_is_told_so(root: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    path = os.fsencode(root / "one")
    small = ctypes.create_string_buffer(5)
    assert libc.getxattr(path, b"user.fusefs.oid", None, 0) == 32
    assert libc.getxattr(path, b"user.fusefs.oid", small, 5) == -1
    assert ctypes.get_errno() == errno.ERANGE
    assert libc.listxattr(path, small, 5) == -1
    assert ctypes.get_errno() == errno.ERANGE
