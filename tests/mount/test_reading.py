"""Every way in which a program can read a file, held against the bytes that were committed."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import select
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.mount.datasets import EDGES, filler
from tests.mount.mounts import Mounter

pytestmark = [pytest.mark.fuse, pytest.mark.modes("fuse", "native")]

BIG = filler(3 * (1 << 20) + 777, 5)
FILES = {
    "big": BIG,
    "small": b"0123456789",
    "empty": b"",
    "below/other": b"other",
    **{f"edges/{length}": filler(length, length) for length in EDGES},
}
BEYOND = (1 << 31, 1 << 40, (1 << 63) - 4096)
BEYOND_DISKS = 1 << 43
"""As far as files on a disk may reach, which in native mode limits where a file can be asked."""
WAIT_SECONDS = 60.0
IN_OPEN = 0x20
IN_CLOSE_NOWRITE = 0x10


@pytest.fixture(scope="module")
def root(shared_mounter: Mounter) -> Path:
    return shared_mounter.mount_files(FILES).path


@contextmanager
def opened(path: Path, flags: int = os.O_RDONLY) -> Iterator[int]:
    descriptor = os.open(path, flags)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("length", EDGES)
def test_a_file_near_an_edge_is_whole(root: Path, length: int) -> None:
    data = FILES[f"edges/{length}"]
    with opened(root / "edges" / str(length)) as fd:
        assert os.fstat(fd).st_size == length
        assert os.read(fd, length + 4096) == data
        assert os.read(fd, 1) == b""


@pytest.mark.parametrize("step", [1 << 12, (1 << 16) + 1, 1 << 17, 1 << 20])
def test_reading_on_gives_the_whole(root: Path, step: int) -> None:
    with opened(root / "big") as fd:
        assert b"".join(iter(lambda: os.read(fd, step), b"")) == BIG


def test_pread_across_every_page_edge(root: Path) -> None:
    with opened(root / "big") as fd:
        for offset in range(4090, len(BIG), 4096 * 37):
            assert os.pread(fd, 12, offset) == BIG[offset : offset + 12]


@pytest.mark.parametrize("offset", [0, 1, len(BIG) - 1, len(BIG), len(BIG) + 1, *BEYOND])
def test_offsets_at_and_beyond_the_end(root: Path, offset: int, mode: str) -> None:
    if mode == "native":
        offset = min(offset, BEYOND_DISKS)
    with opened(root / "big") as fd:
        assert os.pread(fd, 100, offset) == BIG[offset : offset + 100]
        assert os.lseek(fd, offset, os.SEEK_SET) == offset
        assert os.read(fd, 100) == BIG[offset : offset + 100]


def test_seeking_counts_from_everywhere(root: Path) -> None:
    with opened(root / "small") as fd:
        assert os.lseek(fd, -3, os.SEEK_END) == 7
        assert os.read(fd, 1) == b"7"
        assert os.lseek(fd, -2, os.SEEK_CUR) == 6
        assert os.lseek(fd, 100, os.SEEK_END) == 110
        with pytest.raises(OSError) as caught:
            os.lseek(fd, -1, os.SEEK_SET)
        assert caught.value.errno == errno.EINVAL


def test_a_file_is_data_from_end_to_end(root: Path) -> None:
    with opened(root / "big") as fd:
        assert os.lseek(fd, 5000, os.SEEK_DATA) == 5000
        assert os.lseek(fd, 5000, os.SEEK_HOLE) == len(BIG)
        for whence in (os.SEEK_DATA, os.SEEK_HOLE):
            with pytest.raises(OSError) as caught:
                os.lseek(fd, len(BIG), whence)
            assert caught.value.errno == errno.ENXIO


def test_scattered_reads(root: Path) -> None:
    buffers = [bytearray(1), bytearray(5000), bytearray(1 << 17), bytearray(3)]
    total = sum(map(len, buffers))
    with opened(root / "big") as fd:
        assert os.preadv(fd, buffers, 4095) == total
        assert b"".join(buffers) == BIG[4095 : 4095 + total]
        assert os.preadv(fd, buffers, len(BIG) - 3) == 3
        assert bytes(buffers[0]) + bytes(buffers[1][:2]) == BIG[-3:]


def test_two_handles_have_a_position_each(root: Path) -> None:
    with opened(root / "big") as one, opened(root / "big") as two:
        assert os.read(one, 10) == os.read(two, 10) == BIG[:10]
        os.lseek(one, 1 << 20, os.SEEK_SET)
        assert os.read(two, 10) == BIG[10:20]
        assert os.read(one, 10) == BIG[1 << 20 : (1 << 20) + 10]


@pytest.mark.parametrize("flags", [mmap.MAP_SHARED, mmap.MAP_PRIVATE], ids=["shared", "private"])
def test_a_mapping_has_the_bytes_and_zeros_behind(root: Path, flags: int) -> None:
    with opened(root / "big") as fd, mmap.mmap(fd, len(BIG), flags, mmap.PROT_READ) as mapped:
        assert mapped[(1 << 20) - 5 : (1 << 20) + 5] == BIG[(1 << 20) - 5 : (1 << 20) + 5]
        assert mapped[:] == BIG
    with opened(root / "small") as fd, mmap.mmap(fd, 0, flags, mmap.PROT_READ) as mapped:
        assert mapped[:] == b"0123456789"


def test_a_mapping_outlives_its_descriptor(root: Path) -> None:
    with opened(root / "big") as fd:
        mapped = mmap.mmap(fd, len(BIG), mmap.MAP_SHARED, mmap.PROT_READ)
    with mapped:
        assert mapped[-100:] == BIG[-100:]


def test_what_is_written_to_a_private_mapping_stays_there(root: Path) -> None:
    with (
        opened(root / "small") as fd,
        mmap.mmap(fd, 10, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE) as mapped,
    ):
        mapped[3:6] = b"abc"
        assert mapped[:] == b"012abc6789"
        assert os.pread(fd, 10, 0) == b"0123456789"
    assert (root / "small").read_bytes() == b"0123456789"


def test_a_shared_mapping_cannot_be_written(root: Path) -> None:
    with opened(root / "small") as fd, pytest.raises(PermissionError):
        mmap.mmap(fd, 10, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)


def test_direct_reads(root: Path) -> None:
    length = 1 << 18
    with opened(root / "big", os.O_RDONLY | os.O_DIRECT) as fd, mmap.mmap(-1, length) as aligned:
        for offset in (0, 4096 * 17, 1 << 20, (len(BIG) // 4096) * 4096, len(BIG) + 4096 - len(BIG) % 4096):
            got = os.preadv(fd, [aligned], offset)
            assert aligned[:got] == BIG[offset : offset + length]


def test_sendfile_to_a_pipe_a_socket_and_a_file(root: Path, tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    reading, writing = os.pipe()
    with ours, theirs, opened(root / "big") as fd, open(reading, "rb") as pipe, open(writing, "wb"):
        assert os.sendfile(theirs.fileno(), fd, 12345, 1000) == 1000
        assert ours.recv(2000) == BIG[12345:13345]
        assert os.sendfile(writing, fd, 4000, 500) == 500
        assert os.read(pipe.fileno(), 1000) == BIG[4000:4500]
        with open(tmp_path / "copy", "wb") as copy:
            offset = 0
            while sent := os.sendfile(copy.fileno(), fd, offset, 1 << 20):
                offset += sent
    assert (tmp_path / "copy").read_bytes() == BIG


def test_splice(root: Path) -> None:
    reading, writing = os.pipe()
    with opened(root / "big") as fd, open(reading, "rb") as pipe, open(writing, "wb"):
        assert os.splice(fd, writing, 4096, offset_src=8192) == 4096
        assert os.read(pipe.fileno(), 8192) == BIG[8192:12288]


def test_copy_file_range(root: Path, tmp_path: Path) -> None:
    with opened(root / "big") as fd, open(tmp_path / "copy", "wb") as copy:
        try:
            copied = os.copy_file_range(fd, copy.fileno(), 100_000, offset_src=4095)
        except OSError as error:
            # Between two file systems the kernel may refuse it, and every caller falls back.
            assert error.errno in (errno.EXDEV, errno.EOPNOTSUPP, errno.EINVAL)
            return
    assert copied > 0
    assert (tmp_path / "copy").read_bytes() == BIG[4095 : 4095 + copied]


def test_advice_and_readahead_change_nothing(root: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.readahead.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_size_t)
    with opened(root / "big") as fd:
        for advice in (
            os.POSIX_FADV_SEQUENTIAL,
            os.POSIX_FADV_RANDOM,
            os.POSIX_FADV_WILLNEED,
            os.POSIX_FADV_DONTNEED,
            os.POSIX_FADV_NOREUSE,
        ):
            os.posix_fadvise(fd, 0, 0, advice)
            assert os.pread(fd, 5000, 70_000) == BIG[70_000:75_000]
        assert libc.readahead(fd, 0, len(BIG)) == 0
        assert os.pread(fd, len(BIG), 0) == BIG


@pytest.mark.parametrize("name", ["big", "below", "."])
def test_inotify_watchers_can_be_added(root: Path, name: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    inotify = libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
    assert inotify >= 0
    try:
        watch = libc.inotify_add_watch(inotify, os.fsencode(root / name), IN_OPEN | IN_CLOSE_NOWRITE)
        assert watch >= 0, os.strerror(ctypes.get_errno())
        with opened(root / name):
            assert select.select([inotify], [], [], WAIT_SECONDS)[0]
        number, mask = struct.unpack_from("iI", os.read(inotify, 4096))
        assert (number, mask & ~(1 << 30)) == (watch, IN_OPEN)
    finally:
        os.close(inotify)


def test_flock_excludes_and_shares(root: Path) -> None:
    with opened(root / "small") as one, opened(root / "small") as two:
        fcntl.flock(one, fcntl.LOCK_SH | fcntl.LOCK_NB)
        fcntl.flock(two, fcntl.LOCK_SH | fcntl.LOCK_NB)
        with pytest.raises(BlockingIOError):
            fcntl.flock(one, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(two, fcntl.LOCK_UN)
        fcntl.flock(one, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_record_locks_can_be_shared(root: Path) -> None:
    with opened(root / "small") as fd:
        fcntl.lockf(fd, fcntl.LOCK_SH | fcntl.LOCK_NB, 5, 1)
        with pytest.raises(OSError) as caught:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert caught.value.errno == errno.EBADF
        fcntl.lockf(fd, fcntl.LOCK_UN)


def test_buffered_text_and_lines(root: Path) -> None:
    with open(root / "edges" / "131073", "rb") as file:
        assert b"".join(file) == FILES["edges/131073"]
        file.seek(-100, os.SEEK_END)
        assert file.read() == FILES["edges/131073"][-100:]


def test_fsync_and_ioctl_do_not_hang(root: Path) -> None:
    with opened(root / "small") as fd:
        with pytest.raises(OSError) as caught:
            fcntl.ioctl(fd, 0x5401, bytes(64))  # TCGETS: what isatty asks
        assert caught.value.errno == errno.ENOTTY
        assert not os.isatty(fd)
        os.fsync(fd)
        os.fdatasync(fd)


def test_an_empty_file(root: Path) -> None:
    with opened(root / "empty") as fd:
        assert os.read(fd, 100) == b""
        assert os.pread(fd, 100, 4096) == b""
        with pytest.raises(ValueError, match="empty"):
            mmap.mmap(fd, 0, mmap.MAP_SHARED, mmap.PROT_READ)
    assert (root / "empty").stat().st_blocks == 0
