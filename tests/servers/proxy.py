"""A TCP proxy that makes a network bad: delay, bandwidth, answers that stop, break or change on their way.

`Proxy` runs on an asyncio loop in a thread of its own and is told what to do by any other thread;
`proxy_process` runs one in a process, for measurements that must not share an interpreter with it.
The handshake of a connection is the kernel's and is not delayed; what goes through it is, each way.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import struct
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, cast

Target = tuple[str, int] | str
"""Host and port, or the path of a Unix socket."""

SECONDS: Final = 60.0
MOST_HELD: Final = 4 << 20
"""Bytes on their way in one direction of a connection; behind it the sender is kept waiting."""
NEVER: Final = -1


@dataclass(frozen=True, slots=True)
class Faults:
    """What happens to connections. Bytes are those of the answers, counted for each connection from when
    it began or the faults were set, whichever was later."""

    delay: float = 0.0
    """Seconds, each way."""
    bandwidth: float = 0.0
    """Bytes a second of all answers together; 0 is without a bound."""
    stall_after: int = NEVER
    """Hold back what comes after so many bytes, until the faults change; 0 is before the first byte."""
    cut_after: int = NEVER
    """End the connection in good order after so many bytes."""
    reset_after: int = NEVER
    """Break the connection (RST) after so many bytes; the last of them may be lost with it."""
    corrupt_at: int = NEVER
    """Turn over the bits of the byte at this offset."""
    refuse: bool = False
    """Let nobody connect (the kernel answers RST to SYN)."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What went through so far."""

    connections: int = 0
    open: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    """As the client got them."""
    stalled: int = 0
    """How often an answer was held back."""


