"""`Downloader`: one whole object from one remote, hashed on its way. Blocking; any thread.

A small one comes into memory, as long as there is room in it, and is written to the disk behind its readers'
backs: many threads that make files in one directory wait for each other, and each system call costs a thread
its turn. A larger one comes into a file that lies where it can be renamed to its place in the cache. Where
the cache cannot be written, the bytes come into a file without a name, for whoever reads them now.
"""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from errno import EIO
from pathlib import Path
from types import MappingProxyType
from typing import Final, NamedTuple

from store.contents.members import MemberBody
from store.errors import CacheUnusable, RemoteCorrupt, RemoteSlow
from store.fetching.arrivals import Arrivals
from store.hashing import Hasher, bytes_match
from store.oid import Oid
from store.remotes.remote import Remote
from store.remotes.storage import CHUNK_BYTES, Body
from store.syncing import write_all
from store.tree import UNKNOWN

log = logging.getLogger(__name__)

WHOLE_LIMIT: Final = 4 << 20
"""Larger objects are read by ranges."""
SPARE_BYTES: Final = 64 << 20
"""Of memory, for bytes that are not on the disk, or not yet; beyond that, a file."""
IN_MEMORY: Final = 256 << 10
"""Bytes. An object that has no more is not written before it is read."""


NO_ERRAND: Final = -1
NOTHING: Final[Mapping[Oid, bytes]] = MappingProxyType({})


class Large(NamedTuple):
    """An object that is too large to be brought whole."""

    size: int


class Wanted(NamedTuple):
    """What is to be downloaded."""

    oid: Oid
    limit: int
    """Not more than so many bytes."""
    keep: bool
    """Is it to come into the cache?"""
    until: float
    """On the clock of `time.monotonic`; nobody waits for it any longer."""
    in_memory: int = IN_MEMORY
    """If it has no more bytes, it comes into memory, where that has room."""
    known: int = UNKNOWN
    """Its length, as it was told."""
    look: bool = False
    """Is it to be looked for in the caches first? The courier does that."""

    def keeps(self, size: int) -> bool:
        """Is it to come into the cache if it has so many bytes? Not with other ones than were told: the
        kernel would pad it, or cut it short, for whoever reads it there."""
        return self.keep and self.known in (UNKNOWN, size)


