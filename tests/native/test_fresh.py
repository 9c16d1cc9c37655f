"""A missing object is the kernel's to read as soon as it has come, before the disk has it."""

from __future__ import annotations

import mmap
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import pytest

from fusefs.native import mount_api
from fusefs.native.forgetting import FULL
from fusefs.native.fresh import Fresh
from fusefs.native.stream import MANY
from store.layouts import object_path
from store.oid import MD5_DOS2UNIX, Oid
from tests.mount.datasets import Cache, entries_of, filler, md5, tree_of
from tests.mount.mounts import ROOT, Mounter
from tests.patience import until
from tests.servers.nginx import nginx
from tests.servers.proxy import Faults, Proxy

SECONDS = 60.0
ALONE_SECONDS = 5.0
FILES = {f"{number % 3}/{number}": filler(20_000, number) for number in range(40)}
STREAM = {f"{number % 3}/{number}": filler(20_000, number) for number in range(3 * MANY)}
OID = Oid(md5(b"one"))


@pytest.mark.fuse
@pytest.mark.root
@pytest.mark.modes("native")
def test_a_reader_does_not_wait_for_the_disk(
    mounter: Mounter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The courier's objects and those that threads bring; nothing is in the cache before the disk has it."""
    library, held = tmp_path / "sync.so", tmp_path / "held"
    source = Path(__file__).with_name("sync.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True, timeout=SECONDS)
    held.touch()
    cache, remote = Cache(mounter.home / "objects"), Cache(mounter.home / "remote")
    for data in FILES.values():
        remote.put(data)
    oid = cache.put_dataset(FILES, sizes=True)
    for data in FILES.values():
        cache.remove(md5(data))
    with monkeypatch.context() as patch:
        patch.setenv("LD_PRELOAD", str(library))
        patch.setenv("FUSEFS_TEST_SYNC", str(held))
        mount = mounter.mount(oid, "--cache", cache.root, "--remote", remote.root)
    try:
        for path, data in FILES.items():
            assert (mount.path / path).read_bytes() == data
        assert not any(cache.place(md5(data)).exists() for data in FILES.values())
        assert mount.status()["misses"] == len(FILES)
        os.kill(mount.pid, signal.SIGSTOP)  # so that nobody but the kernel can answer
        try:
            for path, data in FILES.items():
                with (
                    open(mount.path / path, "rb") as file,
                    mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped,
                ):
                    assert mapped[:] == data
        finally:
            os.kill(mount.pid, signal.SIGCONT)
        first = next(iter(FILES))
        with open(mount.path / first, "rb") as opened:
            held.unlink()
            until(lambda: all(cache.place(md5(data)).exists() for data in FILES.values()))
            assert opened.read() == FILES[first]
    finally:
        held.unlink(missing_ok=True)
    for path, data in FILES.items():
        assert (mount.path / path).read_bytes() == data
        assert cache.place(md5(data)).read_bytes() == data
    log = mount.umount()
    assert "ERROR" not in log and "WARNING" not in log


ANY_STREAM = """
import sys
if "fusefs.supervisor" in sys.orig_argv:
    from fusefs.native import stream
    stream.MANY_SECONDS = 600.0
"""
"""For daemons: so many objects are a stream, however slow the machine is by which they come."""


class StreamMounter(Mounter):
    @property
    def environment(self) -> dict[str, str]:
        inherited = super().environment
        return {**inherited, "PYTHONPATH": f"{self.home / 'patched'}{os.pathsep}{inherited['PYTHONPATH']}"}


@pytest.mark.fuse
@pytest.mark.root
@pytest.mark.modes("native")
def test_one_of_many_is_the_kernels_to_read_a_moment_later(mounter: Mounter, tmp_path: Path) -> None:
    """The first bytes of most come through the daemon, which is what a stream of them costs least by."""
    streaming = StreamMounter(mounter.home, mounter.mode, mounter.mounts)
    (streaming.home / "patched").mkdir()
    (streaming.home / "patched" / "sitecustomize.py").write_text(ANY_STREAM)
    cache, remote = Cache(mounter.home / "objects"), Cache(mounter.home / "remote")
    for data in STREAM.values():
        remote.put(data)
    oid = cache.put_manifest(entries_of(STREAM, sizes=True))
    with (
        nginx(tmp_path / "nginx", remote.root) as server,
        Proxy(("127.0.0.1", server.port), Faults(delay=0.02)) as proxy,
    ):
        mount = streaming.mount(oid, "--cache", cache.root, "--remote", proxy.url)

        def opens() -> int:
            text = (mount.path / ".fusefs" / "metrics").read_text()
            return int(float(text.partition('fusefs_requests_total{kind="open"} ')[2].split()[0]))

        before = opens()
        with ThreadPoolExecutor(MANY) as pool:
            got = pool.map(lambda path: (mount.path / path).read_bytes(), STREAM)
            assert dict(zip(STREAM, got, strict=True)) == STREAM
        assert opens() - before > MANY
        until(lambda: all(cache.place(md5(data)).exists() for data in STREAM.values()))

        def opens_none() -> bool:
            time.sleep(1)  # the kernel is told when nobody reads, so not to read is what is waited for
            before = opens()
            assert tree_of(mount.path) == STREAM
            return opens() - before == 1  # of the metrics

        def is_read_by_the_kernel() -> bool:
            """The kernel may be told once more, twenty seconds after the first time: then it has to ask."""
            until(opens_none)
            with ThreadPoolExecutor(1) as pool:
                os.kill(mount.pid, signal.SIGSTOP)  # so that nobody but the kernel can answer
                try:
                    read = pool.submit(lambda: {path: (mount.path / path).read_bytes() for path in STREAM})
                    done, _ = wait([read], ALONE_SECONDS)
                finally:
                    os.kill(mount.pid, signal.SIGCONT)
                assert read.result() == STREAM
                return bool(done)

        until(is_read_by_the_kernel)
        assert mount.status()["misses"] == len(STREAM)
        mount.umount()


@pytest.fixture
def small() -> Iterator[Fresh]:
    """Room for a few objects."""
    descriptor = mount_api.mount_detached("tmpfs", [("size", "65536"), ("mode", "700")], 0)
    try:
        fresh = Fresh(descriptor)
        fresh.make_directories()
        yield fresh
    finally:
        os.close(descriptor)


def read(fresh: Fresh, oid: Oid) -> bytes:
    descriptor = os.open(object_path(oid), os.O_RDONLY, dir_fd=fresh.descriptor)
    with open(descriptor, "rb") as file:
        return file.read()


@pytest.mark.root
def test_what_is_shown_is_whole(small: Fresh) -> None:
    small.show(OID, b"one")
    assert read(small, OID) == b"one"
    legacy = Oid(OID.digest, algorithm=MD5_DOS2UNIX)
    small.show(legacy, b"of another hash")
    assert (read(small, OID), read(small, legacy)) == (b"one", b"of another hash")
    small.take_back(OID)
    small.take_back(OID)  # which nobody need know of
    with pytest.raises(FileNotFoundError):
        read(small, OID)
    assert read(small, legacy) == b"of another hash"


@pytest.mark.root
def test_what_has_no_room_is_not_shown_in_part(small: Fresh) -> None:
    other = Oid(md5(b"two"))
    small.show(OID, bytes(40_000))
    assert small.used() > FULL
    small.show(other, bytes(40_000))
    with pytest.raises(FileNotFoundError):
        read(small, other)
    assert not [name for *_, names in os.walk(f"/proc/self/fd/{small.descriptor}") for name in names][1:]
    small.take_back(OID)
    assert small.used() < FULL
    small.show(other, bytes(40_000))
    assert read(small, other) == bytes(40_000)


KILLED = """
import os, signal, sys
from fusefs.native.fresh import Fresh
from store.oid import Oid
os.link = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
Fresh(int(sys.argv[1])).show(Oid(sys.argv[2]), bytes(40_000))
"""
"""Dies when it has written everything, and nobody can find it yet."""


@pytest.mark.root
def test_who_is_killed_leaves_nothing_and_is_in_nobodys_way(small: Fresh) -> None:
    before = small.used()
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(small.descriptor), OID.digest],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        pass_fds=[small.descriptor],
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    assert small.used() == before
    small.show(OID, b"one")
    assert read(small, OID) == b"one"