class Proxy:
    """A proxy before `target`, as a context manager. All methods may be called by any thread."""

    def __init__(self, target: Target, faults: Faults = Faults()) -> None:
        self._target = target
        self._faults = faults
        self._counts = Counts()
        self._changed = threading.Condition()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._pairs: set[_Pair] = set()
        self._server: asyncio.Server | None = None
        self._link_free = 0.0
        # Bound and not listening: keeps the port while nobody may connect.
        self._holder = _bind(0)
        self.port = int(self._holder.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Proxy:
        self._thread.start()
        self._in_loop(self._listen)
        return self

    def __exit__(self, *_: object) -> None:
        self._in_loop(self._stop)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(SECONDS)
        self._loop.close()
        self._holder.close()

    def fail(self, **faults: float) -> None:
        """From now on these faults, and no others; what was held back goes on where they let it."""
        wanted = replace(Faults(), **faults)  # type: ignore[arg-type]

        async def change() -> None:
            self._faults = wanted
            for pair in list(self._pairs):
                pair.down.begin_anew()
            await self._listen()

        self._in_loop(change)

    def break_connections(self) -> None:
        """Reset those that are open."""

        async def reset() -> None:
            for pair in list(self._pairs):
                pair.reset()

        self._in_loop(reset)

    @property
    def counts(self) -> Counts:
        with self._changed:
            return self._counts

    def wait(self, is_so: Callable[[Counts], bool]) -> Counts:
        """Wait until the counts are so; fails after a while."""
        with self._changed:
            if not self._changed.wait_for(lambda: is_so(self._counts), SECONDS):
                raise TimeoutError(f"the proxy's counts stay at {self._counts}")
            return self._counts

    def count(
        self, *, connections: int = 0, open: int = 0, up: int = 0, down: int = 0, stalled: int = 0
    ) -> None:
        """For the connections' own use."""
        with self._changed:
            so_far = self._counts
            self._counts = Counts(
                so_far.connections + connections,
                so_far.open + open,
                so_far.bytes_up + up,
                so_far.bytes_down + down,
                so_far.stalled + stalled,
            )
            self._changed.notify_all()

    @property
    def faults(self) -> Faults:
        return self._faults

    @property
    def pairs(self) -> set[_Pair]:
        return self._pairs

    def departure(self, now: float, length: int) -> float:
        """When an answer's bytes have left over the link that all connections share."""
        if self._faults.bandwidth <= 0:
            return now
        self._link_free = max(now, self._link_free) + length / self._faults.bandwidth
        return self._link_free

    def _in_loop(self, work: Callable[[], object]) -> None:
        asyncio.run_coroutine_threadsafe(work(), self._loop).result(SECONDS)  # type: ignore[arg-type]

    async def _listen(self) -> None:
        if self._server is not None and self._faults.refuse:
            self._server.close()
            self._server = None
        elif self._server is None and not self._faults.refuse:
            listener = _bind(self.port)
            self._server = await self._loop.create_server(self._accept, sock=listener, backlog=512)

    def _accept(self) -> _Client:
        return _Client(self, self._target)

    async def _stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for pair in list(self._pairs):
            pair.reset()
        tasks = asyncio.all_tasks(self._loop) - {asyncio.current_task(self._loop)}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # transports tell their protocols of their end by the loop


class _Flow:
    """One direction of a connection: bytes on their way, each with the time when it arrives."""

    def __init__(self, pair: _Pair, answers: bool) -> None:
        self._pair = pair
        self._answers = answers
        self._held: deque[tuple[float, bytes]] = deque()
        self._held_bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._passed = 0
        self.stalled = False
        self._ended = False
        self.done = False
        self.source: asyncio.Transport | None = None
        self.sink: asyncio.Transport | None = None

    def take(self, data: bytes) -> None:
        proxy = self._pair.proxy
        now = asyncio.get_running_loop().time()
        departure = proxy.departure(now, len(data)) if self._answers else now
        self._held.append((departure + proxy.faults.delay, data))
        self._held_bytes += len(data)
        self.move()

    def end(self) -> None:
        self._ended = True
        self.move()

    def begin_anew(self) -> None:
        self._passed = 0
        self.stalled = False
        self.move()

    def stop(self) -> None:
        self._held.clear()
        self._held_bytes = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def move(self) -> None:
        """Pass on what has arrived by now, and see to what comes later."""
        loop = asyncio.get_running_loop()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._held and self.sink is not None and not self.sink.is_closing() and not self.stalled:
            due, data = self._held[0]
            if due > loop.time():
                self._timer = loop.call_at(due, self.move)
                break
            self._held.popleft()
            self._held_bytes -= len(data)
            self._pass(data)
        if self._ended and not self._held and self.sink is not None and not self.sink.is_closing():
            self._say_end(self.sink)
        self._press_back()

    def _say_end(self, sink: asyncio.Transport) -> None:
        try:
            sink.write_eof()
        except OSError:  # the other side has broken the connection, which is told later
            self._pair.reset()
            return
        self.done = True
        self._pair.close_if_done()

    def _pass(self, data: bytes) -> None:
        proxy = self._pair.proxy
        assert self.sink is not None
        if not self._answers:
            proxy.count(up=len(data))
            self.sink.write(data)
            return
        faults = proxy.faults
        ends = [at for at in (faults.stall_after, faults.cut_after, faults.reset_after) if at != NEVER]
        room = max(min(ends) - self._passed, 0) if ends else len(data)
        now, later = data[:room], data[room:]
        at = faults.corrupt_at - self._passed
        if faults.corrupt_at != NEVER and 0 <= at < len(now):
            now = now[:at] + bytes([now[at] ^ 0xFF]) + now[at + 1 :]
        self._passed += len(now)
        if now:
            self.sink.write(now)
            proxy.count(down=len(now))
        if not ends or self._passed < min(ends) or (not later and faults.stall_after == min(ends)):
            return
        if faults.stall_after == min(ends):
            self._held.appendleft((0.0, later))
            self._held_bytes += len(later)
            self.stalled = True
            proxy.count(stalled=1)
        elif faults.reset_after == min(ends):
            self._pair.reset()
        else:
            self._pair.close()

    def _press_back(self) -> None:
        if self.source is None or self.source.is_closing() or self.sink is None:
            return
        waiting = self._held_bytes + self.sink.get_write_buffer_size()
        if waiting > MOST_HELD:
            self.source.pause_reading()
        else:
            self.source.resume_reading()


class _Pair:
    """The client's connection and the one to the target."""

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self.up = _Flow(self, answers=False)
        self.down = _Flow(self, answers=True)

    def close(self) -> None:
        self._leave()
        for transport in (self.up.source, self.down.source):
            if transport is not None:
                transport.close()

    def close_if_done(self) -> None:
        """Both sides have said all; or the client, which nothing more can reach."""
        if self.up.done and (self.down.done or self.down.stalled):
            self.close()

    def reset(self) -> None:
        self._leave()
        client = self.up.source
        if client is not None and not client.is_closing():
            client.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )
            client.abort()
        if self.down.source is not None:
            self.down.source.abort()

    def _leave(self) -> None:
        self.up.stop()
        self.down.stop()
        if self in self.proxy.pairs:
            self.proxy.pairs.discard(self)
            self.proxy.count(open=-1)


