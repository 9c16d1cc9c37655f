"""SSH remotes, by SFTP: ranges, sizes, listings and new files (`store.remotes.ssh_writing`). Any thread;
a call asks once.

What is there is believed to be files of a cache: the server follows symlinks as it likes. Parts of an answer
are asked for a few at a time, ahead of whoever reads, since a round trip for each would be slow.
"""

from __future__ import annotations

import stat
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager, suppress
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import asyncssh

from store.errors import InputError, RemoteAbsent, RemoteCorrupt, RemoteError, RemoteMissing
from store.remotes.object_options import narrowed, unused
from store.remotes.spec import RemoteSpec
from store.remotes.ssh_login import error_of, login_options
from store.remotes.ssh_session import Session
from store.remotes.ssh_writing import SftpWriter
from store.remotes.storage import Address, Limits, Listed

T = TypeVar("T")

PART_BYTES: Final = 255 << 10
"""What OpenSSH gives in one answer."""
AHEAD: Final = 4
"""Parts of an answer that are under way at a time."""
CHANNELS: Final = 4
MOST_CHANNELS: Final = 16
PAGE: Final = 1000
"""Names of a directory that are taken at a time."""
DEEPEST: Final = 32
_Names = AsyncIterator[asyncssh.SFTPName]
_FAILURES: Final = (asyncssh.Error, OSError, CancelledError, ValueError)


class SftpBody:
    """A part of an open file. Used by one thread at a time."""

    def __init__(
        self, storage: SshStorage, file: asyncssh.SFTPClientFile, attrs: asyncssh.SFTPAttrs, what: str
    ) -> None:
        self._storage = storage
        self._file = file
        self._what = what
        self._under_way: deque[tuple[int, Future[bytes]]] = deque()
        self.size = attrs.size or 0
        self.validator = f"{self.size}-{attrs.mtime}" if attrs.mtime is not None else ""
        self.offset = 0
        self.length = self.size

    def ask(self, offset: int, length: int) -> None:
        """Say which range it is, and ask for the first parts of it."""
        self.offset, self.length = offset, length
        self._next, self._end = offset, offset + length
        self._ask_on()

    def __iter__(self) -> Iterator[bytes]:
        while self._under_way:
            length, coming = self._under_way.popleft()
            part = self._storage.wait(coming, self._what)
            if len(part) != length:
                who = self._storage.who
                raise RemoteCorrupt(f"{who}: {self._what} became shorter while it was read")
            self._ask_on()
            yield part

    def close(self) -> None:
        """Let go of the file, without waiting for the server to say that it has."""
        for _, coming in self._under_way:
            coming.cancel()
        with suppress(*_FAILURES):
            self._storage.session.start(_closed(self._file))

    def _ask_on(self) -> None:
        while self._next < self._end and len(self._under_way) < AHEAD:
            length = min(PART_BYTES, self._end - self._next)
            try:
                coming = self._storage.session.start(_part(self._file, length, self._next))
            except OSError as error:
                raise self._storage.error(error, self._what) from None
            self._under_way.append((length, coming))
            self._next += length


