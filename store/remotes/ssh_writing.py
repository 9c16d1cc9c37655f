"""Writing by SFTP: a file comes into `fusefs/uploads` of the remote and is renamed when it is whole.

The parts come from the caller's thread; a few writes are under way at a time, since a round trip for each
would be slow. Directories are made with the permissions of the remote's own, objects are 0444. Any thread.
"""

from __future__ import annotations

import secrets
import stat
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final

import asyncssh

from store.errors import RemoteCorrupt, RemoteError
from store.ownership import OBJECT_MODE
from store.remotes.storage import UPLOADS, measured

if TYPE_CHECKING:
    from store.remotes.ssh import SshStorage

LARGEST_PART: Final = 255 << 10
"""What OpenSSH takes in one request, which others say by their limits."""
AHEAD_BYTES: Final = 1 << 20
AHEAD: Final = 64
"""Writes under way at a time."""
REMOVAL_SECONDS: Final = 2.0
MOST_KNOWN: Final = 10_000
"""Directories that are remembered to be there."""
_MISSING: Final = (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath)


class SftpWriter:
    """What `SshStorage` writes with."""

    def __init__(self, storage: SshStorage, base: str) -> None:
        """`base`: the remote's directory, absolute."""
        self._storage = storage
        self._base = base
        self._mode = -1
        self._known = {""}

    def put(self, path: str, parts: Iterable[bytes], size: int, what: str, *, if_absent: bool) -> bool:
        """As `WritableStorage.put`; `path` is absolute."""
        storage = self._storage
        if if_absent and storage.call(lambda channel: _is_there(channel, path), what):
            return False
        uploads = f"{self._base}/{UPLOADS.rstrip('/')}"
        upload = f"{uploads}/{secrets.token_hex(16)}"

        async def begin(channel: asyncssh.SFTPClient) -> tuple[asyncssh.SFTPClientFile, int]:
            try:
                file = await channel.open(upload, "wb", encoding=None, block_size=0)
            except _MISSING:
                await self._make(channel, uploads)
                file = await channel.open(upload, "wb", encoding=None, block_size=0)
            return file, min(channel.limits.max_write_len, LARGEST_PART)

        async def finish(channel: asyncssh.SFTPClient) -> bool:
            if (await channel.stat(upload)).size != size:
                raise RemoteCorrupt(f"{storage.who} has kept another length of {what} than it was sent")
            return await self._rename(channel, upload, path, if_absent=if_absent)

        file, at_once = storage.call(begin, what)
        try:
            try:
                self._write(file, measured(parts, size), at_once, what)
                storage.wait(storage.start(_settle(file), what), what, verb="write")
            except BaseException:
                with suppress(RemoteError):
                    storage.start(_close(file), what)
                raise
            done = storage.call(finish, what)
        except BaseException:
            self._remove(upload)
            raise
        if not done:
            self._remove(upload)
        return done

    def delete(self, paths: Sequence[str]) -> None:
        """Remove files."""

        async def remove(path: str, channel: asyncssh.SFTPClient) -> None:
            with suppress(*_MISSING):
                await channel.remove(path)

        for path in paths:
            self._storage.call(partial(remove, path), path.removeprefix(self._base + "/"))

    def _write(self, file: asyncssh.SFTPClientFile, parts: Iterator[bytes], at_once: int, what: str) -> None:
        """Send the parts, a few pieces of them at a time."""
        under_way: deque[Future[int]] = deque()
        most = max(1, min(AHEAD, AHEAD_BYTES // at_once))
        offset = 0
        try:
            for part in parts:
                for start in range(0, len(part), at_once):
                    if len(under_way) >= most:
                        self._storage.wait(under_way.popleft(), what, verb="write")
                    piece = part[start : start + at_once]
                    under_way.append(self._storage.start(_write_at(file, piece, offset), what))
                    offset += len(piece)
            while under_way:
                self._storage.wait(under_way.popleft(), what, verb="write")
        finally:
            for coming in under_way:
                coming.cancel()

    async def _rename(self, channel: asyncssh.SFTPClient, upload: str, path: str, *, if_absent: bool) -> bool:
        """Give a file its name; False where `if_absent` and something has it."""
        directory = path.rpartition("/")[0]
        if directory not in self._known:
            await self._make(channel, directory)
        try:
            return await _named(channel, upload, path, if_absent=if_absent)
        except _MISSING:
            self._known.discard(directory)  # somebody has removed it
            await self._make(channel, directory)
            return await _named(channel, upload, path, if_absent=if_absent)

    async def _make(self, channel: asyncssh.SFTPClient, directory: str) -> None:
        """Make a directory and those above it, where they are missing. Raises `asyncssh.SFTPError`."""
        if directory in self._known:
            return
        mode = await self._mode_of_base(channel) if directory.startswith(self._base + "/") else -1
        attrs = asyncssh.SFTPAttrs() if mode < 0 else asyncssh.SFTPAttrs(permissions=mode)
        try:
            await channel.mkdir(directory, attrs)
        except _MISSING:
            above = directory.rpartition("/")[0]
            if not above:
                raise
            await self._make(channel, above)
            await self._make(channel, directory)
            return
        except asyncssh.SFTPError:
            if not stat.S_ISDIR((await channel.stat(directory)).permissions or 0):
                raise
        else:
            if mode >= 0:
                with suppress(asyncssh.SFTPError):  # the umask has taken some of it
                    await channel.chmod(directory, mode)
        if len(self._known) >= MOST_KNOWN:
            self._known = {""}
        self._known.add(directory)

    async def _mode_of_base(self, channel: asyncssh.SFTPClient) -> int:
        """The permissions of the remote's directory, which is made where it is missing."""
        if self._mode < 0:
            await self._make(channel, self._base)
            permissions = (await channel.stat(self._base or "/")).permissions
            self._mode = stat.S_IMODE(permissions or 0o755) & 0o2777
        return self._mode

    def _remove(self, upload: str) -> None:
        """Of what came to nothing; a server that is away is not waited for."""

        async def remove(channel: asyncssh.SFTPClient) -> None:
            await channel.remove(upload)

        with suppress(RemoteError, asyncssh.Error, OSError, CancelledError):
            self._storage.session.begin(remove).result(REMOVAL_SECONDS)


async def _is_there(channel: asyncssh.SFTPClient, path: str) -> bool:
    try:
        await channel.lstat(path)
    except _MISSING:
        return False
    return True


async def _named(channel: asyncssh.SFTPClient, upload: str, path: str, *, if_absent: bool) -> bool:
    """Rename, over what is there or, `if_absent`, only where nothing is: False where something is."""
    if not if_absent:
        try:
            await channel.posix_rename(upload, path)
        except asyncssh.SFTPOpUnsupported:
            with suppress(*_MISSING):  # there is no other way then to replace a file
                await channel.remove(path)
            await channel.rename(upload, path)
        return True
    try:
        await channel.rename(upload, path)
    except _MISSING:
        raise
    except asyncssh.SFTPError:
        if await _is_there(channel, path):
            return False
        raise
    return True


async def _write_at(file: asyncssh.SFTPClientFile, piece: bytes, offset: int) -> int:
    return await file.write(piece, offset)


async def _settle(file: asyncssh.SFTPClientFile) -> None:
    """The bytes are on the server's disk, where it can see to that; and nobody writes to them any more."""
    with suppress(asyncssh.SFTPOpUnsupported):
        await file.fsync()
    with suppress(asyncssh.SFTPError):
        await file.chmod(OBJECT_MODE)
    await file.close()


async def _close(file: asyncssh.SFTPClientFile) -> None:
    with suppress(OSError, asyncssh.Error):
        await file.close()
