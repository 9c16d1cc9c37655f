"""`Partials`: objects of which only some blocks are here: `<cache>/fusefs/partials/`. Any thread; blocking.

A partial is a sparse file of the object's length and a map beside it (`store.fetching.block_map`), where the
object's place would be below that directory. Processes that share the cache share it, and it outlives them.
Whoever writes a block holds its flight lock; a partial that has all its blocks is written by nobody, so what
is hashed then is what is admitted.

Where processes cannot be told apart by locks, or the name belongs to somebody else, a partial is a file
without a name: seen by one process, gone with it, and admitted all the same when it is whole.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import stat
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from errno import EIO
from pathlib import Path
from typing import Final, NamedTuple

import xxhash

from store.errors import CacheUnusable
from store.fetching.arrivals import INCOMING, OURS
from store.fetching.block_map import BLOCK_BYTES, BlockMap, End, hash_entry
from store.fetching.flight_locks import FlightLocks
from store.layouts import object_path
from store.oid import Oid
from store.ownership import Ownership, make_root
from store.syncing import WRITE_BYTES

DIRECTORY: Final = "partials"
MAP_SUFFIX: Final = ".map"

NAMES_LOCK: Final = -2
"""Flight lock of whoever makes, admits or discards an object's partial."""
_VECTOR: Final = 64
"""Pieces that are written by one call, at most."""
_NEW_CACHE_MODE: Final = 0o777
_NAMES_SECONDS: Final = 5.0
_POLL_SECONDS: Final = 0.01


class Leftover(NamedTuple):
    """A partial as `Partials.leftovers` finds it."""

    path: Path
    bytes_on_disk: int
    """Of both files."""
    last_use: float
    """Seconds since the epoch."""


class Partial:
    """An open partial. Its files are closed when nothing refers to it any more."""

    def __init__(
        self, oid: Oid, size: int, data: int, map_descriptor: int, *, named: bool, in_cache: bool = True
    ) -> None:
        self.oid = oid
        self.size = size
        self.named = named
        """Whether other processes can open it, too."""
        self.in_cache = in_cache
        """Whether it takes room in the cache, and not elsewhere."""
        self.descriptor = data
        self._map_descriptor = map_descriptor
        self.map = BlockMap(map_descriptor, size)
        self._writing = threading.Lock()

    def __del__(self) -> None:
        os.close(self.descriptor)
        os.close(self._map_descriptor)

    def length_of(self, block: int) -> int:
        return min(BLOCK_BYTES, self.size - block * BLOCK_BYTES)

    def read(self, offset: int, length: int) -> bytes:
        """Bytes that are there; fewer where the file has become shorter. Raises `OSError`."""
        data = os.pread(self.descriptor, length, offset)
        while len(data) < length:
            more = os.pread(self.descriptor, length - len(data), offset + len(data))
            if not more:
                break
            data += more
        return data

    def read_into(self, buffer: memoryview, offset: int) -> int:
        """As `read`; how many bytes came. Raises `OSError`."""
        got = 0
        while got < len(buffer):
            more = os.preadv(self.descriptor, [buffer[got:]], offset + got)
            if not more:
                break
            got += more
        return got

    def write(self, block: int, pieces: Sequence[bytes | memoryview], digest: int) -> None:
        """Put a whole block and then its entry. The caller holds the block's lock. Raises `OSError`."""
        if os.fstat(self.descriptor).st_size != self.size:
            # Somebody made it shorter. Longer again, it would have zeros where others trust their blocks.
            raise OSError(EIO, "a partial has become shorter")
        offset = block * BLOCK_BYTES
        # The kernel lets one write to a file at a time, and those that wait for it there burn the CPU.
        with self._writing:
            for left in _in_calls(pieces):
                while left:
                    written = os.pwritev(self.descriptor, left[:_VECTOR], offset)
                    offset += written
                    while left and written >= len(left[0]):
                        written -= len(left.pop(0))
                    if left:
                        left[0] = left[0][written:]
        self.map.put(block, hash_entry(digest))

    def is_good(self, block: int) -> bool:
        """Is the block there, with the bytes that its entry promises? Raises `OSError`."""
        entry = self.map.get(block)
        if not entry:
            return False
        data = self.read(block * BLOCK_BYTES, self.length_of(block))
        return len(data) == self.length_of(block) and hash_entry(xxhash.xxh3_64_intdigest(data)) == entry


