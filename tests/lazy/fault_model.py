"""Random reads of a lazy mount whose remote, cache and daemon fail at random.

Whatever happens, a reader gets the file's bytes or an errno that is documented, names and sizes are what
the manifest says, and where DVC looks in the cache lie right objects only. Once nothing fails any more,
everything is readable.

Its choices follow from the seed; how readers and answers meet does not. Used by the test, and for hours by
`scripts/soak`. No tests are in here.
"""

from __future__ import annotations

import errno
import random
import shutil
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from tests.conftest import kill_for_good
from tests.lazy.faulty import DOCUMENTED, SECONDS, Lazy, assert_only_right, objects, read, read_piece
from tests.mount.datasets import filler, md5
from tests.mount.mounts import Mount, Mounter
from tests.servers.raw_answers import Script, reset, say, say_raw

READERS = 4
MIB = 1 << 20
GONE = frozenset({errno.ENOTCONN, errno.ECONNABORTED, errno.ENXIO})
"""What readers get of a mount whose daemon was killed."""


def random_files(order: random.Random) -> dict[str, bytes]:
    """Small files, which come whole, and large ones, which come by ranges."""
    files = {f"small/{n}": filler(order.randrange(40_000), order.randrange(1 << 30)) for n in range(40)}
    large = {
        f"large/{n}": filler(order.randrange(2, 7) * MIB + n, order.randrange(1 << 30)) for n in range(3)
    }
    return {**files, **large, "again": files["small/0"], "empty": b""}


class FaultyAnswers:
    """What a web server answers that fails now and then; `rate` is how often, from 0 to 1."""

    def __init__(self, files: Mapping[str, bytes], seed: int, *, corrupts_large: bool) -> None:
        self.rate = 0.0
        self.made: Counter[str] = Counter()
        self._sound = objects(files)
        self._lock = threading.Lock()
        self._order = random.Random(seed)
        self._corrupts_large = corrupts_large

    def __call__(self, head: str) -> Script:
        with self._lock:
            order = random.Random(self._order.getrandbits(64))
        sound = self._sound(head)
        if order.random() >= self.rate:
            return sound
        faults: list[Callable[[str, random.Random, Script], Script]] = [
            *(self._refuse, self._reset, self._stall, self._cut, self._lie_of_length)
        ]
        if self._corrupts_large or "range:" not in head.lower():
            faults.append(self._corrupt)
        fault = order.choice(faults)
        with self._lock:
            self.made[fault.__name__] += 1
        return fault(head, order, sound)

    def _refuse(self, head: str, order: random.Random, sound: Script) -> Script:
        status = order.choice(("404 Not Found", "403 Forbidden", "500 Oh", "503 Busy", "429 Slow"))
        return say(status, b"", "Retry-After: 1\r\n" if status[0] in "45" and order.random() < 0.3 else "")

    def _reset(self, head: str, order: random.Random, sound: Script) -> Script:
        return reset

    def _stall(self, head: str, order: random.Random, sound: Script) -> Script:
        """Longer than the remote is given, but not for good."""

        def script(connection: socket.socket) -> None:
            time.sleep(1.5)
            sound(connection)

        return script

    def _cut(self, head: str, order: random.Random, sound: Script) -> Script:
        whole = recorded(sound)
        return say_raw("", whole[: order.randrange(len(whole))])

    def _corrupt(self, head: str, order: random.Random, sound: Script) -> Script:
        whole = bytearray(recorded(sound))
        start = whole.index(b"\r\n\r\n") + 4
        if start < len(whole):
            whole[order.randrange(start, len(whole))] ^= 0xFF
        return say_raw("", bytes(whole))

    def _lie_of_length(self, head: str, order: random.Random, sound: Script) -> Script:
        top, _, body = recorded(sound).partition(b"\r\n\r\n")
        lied = top.replace(b"Content-Length: %d" % len(body), b"Content-Length: %d" % (len(body) + 7))
        return say_raw("", lied + b"\r\n\r\n" + body)


def recorded(script: Script) -> bytes:
    """The bytes that an answer has."""
    here, there = socket.socketpair()
    pieces: list[bytes] = []

    def collect() -> None:
        while piece := there.recv(65536):
            pieces.append(piece)

    with here, there:
        thread = threading.Thread(target=collect)
        thread.start()
        script(here)
        here.shutdown(socket.SHUT_WR)
        thread.join()
    return b"".join(pieces)


