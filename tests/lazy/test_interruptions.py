"""What happens in the middle of fetching: a kill, another daemon, a remote that changes, a full disk."""

from __future__ import annotations

import errno
import os
import struct
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from store.fetching.read_ahead import LARGEST_REQUEST
from tests.conftest import kill_for_good
from tests.lazy.asked import asked_again
from tests.lazy.faulty import (
    QUICK,
    SECONDS,
    SECRET,
    SLOW,
    WRONG,
    Lazy,
    assert_only_right,
    new_project,
    objects,
    read,
    read_piece,
    reading,
)
from tests.mount.datasets import Cache, filler, md5
from tests.mount.mounts import Mount, Mounter
from tests.patience import until
from tests.servers.nginx import nginx
from tests.servers.proxy import Faults, Proxy
from tests.servers.raw_answers import Script, raw_server, reset, say

pytestmark = pytest.mark.fuse
BOTH_MODES = pytest.mark.modes("fuse", "native")

MIB = 1 << 20
LARGE = "large"
DATA = filler(12 * MIB + 345, 1)
SMALL = {f"small/{number}": filler(8_000 + number, 50 + number) for number in range(40)}
FILES = {LARGE: DATA, **SMALL}


@dataclass(frozen=True, slots=True)
class Served:
    """A remote behind nginx, whose objects a test may change, and a project that names it."""

    remote: Cache
    port: int
    url: str
    project: Lazy


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    remote = Cache(tmp_path / "remote")
    for data in FILES.values():
        remote.put(data)
    with nginx(tmp_path / "nginx", remote.root) as server:
        project = new_project(tmp_path / "project", FILES, server.url)
        yield Served(remote, server.port, server.url, project)


def fetched(*mounts: Mount) -> tuple[int, int]:
    """Bytes that have come from remotes; and how many of them may have come twice, because they took long."""
    come = sum(int(mount.status()["bytes_remote"]) for mount in mounts)
    return come, LARGEST_REQUEST * asked_again(*mounts)


@BOTH_MODES
def test_a_large_object_goes_on_where_a_killed_daemon_was(mounter: Mounter, served: Served) -> None:
    with Proxy(("127.0.0.1", served.port)) as proxy:
        served.project.configure(proxy.url)
        mount = served.project.mount(mounter)
        for block in range(6):
            assert read_piece(mount.path / LARGE, block * MIB) == DATA[block * MIB :][:4096]
        proxy.fail(stall_after=100_000)
        with reading(read_piece, mount.path / LARGE, 11 * MIB) as got:
            proxy.wait(lambda counts: counts.stalled > 0)
            kill_for_good(mount.pid)
        assert set(got) <= {errno.ENOTCONN, errno.ECONNABORTED}
        subprocess.run(["umount", "-l", mount.path], check=True, timeout=SECONDS)
        mount.await_end()
        assert assert_only_right(served.project.cache, FILES) == 0
        proxy.fail()
        mount = served.project.mount(mounter)
        assert read(mount.path / LARGE) == DATA
        come, twice = fetched(mount)
        assert come <= len(DATA) - 6 * MIB + twice
        until(served.project.cache.place(md5(DATA)).exists, "it is the cache's")
        mount.umount()
    assert assert_only_right(served.project.cache, FILES) == 1


@BOTH_MODES
def test_two_daemons_share_what_they_fetch_of_a_large_object(mounter: Mounter, served: Served) -> None:
    mounts = [served.project.mount(mounter) for _ in range(2)]
    with ThreadPoolExecutor(4) as pool:
        for got in pool.map(read, [mount.path / LARGE for mount in mounts for _ in range(2)]):
            assert got == DATA
    come, twice = fetched(*mounts)
    assert len(DATA) <= come <= len(DATA) + twice
    until(served.project.cache.place(md5(DATA)).exists, "it is the cache's")
    for mount in mounts:
        mount.umount()
    assert assert_only_right(served.project.cache, FILES) == 1


@BOTH_MODES
def test_a_daemon_takes_over_when_the_one_that_fetches_is_killed(mounter: Mounter, served: Served) -> None:
    path = next(iter(SMALL))
    with Proxy(("127.0.0.1", served.port), Faults(stall_after=4_000)) as proxy:
        served.project.configure(proxy.url)
        first = served.project.mount(mounter)
        served.project.configure(served.url)
        second = served.project.mount(mounter)
        with reading(read, first.path / path) as lost:
            proxy.wait(lambda counts: counts.stalled > 0)
            with reading(read, second.path / path) as got:
                kill_for_good(first.pid)
        assert set(lost) <= {errno.ENOTCONN, errno.ECONNABORTED}
        assert got == [SMALL[path]]
        subprocess.run(["umount", "-l", first.path], check=True, timeout=SECONDS)
        first.await_end()
        second.await_kept()
        second.umount()
    assert assert_only_right(served.project.cache, FILES) == 1


@BOTH_MODES
def test_an_object_that_vanishes_while_it_is_read(mounter: Mounter, served: Served) -> None:
    small = next(iter(SMALL))
    mount = served.project.mount(mounter)
    with open(mount.path / small, "rb", buffering=0) as opened:
        assert read_piece(mount.path / LARGE) == DATA[:4096]
        for data in FILES.values():
            served.remote.remove(md5(data))
        assert opened.read() == SMALL[small], "what is open stays"
        assert read_piece(mount.path / LARGE) == DATA[:4096], "what has come stays"
        assert read_piece(mount.path / LARGE, 11 * MIB) == WRONG
        for data in FILES.values():
            served.remote.put(data)
        until(lambda: read(mount.path / LARGE) == DATA, "it is asked for again")
    log = mount.umount()
    assert f"object {md5(DATA)} is in none of the remotes far" in log


