"""A hundred thousand files, flat and nested: listed whole, each once, and found by name."""

from __future__ import annotations

import ctypes
import os
import random
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.mount.datasets import Cache, filler, md5
from tests.mount.mounts import Mount, Mounter

pytestmark = pytest.mark.fuse

HALF = int(os.environ.get("FUSEFS_TEST_FILES", "100000")) // 2
CONTENTS = [filler(100 + number, number) for number in range(50)]
SECONDS = 600.0


def flat_name(number: int) -> str:
    return f"file {number * 7919 % HALF:07d}.bin"  # no order that could help


def nested_path(number: int) -> str:
    return f"nested/{number % 97:02d}/{number % 13:02d}/{number:07d}"


def content(number: int) -> bytes:
    return CONTENTS[number % len(CONTENTS)]


@pytest.fixture(scope="module")
def mount(shared_mounter: Mounter) -> Mount:
    cache = Cache(shared_mounter.home / "objects")
    oids = [cache.put(data) for data in CONTENTS]
    paths = [*(f"flat/{flat_name(n)}" for n in range(HALF)), *(nested_path(n) for n in range(HALF))]
    entries = [{"md5": oids[n % HALF % len(oids)], "relpath": path} for n, path in enumerate(paths)]
    return shared_mounter.mount(cache.put_manifest(entries), "--cache", cache.root)


def test_everything_is_listed_once(mount: Mount) -> None:
    flat = os.listdir(mount.path / "flat")
    assert len(flat) == HALF
    assert set(flat) == {flat_name(number) for number in range(HALF)}
    nested = [
        os.path.relpath(os.path.join(here, name), mount.path)
        for here, _, names in os.walk(mount.path / "nested")
        for name in names
    ]
    assert len(nested) == HALF
    assert set(nested) == {nested_path(number) for number in range(HALF)}
    assert mount.status()["files"] == 2 * HALF


def test_find_stats_them_all(mount: Mount) -> None:
    command = ["find", ".", "-type", "f", "-size", "+0", "-printf", r"%s\n"]
    done = subprocess.run(command, cwd=mount.path, capture_output=True, timeout=SECONDS, check=True)
    sizes = done.stdout.split()
    assert len(sizes) == 2 * HALF
    assert sum(map(int, sizes)) == 2 * sum(len(content(number)) for number in range(HALF))


def test_names_are_found_in_any_order(mount: Mount) -> None:
    order = random.Random(23)
    for number in order.choices(range(HALF), k=300):
        for path in (f"flat/{flat_name(number)}", nested_path(number)):
            assert (mount.path / path).stat().st_size == len(content(number))
            with pytest.raises(FileNotFoundError):
                (mount.path / f"{path}0").stat()
    for number in order.choices(range(HALF), k=100):
        path = mount.path / "flat" / flat_name(number)
        assert md5(path.read_bytes()) == md5(content(number))
        assert os.getxattr(path, "user.fusefs.oid").decode() == md5(content(number))


class _Entry(ctypes.Structure):
    """`struct dirent` of Linux, 64-bit."""

    _fields_ = (
        ("d_ino", ctypes.c_uint64),
        ("d_off", ctypes.c_int64),
        ("d_reclen", ctypes.c_uint16),
        ("d_type", ctypes.c_uint8),
        ("d_name", ctypes.c_char * 256),
    )


_libc = ctypes.CDLL(None, use_errno=True)
_libc.opendir.restype = ctypes.c_void_p
_libc.readdir64.argtypes = _libc.rewinddir.argtypes = _libc.closedir.argtypes = (ctypes.c_void_p,)
_libc.readdir64.restype = ctypes.POINTER(_Entry)
_libc.telldir.argtypes = (ctypes.c_void_p,)
_libc.telldir.restype = ctypes.c_long
_libc.seekdir.argtypes = (ctypes.c_void_p, ctypes.c_long)


class Stream:
    """An open directory of the C library."""

    def __init__(self, handle: int) -> None:
        self._handle = handle

    def next(self) -> bytes:
        """The next name; nothing at the end."""
        entry = _libc.readdir64(self._handle)
        return bytes(entry.contents.d_name) if entry else b""

    def rest(self) -> list[bytes]:
        return list(iter(self.next, b""))

    def tell(self) -> int:
        place: int = _libc.telldir(self._handle)
        return place

    def seek(self, place: int) -> None:
        _libc.seekdir(self._handle, place)

    def rewind(self) -> None:
        _libc.rewinddir(self._handle)


@contextmanager
def stream(path: Path) -> Iterator[Stream]:
    handle = _libc.opendir(os.fsencode(path))
    assert handle, os.strerror(ctypes.get_errno())
    try:
        yield Stream(handle)
    finally:
        _libc.closedir(handle)


def test_a_listing_goes_on_where_it_was_told_to(mount: Mount) -> None:
    with stream(mount.path / "flat") as one:
        whole = one.rest()
        assert whole[:2] == [b".", b".."]
        assert len(whole) == HALF + 2
        one.rewind()
        places = {}
        for position in range(HALF + 2):
            if position % 4999 == 0 or position in (1, 2, 3, HALF, HALF + 1):
                places[position] = one.tell()
            one.next()
        for position in random.Random(5).sample(sorted(places), len(places)):
            one.seek(places[position])
            assert one.next() == whole[position]
        one.seek(places[HALF - HALF % 4999])
        assert one.rest() == whole[HALF - HALF % 4999 :]


def test_two_listings_at_once_do_not_disturb_each_other(mount: Mount) -> None:
    with stream(mount.path / "flat") as one, stream(mount.path / "flat") as two:
        whole = two.rest()
        first = [one.next() for _ in range(HALF // 3)]
        two.rewind()
        again = [two.next() for _ in range(HALF // 2)]
        first += one.rest()
        again += two.rest()
        assert first == again == whole
        one.rewind()
        assert one.rest() == whole