class _End(asyncio.Protocol):
    """One end of a pair: what comes in goes into `flow_in`, what goes out is `flow_out`."""

    def __init__(self, pair: _Pair, flow_in: _Flow, flow_out: _Flow) -> None:
        self._pair = pair
        self._in = flow_in
        self._out = flow_out

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        made = cast(asyncio.Transport, transport)
        made.set_write_buffer_limits(high=1 << 20)
        self._in.source = made
        self._out.sink = made
        self._out.move()

    def data_received(self, data: bytes) -> None:
        self._in.take(data)

    def eof_received(self) -> bool:
        self._in.end()
        return True

    def resume_writing(self) -> None:
        self._out.move()

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None:
            self._pair.reset()
        else:
            self._pair.close()


class _Client(_End):
    """The client's end; its coming opens the other."""

    def __init__(self, proxy: Proxy, target: Target) -> None:
        self._proxy = proxy
        self._target = target
        pair = _Pair(proxy)
        super().__init__(pair, pair.up, pair.down)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._proxy.pairs.add(self._pair)
        self._proxy.count(connections=1, open=1)
        super().connection_made(transport)
        self._connecting = asyncio.get_running_loop().create_task(self._connect())

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()

        def other() -> _End:
            return _End(self._pair, self._pair.down, self._pair.up)

        try:
            if isinstance(self._target, str):
                await loop.create_unix_connection(other, self._target)
            else:
                await loop.create_connection(other, *self._target)
        except OSError:
            self._pair.reset()


def _bind(port: int) -> socket.socket:
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    made.bind(("127.0.0.1", port))
    return made


@contextmanager
def proxy_process(target: Target, *, delay: float = 0.0, bandwidth: float = 0.0) -> Iterator[int]:
    """A proxy in a process of its own; gives its port."""
    where = target if isinstance(target, str) else f"{target[0]}:{target[1]}"
    command = [sys.executable, "-m", "tests.servers.proxy", where, f"--delay={delay}"]
    process = subprocess.Popen(
        [*command, f"--bandwidth={bandwidth}"],
        cwd=Path(__file__).resolve().parent.parent.parent,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:  # closes its input, which ends it
        assert process.stdout is not None
        yield int(process.stdout.readline())


def main() -> None:
    parser = argparse.ArgumentParser(description="a proxy until the input ends; prints its port")
    parser.add_argument("target", help="HOST:PORT or the path of a socket")
    parser.add_argument("--delay", type=float, default=0.0)
    parser.add_argument("--bandwidth", type=float, default=0.0)
    options = parser.parse_args()
    host, _, port = options.target.rpartition(":")
    target: Target = options.target if "/" in options.target else (host, int(port))
    with Proxy(target, Faults(delay=options.delay, bandwidth=options.bandwidth)) as proxy:
        print(proxy.port, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
