"""What is not here is fetched when it is read: once, right or not at all, whatever others do meanwhile."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from store.fetching.download import IN_MEMORY
from store.fetching.remote_pool import MISSING_SECONDS
from tests.conftest import OTHER_MODE, kill_for_good
from tests.lazy.asked import asked_again, assert_once
from tests.lazy.conftest import Pushed
from tests.mount.datasets import Cache, entries_of, filler, md5
from tests.mount.mounts import Mount, Mounter
from tests.patience import until
from tests.servers.nginx import Nginx, nginx
from tests.servers.proxy import Faults, Proxy

pytestmark = [pytest.mark.fuse, pytest.mark.modes("fuse", "native")]

FILES = {f"{number % 3}/{number}.bin": filler(20_000, number) for number in range(63)}
FILES["large.bin"] = filler(IN_MEMORY + 20_000, 64)
SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Served:
    """A remote behind a web server, and a cache that has the manifest alone."""

    server: Nginx
    remote: Cache
    log: Path
    cache: Cache
    oid: str

    @property
    def url(self) -> str:
        return self.server.url

    @property
    def port(self) -> int:
        return self.server.port

    def mount(self, mounter: Mounter, *flags: str | Path, remotes: tuple[str, ...] = ()) -> Mount:
        chosen = [word for url in remotes or (self.url,) for word in ("--remote", url)]
        return mounter.mount(self.oid, "--cache", self.cache.root, *chosen, *flags)

    def gets(self) -> Counter[str]:
        """How often each object was asked for."""
        self.server.await_log()
        found = re.findall(r'"GET /files/md5/(..)/(\S+) ', self.log.read_text())
        return Counter(prefix + rest for prefix, rest in found)

    def cached(self) -> set[str]:
        """The paths whose objects the cache holds, whole."""
        there = set()
        for path, data in FILES.items():
            place = self.cache.place(md5(data))
            if place.exists():
                assert place.read_bytes() == data
                assert place.stat().st_mode & 0o777 == 0o444
                there.add(path)
        return there

    def incoming(self) -> list[Path]:
        directory = self.cache.root / "fusefs" / "incoming"
        return list(directory.iterdir()) if directory.exists() else []


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    remote, cache = Cache(tmp_path / "remote"), Cache(tmp_path / "cache")
    for data in FILES.values():
        remote.put(data)
    oid = cache.put_manifest(entries_of(FILES, sizes=True))
    log = tmp_path / "access.log"
    with nginx(tmp_path / "nginx", remote.root, extra=f"access_log {log};") as server:
        yield Served(server, remote, log, cache, oid)


def read_all(mount: Mount, readers: int = 8) -> None:
    """Read every file and hold it against what it should be."""

    def check(path: str) -> None:
        assert (mount.path / path).read_bytes() == FILES[path]

    with ThreadPoolExecutor(readers) as pool:
        list(pool.map(check, FILES))


def failure(path: Path) -> int:
    with pytest.raises(OSError) as caught:
        path.read_bytes()
    assert caught.value.errno is not None
    return caught.value.errno


def test_64_readers_of_one_missing_file_cause_one_request(mounter: Mounter, served: Served) -> None:
    mount = served.mount(mounter)
    path, data = next(iter(FILES.items()))
    together = threading.Barrier(64)

    def reader(_: int) -> bytes:
        together.wait(SECONDS)
        return (mount.path / path).read_bytes()

    with ThreadPoolExecutor(64) as pool:
        assert set(pool.map(reader, range(64))) == {data}
    assert_once(served.gets(), [md5(data)], asked_again(mount))
    mount.await_kept()
    mount.umount()
    assert served.cached() == {path}
    assert served.incoming() == []


@pytest.mark.modes(OTHER_MODE)
def test_two_daemons_that_share_a_cache_fetch_each_object_once(mounter: Mounter, served: Served) -> None:
    mounts = [served.mount(mounter) for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(read_all, mounts))
    assert_once(served.gets(), map(md5, FILES.values()), asked_again(*mounts))
    for mount in mounts:
        mount.await_kept()
        mount.umount()
    assert served.cached() == set(FILES)
    assert served.incoming() == []


@pytest.mark.modes(OTHER_MODE)
def test_a_second_mount_asks_for_nothing(mounter: Mounter, served: Served) -> None:
    mount = served.mount(mounter)
    read_all(mount)
    assert_once(asked := served.gets(), map(md5, FILES.values()), asked_again(mount))
    mount.await_kept()
    mount.umount()
    mount = served.mount(mounter)
    read_all(mount)
    status = mount.status()
    mount.umount()
    assert served.gets() == asked
    assert (status["misses"], status["errors"]) == (0, 0)


def test_a_daemon_killed_in_the_middle_leaves_nothing_that_is_believed(
    mounter: Mounter, served: Served
) -> None:
    path, data = "large.bin", FILES["large.bin"]  # a smaller one has no file before it is whole
    with Proxy(("127.0.0.1", served.port), Faults(stall_after=10_000)) as proxy:
        mount = served.mount(mounter, remotes=(proxy.url,))
        with ThreadPoolExecutor(1) as pool:
            reading = pool.submit(failure, mount.path / path)
            until(served.incoming)
            kill_for_good(mount.pid)
            assert reading.result(SECONDS) in (errno.ENOTCONN, errno.ECONNABORTED)
        subprocess.run(["umount", "-l", mount.path], check=True, timeout=SECONDS)
        mount.await_end()
        assert served.cached() == set()
        assert served.incoming()  # one, or two where it was asked beside: that took long
        proxy.fail()
        mount = served.mount(mounter, remotes=(proxy.url,))
        until(lambda: not served.incoming())
        assert (mount.path / path).read_bytes() == data
        read_all(mount)
        mount.await_kept()
        mount.umount()
    assert served.cached() == set(FILES)
    assert served.incoming() == []


@pytest.mark.modes(OTHER_MODE)
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_a_full_disk_costs_nobody_a_file(mounter: Mounter, served: Served, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "small", small], check=True, timeout=SECONDS)
    try:
        cache = Cache(small / "cache")
        cache.put_manifest(entries_of(FILES, sizes=True))
        chosen = ("--cache", cache.root, "--remote", served.url, "--no-pin")
        mount = mounter.mount(served.oid, *chosen)
        for _ in range(2):
            read_all(mount)
        assert mount.status()["errors"] == 0
        log = mount.umount()
        kept = [data for data in FILES.values() if cache.place(md5(data)).exists()]
        assert 0 < len(kept) < len(FILES)
        assert all(cache.place(md5(data)).read_bytes() == data for data in kept)
        assert not any((cache.root / "fusefs" / "incoming").iterdir())
        assert "served and not kept" in log
    finally:
        subprocess.run(["umount", "-l", small], check=True, timeout=SECONDS)


def test_a_file_that_the_remote_lost_is_an_error_and_the_others_are_not(
    mounter: Mounter, served: Served
) -> None:
    lost, data = next(iter(FILES.items()))
    served.remote.remove(md5(data))
    mount = served.mount(mounter)
    began = time.monotonic()
    for _ in range(3):
        assert failure(mount.path / lost) == errno.EIO
    remembered = 1 + (time.monotonic() - began) // MISSING_SECONDS
    for path in list(FILES)[1:10]:
        assert (mount.path / path).read_bytes() == FILES[path]
    assert 1 <= served.gets()[md5(data)] <= remembered + asked_again(mount)
    served.cache.put(data)
    assert (mount.path / lost).read_bytes() == data
    log = mount.umount()
    assert re.search(rf"ERROR .*{lost}.*{md5(data)} is in none of the remotes", log)


@pytest.mark.modes(OTHER_MODE)
def test_wrong_bytes_from_one_remote_come_right_from_another(
    mounter: Mounter, served: Served, tmp_path: Path
) -> None:
    wrong = Cache(tmp_path / "wrong")
    for number, data in enumerate(FILES.values()):
        wrong.put(data[:-1] if number % 2 else data[::-1], md5(data))
    mount = served.mount(mounter, remotes=(str(wrong.root), served.url))
    read_all(mount)
    assert mount.status()["errors"] == 0
    mount.await_kept()
    mount.umount()
    assert served.cached() == set(FILES)
    assert served.incoming() == []
    assert 0 < len(list((served.cache.root / "fusefs" / "quarantine").iterdir())) <= 8


@pytest.mark.modes(OTHER_MODE)
def test_a_dead_remote_is_soon_not_asked_any_more(mounter: Mounter, served: Served) -> None:
    with Proxy(("127.0.0.1", served.port), Faults(reset_after=0)) as dead:
        mount = served.mount(mounter, remotes=(dead.url, served.url))
        read_all(mount)
        assert mount.status()["errors"] == 0
        mount.await_kept()
        mount.umount()
        assert 0 < dead.counts.connections < len(FILES) // 2
    assert served.cached() == set(FILES)


def test_a_remote_that_becomes_slow_is_joined_by_the_next(mounter: Mounter, served: Served) -> None:
    """It says nothing for as long as the test lasts, which is longer than any reader may wait."""
    with Proxy(("127.0.0.1", served.port)) as slow:
        mount = served.mount(mounter, remotes=(slow.url, served.url))
        *usual, last = list(FILES)[:11]
        for path in usual:
            assert (mount.path / path).read_bytes() == FILES[path]
        slow.fail(stall_after=0)
        for path in (last, "large.bin"):
            assert (mount.path / path).read_bytes() == FILES[path]
        slow.wait(lambda counts: counts.stalled > 0)
        told = (mount.path / ".fusefs/metrics").read_text()
        assert re.search(rf'fusefs_remote_hedges_total{{remote="{slow.url}"}} [1-9]', told), told
        assert mount.status()["errors"] == 0
        mount.umount()


@pytest.mark.modes(OTHER_MODE)
def test_a_remote_that_comes_back_is_waited_for(mounter: Mounter, served: Served) -> None:
    path, data = next(iter(FILES.items()))
    with Proxy(("127.0.0.1", served.port), Faults(reset_after=0)) as proxy:
        mount = served.mount(mounter, remotes=(proxy.url,))
        with ThreadPoolExecutor(1) as pool:
            reading = pool.submit((mount.path / path).read_bytes)
            proxy.wait(lambda counts: counts.connections >= 2)
            proxy.fail()
            assert reading.result(SECONDS) == data
        mount.umount()


@pytest.mark.modes(OTHER_MODE)
def test_offline_is_said_and_what_is_here_works(mounter: Mounter, served: Served) -> None:
    here, gone = list(FILES)[:2]
    served.cache.put(FILES[here])
    mount = served.mount(mounter, "--offline")
    assert (mount.path / here).read_bytes() == FILES[here]
    assert failure(mount.path / gone) == errno.ENETUNREACH
    assert md5(FILES[gone]) in mount.umount()
    assert served.gets() == {}


@pytest.mark.modes(OTHER_MODE)
def test_credentials_that_are_put_right_are_taken_without_a_new_mount(
    mounter: Mounter, pushed: Pushed, tmp_path: Path
) -> None:
    cache = Cache(pushed.cache)
    cache.put((pushed.object(pushed.remote)).read_bytes(), pushed.oid)
    with nginx(tmp_path / "nginx", pushed.remote, login=("ann", "right")) as server:
        pushed.configure(
            f"[core]\nremote = web\n['remote \"web\"']\nurl = {server.url}\nauth = basic\nuser = ann\n"
        )
        pushed.configure("['remote \"web\"']\npassword = wrong\n", "config.local")
        mount = mounter.mount("data.dvc", cwd=pushed.root)
        assert failure(mount.path / "a.txt") == errno.EACCES
        pushed.configure("['remote \"web\"']\npassword = right\n", "config.local")

        def is_readable() -> bool:
            try:
                return (mount.path / "a.txt").read_bytes() == pushed.files["a.txt"]
            except PermissionError:
                return False

        until(is_readable)
        log = mount.umount()
    assert "wrong" not in log and "right" not in log