@BOTH_MODES
def test_an_object_that_is_exchanged_while_it_is_read(mounter: Mounter, served: Served) -> None:
    """Blocks of two states never come together: what is read then has been hashed, or is an error."""
    place = served.remote.place(md5(DATA))
    other = filler(len(DATA), 2)
    mount = served.project.mount(mounter)
    with open(mount.path / LARGE, "rb", buffering=0) as opened:
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        assert os.pread(opened.fileno(), MIB, 0) == DATA[:MIB]
        place.unlink()
        served.remote.put(other, md5(DATA))
        # nginx tells states apart by the second of the change, and by the length.
        os.utime(place, (1_000_000_000, 1_000_000_000))
        for offset in (11 * MIB, 5 * MIB, 0):
            got = read_piece(mount.path / LARGE, offset)
            assert got in (WRONG, DATA[offset:][:4096]), offset
        place.unlink()
        served.remote.put(DATA)
        until(lambda: read(mount.path / LARGE) == DATA, "it is fetched anew")
        until(served.project.cache.place(md5(DATA)).exists, "it is the cache's")
    mount.umount()
    assert assert_only_right(served.project.cache, FILES) == 1


@BOTH_MODES
def test_credentials_that_expire_in_mid_epoch_cost_no_file(mounter: Mounter, tmp_path: Path) -> None:
    """The server takes new ones from one moment to the next; the user's file has them by then."""
    remote = Cache(tmp_path / "remote")
    for data in SMALL.values():
        remote.put(data)
    with nginx(tmp_path / "nginx", remote.root, login=("me", f"{SECRET}-1")) as server:
        basic = "auth = basic\nuser = me\npassword = {}\n"
        project = new_project(tmp_path / "project", SMALL, server.url, basic.format(f"{SECRET}-1"))
        mount = project.mount(mounter)
        paths = list(SMALL)
        with ThreadPoolExecutor(8) as pool:
            half = len(paths) // 2
            assert list(pool.map(lambda path: read(mount.path / path) == SMALL[path], paths[:half]))
            project.configure(server.url, basic.format(f"{SECRET}-2"))
            (tmp_path / "nginx" / "passwords").write_text(f"me:{{PLAIN}}{SECRET}-2\n")
            rest = list(pool.map(lambda path: read(mount.path / path), paths[half:]))
        assert rest == [SMALL[path] for path in paths[half:]]
        assert mount.status()["errors"] == 0
        log = mount.umount()
    assert SECRET not in log


@BOTH_MODES
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_a_disk_that_fills_up_costs_no_reader_a_byte(
    mounter: Mounter, served: Served, tmp_path: Path
) -> None:
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=5m", "small", small], check=True, timeout=SECONDS)
    try:
        cache = Cache(small / "cache")
        cache.put((served.project.cache.place(served.project.oid)).read_bytes(), served.project.oid)
        mount = served.project.mount(mounter, "--cache", cache.root)
        with ThreadPoolExecutor(4) as pool:
            for path, got in zip(FILES, pool.map(lambda path: read(mount.path / path), FILES), strict=True):
                assert got == FILES[path], path
        assert mount.status()["errors"] == 0
        mount.umount()
        assert not cache.place(md5(DATA)).exists()
        assert_only_right(cache, FILES)
    finally:
        subprocess.run(["umount", "-l", small], check=True, timeout=SECONDS)


class Clock:
    """The day's clock of the daemons that are started while it is set in the environment."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        library, self._file = directory / "clock.so", directory / "offset"
        source = Path(__file__).with_name("clock.c")
        command = ["cc", "-shared", "-fPIC", "-o", library, source, "-ldl"]
        subprocess.run(command, check=True, timeout=SECONDS)
        self.jump(0)
        monkeypatch.setenv("LD_PRELOAD", str(library))
        monkeypatch.setenv("FUSEFS_TEST_CLOCK", str(self._file))

    def jump(self, seconds: int) -> None:
        """To so far from the right time."""
        with open(self._file, "r+b" if self._file.exists() else "wb") as file:
            file.write(struct.pack("l", seconds))


@BOTH_MODES
def test_a_clock_that_jumps_changes_nothing(
    mounter: Mounter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither deadlines nor pauses go by the time of the day: a wait ends when it would have ended."""
    sound = objects(FILES)
    stalls = True
    clock = Clock(tmp_path, monkeypatch)

    def choose(head: str) -> Script:
        return server.stall() if stalls else sound(head)

    with raw_server(reset) as server:
        server.choose = choose
        project = new_project(tmp_path / "project", FILES, server.url, QUICK)
        mount = project.mount(mounter)
        monkeypatch.delenv("LD_PRELOAD")
        paths = list(SMALL)
        for turn, jump in enumerate((10**7, -(10**7))):
            stalls = True
            with reading(read, mount.path / paths[turn]) as got:
                until(lambda: server.requests, "it is asked for")
                clock.jump(jump)
                until(lambda: len(server.requests) >= 2, "its limit has passed, and it is asked for again")
                stalls = False
            assert got == [SMALL[paths[turn]]]
            server.requests.clear()
        server.choose = lambda _: say("503 Busy", b"", "Retry-After: 40\r\n")
        assert read(mount.path / paths[4]) == SLOW
        server.requests.clear()
        server.choose = sound
        clock.jump(10**6)
        assert read(mount.path / paths[4]) == SLOW, "40 seconds have not passed"
        assert not server.requests
        log = mount.umount()
    days = {line[:10] for line in log.splitlines()}
    assert len(days) > 1, "the daemon has seen the clock jump"
    assert "Traceback" not in log
    assert assert_only_right(project.cache, FILES) == 2