class SshStorage:
    """A directory on an SSH server."""

    def __init__(self, spec: RemoteSpec, limits: Limits, channels: int) -> None:
        """Raises `InputError`."""
        parts = urlsplit(spec.url)
        self.who = f"remote {spec.name}"
        self._limits = limits
        self._base = spec.url.partition("://")[2].partition("/")[2].rstrip("/")
        self._host = parts.hostname or ""
        self._hint = unused(spec, ("password", "keyfile"))
        self.session = Session(login_options(spec, limits), limits, channels)
        self._writer = SftpWriter(self, f"/{self._base}".rstrip("/"))

    @property
    def can_list(self) -> bool:
        return True

    def size(self, address: Address) -> int:
        """Length in bytes."""
        path = self._path(address)

        async def ask(channel: asyncssh.SFTPClient) -> asyncssh.SFTPAttrs:
            return await channel.stat(path)

        try:
            return self._checked(self.session.call(ask), address.key).size or 0
        except _FAILURES as error:
            raise self.error(error, address.key) from None

    @contextmanager
    def read(
        self, address: Address, offset: int = 0, length: int | None = None, validator: str = ""
    ) -> Iterator[SftpBody]:
        """As `Storage.read`; the validator is of length and time."""
        what, path = address.key, self._path(address)

        async def ask(channel: asyncssh.SFTPClient) -> tuple[asyncssh.SFTPClientFile, asyncssh.SFTPAttrs]:
            file = await channel.open(path, "rb", encoding=None, block_size=0)
            try:
                return file, await file.stat()
            except BaseException:
                await file.close()
                raise

        try:
            file, attrs = self.session.call(ask)
        except _FAILURES as error:
            raise self.error(error, what) from None
        body = SftpBody(self, file, attrs, what)
        try:
            self._checked(attrs, what)
            if validator and validator != body.validator:
                raise RemoteCorrupt(f"{self.who}: {what} has changed since it was first read")
            coming = body.size - offset if length is None else length
            if coming < 0 or offset + coming > body.size:
                raise RemoteCorrupt(f"{self.who} does not have that much of {what}")
            body.ask(offset, coming)
            yield body
        finally:
            body.close()

    def list(self, prefix: str) -> Iterator[Listed]:
        """As `Storage.list`: regular files; symlinks are passed over."""
        pending = [(prefix, 0)]
        while pending:
            directory, depth = pending.pop()
            for name, mode, size, modified in self._names(directory):
                if stat.S_ISDIR(mode) and depth < DEEPEST:
                    pending.append((f"{directory}{name}/", depth + 1))
                elif stat.S_ISREG(mode):
                    yield Listed(directory + name, size, modified)

    def put(self, key: str, parts: Iterable[bytes], size: int, *, if_absent: bool = False) -> bool:
        """As `WritableStorage.put`."""
        return self._writer.put(self._path(Address(key)), parts, size, key, if_absent=if_absent)

    def delete(self, keys: Sequence[str]) -> None:
        """As `WritableStorage.delete`."""
        self._writer.delete([self._path(Address(key)) for key in keys])

    def close(self) -> None:
        self.session.close()

    def call(self, work: Callable[[asyncssh.SFTPClient], Awaitable[T]], what: str) -> T:
        """What writes is done by this: as `Session.call`, but raises `RemoteError`."""
        try:
            return self.session.call(work)
        except _FAILURES as error:
            raise self.error(error, what, "write") from None

    def start(self, work: Coroutine[Any, Any, T], what: str) -> Future[T]:
        """As `Session.start`, but raises `RemoteError`."""
        try:
            return self.session.start(work)
        except OSError as error:
            raise self.error(error, what) from None

    def wait(self, coming: Future[T], what: str, verb: str = "read") -> T:
        """A part that was asked for, or sent."""
        try:
            return coming.result(self._limits.stall)
        except _FAILURES as error:
            coming.cancel()
            raise self.error(error, what, verb) from None

    def error(self, error: BaseException, what: str, verb: str = "read") -> RemoteError:
        """For what `session` raised."""
        return error_of(error, self.who, what, self._host, self._hint, verb)

    def _names(self, directory: str) -> Iterator[tuple[str, int, int, float]]:
        """(name, mode, size, time of change) of what is in a directory, page by page."""
        path = f"/{self._base}/{directory}".rstrip("/")

        async def begin(channel: asyncssh.SFTPClient) -> tuple[_Names, list[asyncssh.SFTPName]]:
            names = channel.scandir(path)
            return names, await _page(names)

        try:
            names, page = self.session.call(begin)
            yield from filter(None, map(_entry, page))
            while len(page) == PAGE:
                page = self.session.start(_page(names)).result(self._limits.first_byte)
                yield from filter(None, map(_entry, page))
        except (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath):
            self._check_base()  # no such prefix: an empty listing; no such remote: an error
        except _FAILURES as error:
            raise self.error(error, directory) from None

    def _check_base(self) -> None:
        try:
            self.session.call(lambda channel: channel.stat(f"/{self._base}"))
        except (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath):
            raise RemoteAbsent(f"{self.who}: its directory is not there") from None
        except _FAILURES as error:
            raise self.error(error, "directory") from None

    def _checked(self, attrs: asyncssh.SFTPAttrs, what: str) -> asyncssh.SFTPAttrs:
        mode = attrs.permissions
        if mode is not None and stat.S_ISDIR(mode):
            raise RemoteMissing(f"{self.who} has no {what}: it is a directory")
        if attrs.size is None or (mode is not None and stat.S_IFMT(mode) and not stat.S_ISREG(mode)):
            raise RemoteCorrupt(f"{self.who}: {what} is not a regular file")
        return attrs

    def _path(self, address: Address) -> str:
        if address.version:
            raise RemoteMissing(f"{self.who} keeps no versions of {address.key}")
        if "\0" in address.key or ".." in address.key.split("/"):
            raise RemoteMissing(f"{self.who} can have no such key")
        return f"/{self._base}/{address.key}"


def open_ssh(spec: RemoteSpec, limits: Limits) -> SshStorage:
    """Raises `InputError`. Nothing is asked yet; keys and the ssh configuration are read."""
    limits = narrowed(spec, limits, "timeout", "timeout")
    text = spec.options.get("max_sessions", "")
    if text and not (text.isascii() and text.isdigit() and int(text) > 0):
        raise InputError(f"remote {spec.name}: `max_sessions` must be a number above 0")
    return SshStorage(spec, limits, min(int(text), MOST_CHANNELS) if text else CHANNELS)


async def _part(file: asyncssh.SFTPClientFile, length: int, offset: int) -> bytes:
    """Exactly so many bytes, or fewer where the file ends: a server may give less than it was asked for."""
    parts: list[bytes] = []
    while length:
        part = await file.read(length, offset)
        if not isinstance(part, bytes) or not part or len(part) > length:
            break
        parts.append(part)
        length -= len(part)
        offset += len(part)
    return b"".join(parts)


async def _closed(file: asyncssh.SFTPClientFile) -> None:
    with suppress(OSError, asyncssh.Error):
        await file.close()


async def _page(names: _Names) -> list[asyncssh.SFTPName]:
    page = []
    async for name in names:
        page.append(name)
        if len(page) == PAGE:
            break
    return page


def _entry(name: asyncssh.SFTPName) -> tuple[str, int, int, float] | None:
    text = name.filename if isinstance(name.filename, str) else name.filename.decode(errors="surrogateescape")
    if text in ("", ".", "..") or "/" in text or name.attrs.permissions is None:
        return None
    return text, name.attrs.permissions, name.attrs.size or 0, float(name.attrs.mtime or 0)