@dataclass
class FaultModel:
    """One run."""

    mounter: Mounter
    project: Lazy
    files: Mapping[str, bytes]
    answers: FaultyAnswers
    order: random.Random
    flags: tuple[str, ...] = ()
    mounts: list[Mount] = field(default_factory=list)
    got: Counter[str] = field(default_factory=Counter)

    def start(self) -> None:
        self.mounts.append(self.project.mount(self.mounter, *self.flags))

    def step(self) -> None:
        """Something changes, and many read at once."""
        steps: list[tuple[int, Callable[[], None]]] = [
            (8, self.fail),
            (2, self.mend),
            (4, self.evict),
            (4, self.renew),
            (2, self.forget_partials),
            (2, self.mount_another),
            (2, self.kill),
        ]
        change = self.order.choices([c for _, c in steps], [w for w, _ in steps])[0]
        self.got[change.__name__] += 1
        change()
        jobs = [self.order.choice((self.read_whole, self.read_piece, self.look)) for _ in range(3 * READERS)]
        chosen = [(job, self.order.choice(sorted(self.files)), self.order.random()) for job in jobs]
        with ThreadPoolExecutor(READERS) as pool:
            for done in [pool.submit(job, path, chance) for job, path, chance in chosen]:
                done.result(2 * SECONDS)

    def finish(self) -> None:
        """Nothing fails any more, so everything can be read: at once, or when remotes are asked again."""
        self.answers.rate = 0.0
        deadline = time.monotonic() + SECONDS
        for mount in self.mounts:
            left = set(self.files)
            while left and time.monotonic() < deadline:
                for path in sorted(left):
                    data = read(mount.path / path)
                    assert isinstance(data, int) or data == self.files[path], path
                    if not isinstance(data, int):
                        left.remove(path)
            assert not left, f"not readable though nothing fails: {sorted(left)}"
        for mount in self.mounts:
            log = mount.umount()
            assert "Traceback" not in log, log
        assert_only_right(self.project.cache, self.files)

    # What changes

    def fail(self) -> None:
        self.answers.rate = self.order.choice((0.1, 0.3, 0.6))

    def mend(self) -> None:
        self.answers.rate = 0.0

    def evict(self) -> None:
        for data in self.order.sample(sorted(self.files.values()), len(self.files) // 2):
            self.project.cache.place(md5(data)).unlink(missing_ok=True)

    def renew(self) -> None:
        """The kernel forgets what it has."""
        self.evict()
        assert "Traceback" not in self.mounts.pop(0).umount()
        self.start()

    def forget_partials(self) -> None:
        """The user throws away what is ours, while it is in use."""
        for name in self.order.sample(("partial", "incoming", "quarantine"), 1):
            shutil.rmtree(self.project.cache.root / "fusefs" / name, ignore_errors=True)

    def mount_another(self) -> None:
        if len(self.mounts) < 2:
            self.start()

    def kill(self) -> None:
        """A daemon dies in the middle of something, and the user mounts again."""
        mount = self.mounts.pop(0)
        path = self.order.choice(sorted(self.files))
        with ThreadPoolExecutor(1) as pool:
            reading = pool.submit(read, mount.path / path)
            kill_for_good(mount.pid)
            data = reading.result(SECONDS)
        assert data in GONE or data in DOCUMENTED or data == self.files[path], path
        subprocess.run(["umount", "-l", mount.path], check=True, timeout=SECONDS)
        mount.await_end()
        assert_only_right(self.project.cache, self.files)
        self.start()

    # What readers do

    def read_whole(self, path: str, chance: float) -> None:
        self._check(path, read(self._mount(chance).path / path), self.files[path])

    def read_piece(self, path: str, chance: float) -> None:
        offset = int(chance * (len(self.files[path]) + 10))
        data = read_piece(self._mount(1 - chance).path / path, offset)
        self._check(path, data, self.files[path][offset : offset + 4096])

    def look(self, path: str, chance: float) -> None:
        place = self._mount(chance).path / path
        assert place in place.parent.iterdir()
        assert place.stat().st_size == len(self.files[path])

    def _mount(self, chance: float) -> Mount:
        return self.mounts[int(chance * len(self.mounts)) % len(self.mounts)]

    def _check(self, path: str, data: bytes | int, expected: bytes) -> None:
        if isinstance(data, int):
            assert data in DOCUMENTED, f"{path}: {errno.errorcode.get(data, data)}"
            self.got[errno.errorcode[data]] += 1
        else:
            assert data == expected, f"{path}: wrong bytes"
            self.got["right"] += 1