class Fetched:
    """The bytes of an object, in an open file or in memory. Closed when nobody holds it any more."""

    __slots__ = (
        "_spare",
        "_spared",
        "along",
        "data",
        "descriptor",
        "errand",
        "keep",
        "oid",
        "path",
        "remote",
        "size",
    )

    def __init__(
        self,
        oid: Oid,
        descriptor: int,
        size: int,
        path: Path | None = None,
        remote: Remote | None = None,
    ) -> None:
        self.oid = oid
        self.descriptor = descriptor
        self.size = size
        self.path = path
        """The file that waits to be published; None where it is in a cache already, in memory, or cannot
        be kept."""
        self.keep = path is not None
        """Is it to be published?"""
        self.data: bytes | None = None
        """What there is instead of a file; then `descriptor` is -1."""
        self.remote = remote
        """Where it came from; None for a cache."""
        self.errand = NO_ERRAND
        """The courier's number for it, where that has it, too."""
        self.along: Mapping[Oid, bytes] = NOTHING
        """Other objects that the same request brought; all are proved."""
        self._spare: Spare | None = None
        self._spared = 0

    def charge(self, spare: Spare, size: int) -> None:
        """Give `size` bytes back to `spare` in the end."""
        self._spare, self._spared = spare, size

    @classmethod
    def in_memory(cls, oid: Oid, data: bytes, remote: Remote, spare: Spare, *, keep: bool) -> Fetched:
        """An object whose bytes `spare` has been charged for."""
        fetched = cls(oid, -1, len(data), None, remote)
        fetched.data, fetched.keep = data, keep
        fetched.charge(spare, len(data))
        return fetched

    def __del__(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
        if self._spare is not None:
            self._spare.give_back(self._spared)


class Spare:
    """Room for bytes that cannot be kept: memory within a bound, then the directory for temporary files."""

    def __init__(self, limit: int = SPARE_BYTES) -> None:
        self._left = limit
        self._lock = threading.Lock()

    def new_file(self, size: int) -> tuple[int, int]:
        """A file without a name for `size` bytes, or -1 where nobody knows how many, and how many of them
        are memory. Raises `OSError`."""
        with self._lock:
            in_memory = size if 0 <= size <= self._left else 0
            self._left -= in_memory
        try:
            if in_memory:
                return os.memfd_create("fusefs", os.MFD_CLOEXEC), in_memory
            with tempfile.TemporaryFile() as file:
                return os.dup(file.fileno()), 0
        except BaseException:
            self.give_back(in_memory)
            raise

    def take(self, size: int) -> bool:
        """Take `size` bytes of the memory, if they are there."""
        with self._lock:
            if size > self._left:
                return False
            self._left -= size
            return True

    def give_back(self, size: int) -> None:
        with self._lock:
            self._left += size


class Downloader:
    """Brings objects for one cache. `may_keep` says whether the cache has room for so many bytes."""

    def __init__(
        self,
        arrivals: Arrivals,
        *,
        verify: bool = True,
        may_keep: Callable[[int], bool] = lambda _: True,
    ) -> None:
        self._arrivals = arrivals
        self._verify = verify
        self._may_keep = may_keep
        self.spare = Spare()
        self._has_failed = False

    def download(self, remote: Remote, wanted: Wanted) -> Fetched | Large:
        """The object whole, its length and hash verified; `Large` where it is beyond the limit.

        Raises `RemoteError`; `CacheUnusable` where no disk and no memory has room for it.
        """
        with remote.read(wanted.oid) as body:
            length = body.length
            if length > wanted.limit:
                return Large(length)
            if 0 <= length <= wanted.in_memory and self.spare.take(length):
                fetched = self._receive_in_memory(remote, wanted, body)
            else:
                sink = self._sink(length, keep=wanted.keep if length == UNKNOWN else wanted.keeps(length))
                try:
                    fetched = self._receive(remote, wanted, body, sink)
                except BaseException:
                    sink.remove()
                    raise
            if isinstance(body, MemberBody):
                fetched.along = body.along
            return fetched

    def keep_in_memory(self, oid: Oid, data: bytes, remote: Remote) -> Fetched | None:
        """An object, proved, that is to be published; None where neither memory nor the cache has room."""
        if not self.spare.take(len(data)):
            return None
        if not self._may_keep(len(data)):
            self.spare.give_back(len(data))
            return None
        return Fetched.in_memory(oid, data, remote, self.spare, keep=True)

    def write(self, fetched: Fetched) -> Fetched:
        """A file in the cache with the bytes of `fetched`, which are in memory. Raises `CacheUnusable`."""
        assert fetched.data is not None
        descriptor, path = self._arrivals.new_file()
        try:
            write_all(descriptor, fetched.data)
        except OSError as error:
            os.close(descriptor)
            self._arrivals.discard(path)
            raise CacheUnusable(
                f"cannot write to the cache {self._arrivals.root}: {error.strerror}"
            ) from None
        return Fetched(fetched.oid, descriptor, fetched.size, path, fetched.remote)

    def discard(self, result: Fetched | Large) -> None:
        """Remove what nobody needs any more."""
        if isinstance(result, Fetched) and result.path is not None:
            self._arrivals.discard(result.path)

    def rescue(self, fetched: Fetched) -> None:
        """The disk did not take the file of `fetched`: put its readers on a copy, if it is still right.

        Otherwise on an empty file: they get an error instead of what the disk may have lost.
        """
        try:
            spare, in_memory = self.spare.new_file(fetched.size)
        except OSError:
            spare, in_memory = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC), 0
        fetched.charge(self.spare, in_memory)
        try:
            hasher = Hasher(fetched.oid.algorithm)
            copied = 0
            while part := os.pread(fetched.descriptor, CHUNK_BYTES, copied):
                hasher.update(part)
                write_all(spare, part)
                copied += len(part)
            if self._verify and not hasher.matches(fetched.oid):
                os.ftruncate(spare, 0)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(spare, 0)
        os.dup2(spare, fetched.descriptor, inheritable=False)
        os.close(spare)

    def _receive_in_memory(self, remote: Remote, wanted: Wanted, body: Body) -> Fetched:
        length = body.length
        try:
            data = b"".join(_in_time(body, remote, wanted))
        except BaseException:
            self.spare.give_back(length)
            raise
        keep = wanted.keeps(length) and self._may_keep(length)
        fetched = Fetched.in_memory(wanted.oid, data, remote, self.spare, keep=keep)
        if self._verify and not bytes_match(data, wanted.oid):
            self._quarantine(fetched)
            # An error is remembered, and its traceback would hold what the frame does.
            del fetched, data
            raise _other_hash(remote, wanted.oid)
        return fetched

    def _quarantine(self, fetched: Fetched) -> None:
        with contextlib.suppress(CacheUnusable):
            written = self.write(fetched)
            assert written.path is not None
            self._arrivals.put_aside(fetched.oid, written.path)

    def _receive(self, remote: Remote, wanted: Wanted, body: Body, sink: _Sink) -> Fetched:
        oid = wanted.oid
        hasher = Hasher(oid.algorithm) if self._verify else None
        size = 0
        for part in _in_time(body, remote, wanted):
            size += len(part)
            if hasher is not None:
                hasher.update(part)
            sink.write(part)
        if hasher is not None and not hasher.matches(oid):
            if sink.path is not None:
                self._arrivals.put_aside(oid, sink.path)
            raise _other_hash(remote, oid)
        if sink.path is not None and not wanted.keeps(size):
            sink.leave_the_cache()
        return sink.finish(oid, size, remote)

    def _sink(self, size: int, *, keep: bool) -> _Sink:
        sink = _Sink(self._arrivals, self.spare, size, self._complain)
        if not keep or not self._may_keep(max(size, 0)):
            sink.leave_the_cache()
        else:
            sink.enter_the_cache()
        return sink

    def _complain(self, error: Exception) -> None:
        """Say once that nothing can be kept."""
        if not self._has_failed:
            self._has_failed = True
            log.warning("%s; what is fetched is served and not kept", error)


