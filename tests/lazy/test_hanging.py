"""Remotes that hang keep nobody waiting but who reads from them, end with the mount, and cost nothing."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.lazy.faulty import SECONDS, WRONG, new_project, objects, read
from tests.mount.datasets import entries_of, filler, md5
from tests.mount.mounts import Mount, Mounter, read_status
from tests.patience import until
from tests.servers.raw_answers import Script, raw_server, reset, say, say_raw

pytestmark = [pytest.mark.fuse, pytest.mark.modes("fuse", "native")]

READERS = 64
ENDED = frozenset({errno.ENOTCONN, errno.ECONNABORTED})
FILES = {f"{number % 4}/{number}": filler(5_000 + number, number) for number in range(READERS)}
HERE = {f"here/{number}": filler(3_000, 500 + number) for number in range(8)}


def test_64_readers_that_hang_keep_nobody_else_waiting(mounter: Mounter, tmp_path: Path) -> None:
    """The limits are the usual ones: nobody gets an answer from the remote as long as the test lasts."""
    files = {**FILES, **HERE}
    with raw_server(reset) as server:
        server.script = server.stall()
        project = new_project(tmp_path / "project", files, server.url)
        for data in HERE.values():
            project.cache.put(data)
        mount = project.mount(mounter)
        with ThreadPoolExecutor(READERS) as pool:
            hanging = [pool.submit(read, mount.path / path) for path in FILES]
            until(lambda: len(server.requests) >= READERS, "all ask the remote")
            for directory in ("0", "1", "2", "3", "here"):
                assert list((mount.path / directory).iterdir())
            for path, data in files.items():
                assert (mount.path / path).stat().st_size == len(data)
            for path, data in HERE.items():
                assert (mount.path / path).read_bytes() == data
            assert os.getxattr(mount.path / "here/0", "user.fusefs.cached") == b"1"
            assert os.statvfs(mount.path).f_files > len(files)
            assert read_status(mount.path / ".fusefs")["pid"] == mount.pid
            assert (mount.path / ".fusefs" / "metrics").read_text()
            assert not any(reader.done() for reader in hanging)
            # Told twice, it does not wait for who reads; threads that hang do not keep it.
            signal.pidfd_send_signal(mount.ended, signal.SIGTERM)
            until(lambda: "SIGTERM" in mount.log.read_text(), "it has been told")
            signal.pidfd_send_signal(mount.ended, signal.SIGTERM)
            mount.await_end()
            assert {reader.result(SECONDS) for reader in hanging} <= ENDED
    log = mount.log.read_text()
    assert "Traceback" not in log
    assert re.search("INFO .*: ended after", log)


def test_a_mount_ends_while_what_is_read_ahead_hangs(mounter: Mounter, tmp_path: Path) -> None:
    """An ordinary umount: nobody reads any more, but the remote owes what was asked ahead, and sizes."""
    files = {"large": filler(24 << 20, 7), **FILES}
    with raw_server(reset) as server:
        sound = objects(files)

        def answer(head: str) -> Script:
            if "bytes=0-" in head:
                return sound(head)
            return say("404 Not Found") if "/contents/" in head else server.stall()

        server.choose = answer
        project = new_project(tmp_path / "project", files, server.url)
        ahead = project.mount(mounter)
        with open(ahead.path / "large", "rb", buffering=0) as file:
            # The kernel is to read nothing ahead of itself: `umount` would wait for that.
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
            for _ in range(16):
                assert file.read(1 << 16)
            until(lambda: len(server.requests) > 1, "something is asked for ahead")
        log = ahead.umount()
        server.requests.clear()
        unknown = project.cache.put_manifest(entries_of(files))
        sizes = mounter.mount(unknown, "--cache", project.cache.root, "--remote", server.url)
        until(lambda: any(request.startswith("HEAD") for request in server.requests), "a size is asked for")
        log += sizes.umount()
    assert "Traceback" not in log


def resources(mount: Mount) -> tuple[int, int, int]:
    """The daemon's descriptors, threads and resident bytes.

    Without the directories of objects, which are kept open: there are as many as have been used.
    """
    process = Path("/proc", str(mount.pid))
    resident = int((process / "statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
    others = 0
    for entry in (process / "fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # it was closed meanwhile
            others += not re.search("/files/md5/..$", str(entry.readlink()))
    return others, len(list((process / "task").iterdir())), resident


ROUNDS = int(os.environ.get("FUSEFS_TEST_FAULT_ROUNDS", "12"))
EACH = 24
GROWTH_AT_MOST = 6 << 20
"""Bytes of resident memory, over all rounds."""


def test_rounds_of_faults_leave_nothing_behind(mounter: Mounter, tmp_path: Path) -> None:
    """Each round has files of its own: what a remote sent wrong is not asked for again at once."""
    kinds = ("missing", "wrong", "cut", "reset", "sound")
    files = {
        f"{kind}/{number}": filler(20_000, 31 * number + place)
        for place, kind in enumerate(kinds)
        for number in range(EACH * (ROUNDS + 1))
    }
    kind_of = {md5(data): path.partition("/")[0] for path, data in files.items()}
    sound = objects(files)
    broken: set[str] = set()

    def choose(head: str) -> Script:
        oid = "".join(head.split(" ")[1].split("/")[-2:])
        kind = kind_of.get(oid, "missing")
        answer = sound(head)
        if kind == "sound":
            return answer
        if kind == "missing":
            return say("404 Not Found")
        if kind == "wrong":
            return say("200 OK", b"x" * 20_000)
        if oid in broken:  # it passes: the second try gets it
            return answer
        broken.add(oid)
        if kind == "cut":
            return say_raw("HTTP/1.1 200 OK\r\nContent-Length: 20000\r\n\r\n", b"x" * 7_000)
        return reset

    expected: dict[str, int] = {"missing": WRONG, "wrong": WRONG}
    with raw_server(reset) as server:
        server.choose = choose
        mount = new_project(tmp_path / "project", files, server.url).mount(mounter)

        def go_round(turn: int, pool: ThreadPoolExecutor) -> None:
            numbers = range(turn * EACH, (turn + 1) * EACH)
            # Three resets in a row, and the remote would be left alone for a while.
            paths = [f"{kind}/{n}" for n in numbers for kind in kinds if kind != "reset" or n % EACH < 2]
            for path, got in zip(paths, pool.map(lambda path: read(mount.path / path), paths), strict=True):
                assert got == expected.get(path.partition("/")[0], files[path]), path

        with ThreadPoolExecutor(8) as pool:
            go_round(0, pool)
            go_round(1, pool)
            before = resources(mount)
            for turn in range(2, ROUNDS + 1):
                go_round(turn, pool)
        # Threads end, and the kernel closes, in their own time.
        until(lambda: all(a <= b for a, b in zip(resources(mount)[:2], before[:2], strict=True)), "no more")
        after = resources(mount)
        mount.await_kept()
        assert after[2] - before[2] < GROWTH_AT_MOST, (before, after)
        assert not list((tmp_path / "project/.dvc/cache/fusefs/incoming").iterdir())
        mount.umount()
