"""Nothing is left behind by a mount that has ended, and nothing grows in one that goes on."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.descriptors import open_below
from tests.mount.datasets import Cache, filler, md5
from tests.mount.mounts import Mount, Mounter, is_held_elsewhere, unmount
from tests.patience import until

pytestmark = pytest.mark.fuse

ROUNDS = int(os.environ.get("FUSEFS_TEST_ROUNDS", "100"))
AT_ONCE = 4
CYCLES = int(os.environ.get("FUSEFS_TEST_CYCLES", "1000"))
WAIT_SECONDS = 60.0
THREADS_AT_MOST = 24
GROWTH_AT_MOST = 2 << 20
"""Bytes of memory: two kilobytes a cycle, of which each makes some ten requests."""

KEPT = "sizes.sqlite"

FILES = {f"{number % 10}/{number}": filler(5000 + number, number) for number in range(100)}


def everything_below(directory: Path) -> set[Path]:
    """All but what the user keeps from one mount to the next: what was learnt of sizes."""
    return {path.relative_to(directory) for path in directory.rglob("*") if not path.name.startswith(KEPT)}


def processes_of(home: Path) -> dict[int, str]:
    """The command lines of running processes that name something below `home`, by process."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue  # it has ended
            if os.fsencode(home) in command:
                found[int(entry.name)] = command.replace(b"\0", b" ").decode(errors="replace")
    return found


@pytest.mark.timeout(max(240, 5 * ROUNDS))
def test_rounds_of_mounting_leave_nothing(mounter: Mounter, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Cache(mounter.home / "objects")
    oid = cache.put_dataset(FILES)
    temporary = mounter.home / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    places = [mounter.new_mountpoint() for _ in range(AT_ONCE)]

    def go_round(place: Path, rounds: int) -> None:
        for number in range(rounds):
            log = mounter.home / f"{place.name}.log"
            done = mounter.run(
                "mount", "--mode", mounter.mode, "--cache", cache.root, "--log", log, oid, place
            )
            assert done.returncode == 0, done.stderr
            path = f"{number % 10}/{number % 100 // 10 * 10 + number % 10}"
            assert (place / path).read_bytes() == FILES[path]
            if number % 2:
                unmount(place)
            else:
                done = mounter.run("umount", place)
                assert done.returncode == 0, done.stderr

    go_round(places[0], 1)
    before = everything_below(mounter.home) | {Path(f"{place.name}.log") for place in places}
    descriptors = open_below(Path("/"))
    with ThreadPoolExecutor(AT_ONCE) as rounds:
        for ended in [rounds.submit(go_round, place, ROUNDS // AT_ONCE) for place in places]:
            ended.result()
    deadline = time.monotonic() + WAIT_SECONDS
    told: set[int] = set()
    while processes := processes_of(mounter.home):  # a daemon may still be writing its last line
        assert time.monotonic() < deadline, processes
        if any(is_held_elsewhere(place) for place in places):
            for process in processes.keys() - told:
                told.add(process)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGTERM)
    assert str(mounter.home) not in Path("/proc/self/mountinfo").read_text(errors="surrogateescape")
    assert everything_below(mounter.home) == before
    assert list(temporary.iterdir()) == []
    assert not Counter(open_below(Path("/"))) - Counter(descriptors)


OWN = ("RssAnon:", "RssShmem:", "VmSwap:")
"""Memory that nobody but the process has. Pages of files and programs come and go as the kernel likes."""


def resources(mount: Mount) -> tuple[int, int, int]:
    """The daemon's descriptors, threads and bytes of memory."""
    process = Path("/proc", str(mount.pid))
    lines = (line.split() for line in (process / "status").read_text().splitlines())
    own = sum(int(words[1]) << 10 for words in lines if words[0] in OWN)
    return len(list((process / "fd").iterdir())), len(list((process / "task").iterdir())), own


def objects_open(mount: Mount, data: bytes) -> list[str]:
    """The paths of an object that the daemon holds open: what it opens besides is not the readers'."""
    open_ones = []
    for entry in Path("/proc", str(mount.pid), "fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # it was closed meanwhile
            open_ones.append(os.readlink(entry))
    return [path for path in open_ones if md5(data)[2:] in path]


def use_everything(mount: Mount, cycles: int) -> None:
    """Each kind of request, `cycles` times, misses among them."""
    paths = [mount.path / path for path in FILES]
    for number in range(cycles):
        path = paths[number % len(paths)]
        with open(path, "rb", buffering=0) as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            assert file.read(100)
        os.getxattr(path, "user.fusefs.cached")
        os.listxattr(path)
        with pytest.raises(FileNotFoundError):
            os.stat(mount.path / f"missing {number % 100}")
        with pytest.raises(OSError, match="Input/output error"):
            os.open(mount.path / "gone", os.O_RDONLY)
        if number % 10 == 0:
            os.listdir(path.parent)
            os.statvfs(mount.path)
            mount.status()


@pytest.mark.modes("fuse", "native")
def test_a_daemon_that_is_used_does_not_grow(mounter: Mounter) -> None:
    cache = Cache(mounter.home / "objects")
    gone = b"this one is not there"
    oid = cache.put_dataset({**FILES, "gone": gone})
    cache.remove(md5(gone))
    mount = mounter.mount(oid, "--cache", cache.root, "--no-pin")
    use_everything(mount, CYCLES)
    before = resources(mount)
    use_everything(mount, CYCLES)
    until(lambda: resources(mount)[0] <= before[0])  # the kernel closes in its own time
    after = resources(mount)
    assert after[1] <= THREADS_AT_MOST
    assert after[2] - before[2] < GROWTH_AT_MOST
    log = mount.umount()
    assert len(log) < 100_000, "a line that repeats is counted, not written again"


def test_a_descriptor_that_was_open_at_the_end_is_closed(mounter: Mounter) -> None:
    """A reader that is killed while it holds a file open leaves nothing in the daemon."""
    mount = mounter.mount_files(FILES)

    def one_is_killed() -> None:
        path = mount.path / "3" / "13"
        reader = subprocess.Popen(["tail", "-f", path], stdout=subprocess.PIPE)
        assert reader.stdout is not None
        assert reader.stdout.read(100)
        reader.kill()
        reader.communicate()

    data = FILES["3/13"]
    with open(mount.path / "3" / "13", "rb"):
        is_ours = mounter.mode == "fuse"  # in native mode the kernel opens it by itself
        assert bool(objects_open(mount, data)) == is_ours
    for _ in range(5):
        one_is_killed()
    until(lambda: not objects_open(mount, data))  # the kernel closes in its own time