class _Sink:
    """The file that a download writes to. It moves out of the cache when that takes no more."""

    def __init__(
        self, arrivals: Arrivals, spare: Spare, size: int, complain: Callable[[Exception], None]
    ) -> None:
        self._arrivals = arrivals
        self._spare = spare
        self._size = size
        self._complain = complain
        self._written = 0
        self._descriptor = -1
        self._spared = 0
        self.path: Path | None = None

    def enter_the_cache(self) -> None:
        try:
            self._descriptor, self.path = self._arrivals.new_file()
        except CacheUnusable as error:
            self._complain(error)
            self.leave_the_cache()

    def leave_the_cache(self) -> None:
        """Go on in a file without a name, with what is there already. Raises `CacheUnusable`."""
        former, self._descriptor = self._descriptor, -1
        try:
            self._descriptor, self._spared = self._spare.new_file(self._size)
            copied = 0
            while former >= 0 and copied < self._written:
                # Not what the write that failed has left behind it.
                part = os.pread(former, min(CHUNK_BYTES, self._written - copied), copied)
                if not part:
                    raise OSError(EIO, os.strerror(EIO))
                write_all(self._descriptor, part)
                copied += len(part)
        except OSError as error:
            raise CacheUnusable(f"there is no room for an object: {error.strerror}") from None
        finally:
            if former >= 0:
                os.close(former)
            if self.path is not None:
                self._arrivals.discard(self.path)
                self.path = None

    def write(self, part: bytes) -> None:
        try:
            write_all(self._descriptor, part)
        except OSError as error:
            if self.path is None:
                raise CacheUnusable(f"there is no room for an object: {error.strerror}") from None
            self._complain(
                CacheUnusable(f"cannot write to the cache {self._arrivals.root}: {error.strerror}")
            )
            self.leave_the_cache()
            self.write(part)
            return
        self._written += len(part)

    def finish(self, oid: Oid, size: int, remote: Remote) -> Fetched:
        fetched = Fetched(oid, self._descriptor, size, self.path, remote)
        if self._spared:
            fetched.charge(self._spare, self._spared)
        return fetched

    def remove(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
        if self.path is not None:
            self._arrivals.discard(self.path)
        self._spare.give_back(self._spared)


def _in_time(body: Body, remote: Remote, wanted: Wanted) -> Iterator[bytes]:
    """What comes as long as somebody waits for it: who sends a byte now and then keeps no thread."""
    size = 0
    for part in body:
        yield part
        size += len(part)
        if time.monotonic() > wanted.until:
            raise RemoteSlow(
                f"{remote.name} has sent {size} bytes of object {wanted.oid} in all the time there was"
            )


def _other_hash(remote: Remote, oid: Oid) -> RemoteCorrupt:
    return RemoteCorrupt(f"{remote.name} sent bytes for object {oid} that have another hash")
