"""The real DVC at work beside a mount that is read: never a wrong byte, and nothing of DVC's is touched."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests.mount.datasets import filler, tree_of, write_folder
from tests.mount.mounts import ROOT, Mounter
from tests.pins.conftest import Files, Run
from tests.pins.test_pins import settled

pytestmark = pytest.mark.fuse

ROUNDS = 1
FILES: Files = {f"{number % 4}/{number}": filler(20_000 + number, number) for number in range(40)}
CHANGED: Files = FILES | {
    f"{number % 4}/{number}": filler(100 + number, 100 + number) for number in range(20)
}


class Readers:
    """Read every file again and again, until told to stop; an error is an answer, another byte is not."""

    def __init__(self, versions: Mapping[Path, Files], threads: int) -> None:
        self._versions = versions
        self._stop = threading.Event()
        self.wrong: list[str] = []
        self.errors: set[int | None] = set()
        self.whole = 0
        self._threads = [threading.Thread(target=self._read) for _ in range(threads)]

    def __enter__(self) -> Readers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _read(self) -> None:
        while not self._stop.is_set():
            for root, files in self._versions.items():
                for path, data in files.items():
                    self._check(root / path, data)

    def _check(self, path: Path, data: bytes) -> None:
        try:
            with open(path, "rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                read = file.read()
        except OSError as error:
            self.errors.add(error.errno)
        else:
            self.whole += 1
            if read != data:
                self.wrong.append(str(path))


@pytest.mark.parametrize("pin", ["yes", "no"])
def test_dvc_adds_checks_out_and_collects_while_a_mount_is_read(
    mounter: Mounter, repository: Path, run: Run, commit: Callable[[Path, Files, str], None], pin: str
) -> None:
    commit(repository, FILES, "v1")
    mount = mounter.mount("data@v1", "--pin", pin, cwd=repository)
    if pin == "yes":
        assert settled(mount)["state"] == "complete"
    commit(repository, CHANGED, "v2")
    later = mount.path / ".fusefs" / "revs" / "v2"
    assert tree_of(later) == CHANGED
    with Readers({mount.path: FILES, later: CHANGED}, 3) as readers:
        for _ in range(ROUNDS):
            for files in (CHANGED, FILES):
                write_folder(repository / "data", files)
                run(repository, "dvc", "add", "--quiet", "data")
                run(repository, "dvc", "gc", "--workspace", "--force", "--quiet")
                run(repository, "dvc", "checkout", "--quiet", "--force")
    assert readers.wrong == []
    assert readers.whole > len(FILES)
    if pin == "yes":
        assert readers.errors == set()
        assert (tree_of(mount.path), tree_of(later)) == (FILES, CHANGED)
    else:
        assert readers.errors <= {5}  # EIO
    assert tree_of(repository / "data") == FILES
    assert "Traceback" not in mount.umount()
    assert run(repository, "dvc", "status", "data.dvc").strip() == "Data and pipelines are up to date."


def state_of(*roots: Path) -> dict[str, tuple[int, int, int, int]]:
    """Every file that DVC keeps its state in: which one it is, how long, and when it was changed."""
    found = {}
    for root in roots:
        for path in (root, *root.rglob("*")):
            status = path.lstat()
            found[str(path)] = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return found


def test_nothing_of_dvcs_own_is_written_and_its_locks_are_not_waited_for(
    mounter: Mounter, repository: Path, commit: Callable[[Path, Files, str], None]
) -> None:
    commit(repository, FILES, "v1")
    commit(repository, CHANGED, "v2")
    own = [repository / ".dvc" / "tmp", mounter.home / "site", repository / ".dvc" / "config"]
    files = [repository / "data.dvc", repository / ".gitignore", repository / "data"]
    before = state_of(*own, *files)
    with open(repository / ".dvc" / "tmp" / "lock", "rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        mount = mounter.mount("data@v1", cwd=repository)
        assert settled(mount)["state"] == "complete"
        assert tree_of(mount.path / ".fusefs" / "revs" / "v2") == CHANGED
        assert mounter.run("switch", mount.path, "v2").returncode == 0
        assert tree_of(mount.path) == CHANGED
        mount.umount()
    assert state_of(*own, *files) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="needs two users")
def test_objects_of_another_user_are_refused_and_the_status_says_so(tmp_path: Path) -> None:
    """As an ordinary user: the kernel lets nobody link what is not his (fs.protected_hardlinks)."""
    if Path("/proc/sys/fs/protected_hardlinks").read_text().strip() != "1":
        pytest.skip("fs.protected_hardlinks is off")
    script = """
import os
from pathlib import Path
from store.errors import CacheUnusable
from store.pins import Pins
os.setgroups([]); os.setgid(12345); os.setuid(12345)
pins = Pins.make(Path("shared"))
print(pins.pin(["00" * 16, "11" * 16, "22" * 16], "md5"))
pins.remove()
try:
    Pins.make(Path("closed"))
except CacheUnusable as error:
    print(error)
"""
    shared, closed = tmp_path / "shared", tmp_path / "closed"
    for name, owner in (("00", 0), ("11", 12345)):
        place = shared / "files" / "md5" / name / (name * 15)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(b"object")
        place.chmod(0o444)
        os.chown(place, owner, owner)
    shared.chmod(0o777)
    closed.mkdir()
    tmp_path.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,  # from where the other user gets on, although not to it
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    pinned, refused = done.stdout.splitlines()
    reason = "objects of another user cannot be linked (fs.protected_hardlinks)"
    assert pinned == f"Pinned(linked=1, missing=('{'22' * 16}',), refused=1, reason='{reason}')"
    assert refused == "the cache cannot be written"
    assert not (shared / "fusefs").exists()