class Partials:
    """The partials of the cache at `cache_root`."""

    def __init__(self, cache_root: Path, locks: FlightLocks) -> None:
        self._root = cache_root
        self._locks = locks

    def is_there(self, oid: Oid) -> bool:
        """Has the object been begun, and not been taken out?"""
        return os.path.lexists(self._root / OURS / DIRECTORY / object_path(oid))

    def open(self, oid: Oid, size: int) -> Partial:
        """Open or begin the partial of an object of `size` bytes. Raises `CacheUnusable`."""
        with self._from_cache() as (ownership, ours, stack):
            directory, name = self._descend(oid, ownership, ours, stack)
            if self._locks.work:
                partial = self._open_named(oid, size, directory, name, ownership)
                if partial is not None:
                    return partial
            return _open_nameless(oid, size, f"/proc/self/fd/{directory}", in_cache=True)

    def open_elsewhere(self, oid: Oid, size: int) -> Partial:
        """A partial that lies where temporary files do, for a cache that is full. Raises `CacheUnusable`."""
        directory = tempfile.gettempdir()
        try:
            return _open_nameless(oid, size, directory, in_cache=False)
        except OSError as error:
            raise CacheUnusable(
                f"cannot write to {directory}: {error.strerror}; --verify whole needs room for the object"
            ) from None

    def take_out(self, partial: Partial) -> Path | None:
        """Move the file of a partial to `incoming`, from where it can be admitted or put aside, and end its
        names; None where it is not in the cache or not ours to move any more. Raises `CacheUnusable`."""
        if not partial.in_cache:
            return None
        with self._from_cache() as (ownership, ours, stack):
            incoming = ownership.open_directory(INCOMING, ours, create=True)
            stack.callback(os.close, incoming)
            fresh = f"partial-{os.getpid()}-{secrets.token_hex(8)}"
            with contextlib.suppress(OSError):  # a file of `incoming` that is not locked is a dead one's
                fcntl.flock(partial.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if partial.named:
                directory, name = self._descend(partial.oid, ownership, ours, stack)
                stack.enter_context(self._names(partial.oid))
                if not _is_at(partial.descriptor, name, directory):
                    return None
                os.rename(name, fresh, src_dir_fd=directory, dst_dir_fd=incoming)
                os.unlink(name + MAP_SUFFIX, dir_fd=directory)
            else:
                source = f"/proc/self/fd/{partial.descriptor}"
                os.link(source, fresh, dst_dir_fd=incoming, follow_symlinks=True)
            return self._root / OURS / INCOMING / fresh

    def leftovers(self) -> Iterator[Leftover]:
        """All that lie there, in no order; none where the directory cannot be read."""
        root = self._root / OURS / DIRECTORY
        with contextlib.suppress(OSError):
            for directory, _, names, descriptor in os.fwalk(root, follow_symlinks=False):
                for name in names:
                    path = Path(directory, name)
                    if name.endswith(MAP_SUFFIX) and name.removesuffix(MAP_SUFFIX) in names:
                        continue
                    with contextlib.suppress(OSError):
                        yield _measure(path, name, descriptor)

    def remove(self, leftover: Leftover) -> bool:
        """Remove a partial that nobody has open; False where somebody has. Raises `CacheUnusable`."""
        with self._from_cache() as (ownership, ours, stack):
            directory = ours
            *parents, name = leftover.path.relative_to(self._root / OURS).parts
            for parent in parents:
                directory = ownership.open_directory(parent, directory, create=False)
                stack.callback(os.close, directory)
            beside = name + MAP_SUFFIX
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            with contextlib.suppress(FileNotFoundError):
                descriptor = os.open(beside, flags, dir_fd=directory)
                stack.callback(os.close, descriptor)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    return False
            for each in (name, beside):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(each, dir_fd=directory)
            return True

    def _open_named(
        self, oid: Oid, size: int, directory: int, name: str, ownership: Ownership
    ) -> Partial | None:
        """None where the names belong to somebody who does not let us use them."""
        try:
            with self._names(oid):
                partial = _open_pair(oid, size, directory, name, ownership)
                if partial is None:
                    # Not made longer or empty where it is: who has it open trusts its blocks.
                    for each in (name, name + MAP_SUFFIX):
                        with contextlib.suppress(FileNotFoundError):
                            os.unlink(each, dir_fd=directory)
                    partial = _open_pair(oid, size, directory, name, ownership)
                return partial
        except (BlockingIOError, PermissionError, FileExistsError):
            return None

    def _descend(
        self, oid: Oid, ownership: Ownership, ours: int, stack: contextlib.ExitStack
    ) -> tuple[int, str]:
        """The open directory that has the object's partial, and its name there."""
        *parents, name = (DIRECTORY, *object_path(oid).split("/"))
        directory = ours
        for parent in parents:
            directory = ownership.open_directory(parent, directory, create=True)
            stack.callback(os.close, directory)
        return directory, name

    @contextlib.contextmanager
    def _names(self, oid: Oid) -> Iterator[None]:
        deadline = time.monotonic() + _NAMES_SECONDS
        while not self._locks.try_hold(oid, NAMES_LOCK):
            if time.monotonic() > deadline:
                raise BlockingIOError("another process holds the partial's names")
            time.sleep(_POLL_SECONDS)
        try:
            yield
        finally:
            self._locks.release(oid, NAMES_LOCK)

    @contextlib.contextmanager
    def _from_cache(self) -> Iterator[tuple[Ownership, int, contextlib.ExitStack]]:
        """The cache's ownership and its directory `fusefs`; what is put on the stack is closed at the end."""
        try:
            with contextlib.ExitStack() as stack:
                make_root(self._root, _NEW_CACHE_MODE)
                root = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                stack.callback(os.close, root)
                ownership = Ownership.of_directory(root, shared_with_group=False)
                ours = ownership.open_directory(OURS, root, create=True)
                stack.callback(os.close, ours)
                yield ownership, ours, stack
        except OSError as error:
            raise CacheUnusable(
                f"cannot write to the cache {str(self._root)!r}: {error.strerror or error}"
            ) from None


def _in_calls(pieces: Sequence[bytes | memoryview]) -> Iterator[list[memoryview]]:
    """The same bytes in groups of `WRITE_BYTES`."""
    group: list[memoryview] = []
    room = WRITE_BYTES
    for piece in pieces:
        left = memoryview(piece)
        while left:
            part, left = left[:room], left[room:]
            group.append(part)
            room -= len(part)
            if not room:
                yield group
                group, room = [], WRITE_BYTES
    if group:
        yield group


def _open_pair(oid: Oid, size: int, directory: int, name: str, ownership: Ownership) -> Partial | None:
    """None where what is there is damaged, of another size, or has other names, too."""
    with contextlib.ExitStack() as closing:
        data = ownership.open_own_file(name, directory)
        closing.callback(os.close, data)
        beside = ownership.open_own_file(name + MAP_SUFFIX, directory)
        closing.callback(os.close, beside)
        # Held for as long as it is open: what is in use is not aged out.
        fcntl.flock(beside, fcntl.LOCK_SH | fcntl.LOCK_NB)
        # A second name might lead to any file of ours.
        if os.fstat(data).st_nlink != 1 or os.fstat(beside).st_nlink != 1:
            return None
        os.utime(beside)
        block_map = BlockMap(beside, size)
        if not os.fstat(data).st_size and not os.fstat(beside).st_size:
            os.ftruncate(data, size)
            block_map.begin()
        elif os.fstat(data).st_size != size or not block_map.is_sound() or block_map.end() is not End.NONE:
            return None
        closing.pop_all()
        return Partial(oid, size, data, beside, named=True)


def _open_nameless(oid: Oid, size: int, directory: str, *, in_cache: bool) -> Partial:
    with contextlib.ExitStack() as closing:
        data = os.open(directory, os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600)
        closing.callback(os.close, data)
        os.ftruncate(data, size)
        beside = os.memfd_create("fusefs-map")
        closing.callback(os.close, beside)
        BlockMap(beside, size).begin()
        closing.pop_all()
        return Partial(oid, size, data, beside, named=False, in_cache=in_cache)


def _is_at(descriptor: int, name: str, directory: int) -> bool:
    try:
        found = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return stat.S_ISREG(found.st_mode) and os.path.samestat(found, os.fstat(descriptor))


def _measure(path: Path, name: str, directory: int) -> Leftover:
    on_disk, last_use = 0, 0.0
    for each in (name, name + MAP_SUFFIX):
        with contextlib.suppress(FileNotFoundError):
            status = os.stat(each, dir_fd=directory, follow_symlinks=False)
            on_disk += 512 * status.st_blocks
            last_use = max(last_use, status.st_mtime)
    return Leftover(path, on_disk, last_use)
