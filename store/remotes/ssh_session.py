"""A connection to an SSH server with a few SFTP channels, on an asyncio loop in a thread of its own.

asyncssh is a library of coroutines, and our callers are threads: `Session.call` is the one way between them.
Everything else here runs on the loop. A connection that broke is opened once more for each call.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Final, TypeVar

import asyncssh

from store.remotes.connections import look_up
from store.remotes.ssh_login import LOST
from store.remotes.storage import Limits

T = TypeVar("T")

END_SECONDS: Final = 5.0


class _Loop(asyncio.SelectorEventLoop):
    """Looks up names in threads of ours: its own ones are waited for at the end of the process."""

    async def getaddrinfo(
        self, host: Any, port: Any, *, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0
    ) -> list[Any]:
        coming = look_up(host, port, 0, family=family, type=type, proto=proto, flags=flags)
        return await asyncio.wrap_future(coming)


class Session:
    """`call` and `close` are for any thread."""

    def __init__(self, options: Mapping[str, Any], limits: Limits, channels: int) -> None:
        """Nothing is asked yet. `channels`: how many the server does requests of at a time."""
        self._options = options
        self._limits = limits
        self._most = channels
        self._start = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._opening: asyncio.Lock | None = None
        self._connection: asyncssh.SSHClientConnection | None = None
        self._channels: list[asyncssh.SFTPClient] = []
        self._turn = 0
        self._closed = False

    @property
    def patience(self) -> float:
        """Seconds that a call may take, with a connection to be opened twice."""
        return 2 * (self._limits.connect + 2 * self._limits.first_byte)

    def call(self, work: Callable[[asyncssh.SFTPClient], Awaitable[T]]) -> T:
        """What `work` returns for a channel; it is done anew when the connection turns out to be broken.

        Raises what asyncssh raises, `OSError` and `TimeoutError`.
        """
        coming = self.begin(work)
        try:
            return coming.result(self.patience)
        finally:
            coming.cancel()  # of what is done already, nothing

    def begin(self, work: Callable[[asyncssh.SFTPClient], Awaitable[T]]) -> Future[T]:
        """As `call`, for whoever waits by himself."""
        return self.start(self._work(work))

    def start(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Begin something on the loop; whoever has the future waits for it with a limit, or cancels it."""
        with self._start:
            if self._closed:
                work.close()
                raise ConnectionAbortedError("the remote is closed")
            if self._loop is None:
                self._loop = _Loop()
                self._thread = threading.Thread(target=self._loop.run_forever, name="sftp", daemon=True)
                self._thread.start()
            return asyncio.run_coroutine_threadsafe(work, self._loop)

    def close(self) -> None:
        """End the connection and the thread; calls that are under way fail."""
        with self._start:
            self._closed = True
            loop, self._loop = self._loop, None
        if loop is None or self._thread is None:
            return
        with suppress(TimeoutError, asyncio.CancelledError):
            asyncio.run_coroutine_threadsafe(self._end(), loop).result(END_SECONDS)
        loop.call_soon_threadsafe(loop.stop)
        self._thread.join(END_SECONDS)
        if not self._thread.is_alive():
            loop.close()

    async def _work(self, work: Callable[[asyncssh.SFTPClient], Awaitable[T]]) -> T:
        known = self._connection
        try:
            return await self._once(work)
        except LOST as error:
            # A connection of our own making that failed at once would fail again.
            if known is None or isinstance(error, TimeoutError):
                raise
            self._leave(known)
            return await self._once(work)

    async def _once(self, work: Callable[[asyncssh.SFTPClient], Awaitable[T]]) -> T:
        channel = await self._channel()
        try:
            return await asyncio.wait_for(work(channel), self._limits.first_byte)
        except TimeoutError:
            # The server does a channel's requests one after the other: no more are put behind this one.
            if channel in self._channels:
                self._channels.remove(channel)
                channel.exit()
            raise

    async def _channel(self) -> asyncssh.SFTPClient:
        if self._opening is None:
            self._opening = asyncio.Lock()
        if len(self._channels) < self._most:
            async with self._opening:
                if len(self._channels) < self._most:
                    await self._open_channel()
        self._turn += 1
        return self._channels[self._turn % len(self._channels)]

    async def _open_channel(self) -> None:
        if self._connection is None:
            limit = self._limits.connect + self._limits.first_byte
            self._connection = await asyncio.wait_for(asyncssh.connect(**self._options), limit)
        connection = self._connection
        try:
            channel = await asyncio.wait_for(connection.start_sftp_client(), self._limits.first_byte)
        except asyncssh.ChannelOpenError:
            if not self._channels:
                self._leave(connection)
                raise
            self._most = len(self._channels)  # the server allows no more
        except BaseException:
            self._leave(connection)
            raise
        else:
            self._channels.append(channel)

    def _leave(self, connection: asyncssh.SSHClientConnection) -> None:
        if self._connection is connection:
            self._connection = None
            self._channels = []
        connection.abort()

    async def _end(self) -> None:
        if self._connection is not None:
            connection = self._connection
            self._leave(connection)
            with suppress(OSError, asyncssh.Error):
                await connection.wait_closed()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
