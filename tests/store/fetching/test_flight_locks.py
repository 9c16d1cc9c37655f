"""`FlightLocks` between threads, processes and other users."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from store.fetching.flight_locks import FlightLocks
from store.oid import MD5_DOS2UNIX, Oid

OID = Oid("0" * 32)
HOLDER = """
import sys
from pathlib import Path
from store.fetching.flight_locks import FlightLocks
from store.oid import Oid
locks = FlightLocks(Path(sys.argv[1]))
print(*(locks.try_hold(Oid("0" * 32), block) for block in (-1, 3, 4)), flush=True)
for line in sys.stdin:
    locks.release(Oid("0" * 32), int(line))
    print("released", flush=True)
"""


@pytest.fixture
def locks(tmp_path: Path) -> Iterator[FlightLocks]:
    made = FlightLocks(tmp_path)
    yield made
    made.close()


@pytest.fixture
def holder(tmp_path: Path, locks: FlightLocks) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the object and its blocks 3 and 4."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline().split() == ["True"] * 3
        yield process
        process.kill()


def test_another_process_holds_what_it_holds_and_nothing_else(
    locks: FlightLocks, holder: subprocess.Popen[str]
) -> None:
    assert not any(locks.try_hold(OID, block) for block in (-1, 3, 4))
    assert locks.try_hold(OID, 2)
    assert locks.try_hold(OID, 5)
    assert locks.try_hold(Oid("0" * 32, is_tree=True), 3)
    assert locks.try_hold(Oid("0" * 32, algorithm=MD5_DOS2UNIX), 3)


def test_what_it_releases_is_free(locks: FlightLocks, holder: subprocess.Popen[str]) -> None:
    assert holder.stdin is not None
    assert holder.stdout is not None
    print(3, file=holder.stdin, flush=True)
    assert holder.stdout.readline() == "released\n"
    assert locks.try_hold(OID, 3)
    assert not locks.try_hold(OID, 4)


def test_its_locks_die_with_it(locks: FlightLocks, holder: subprocess.Popen[str]) -> None:
    assert not locks.try_hold(OID, 3)
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert all(locks.try_hold(OID, block) for block in (-1, 3, 4))


def test_threads_of_one_process_exclude_each_other(locks: FlightLocks) -> None:
    assert locks.try_hold(OID)
    assert not locks.try_hold(OID)
    locks.release(OID)
    locks.release(OID)
    assert locks.try_hold(OID)


def test_two_open_files_of_one_process_are_as_two_processes(tmp_path: Path, locks: FlightLocks) -> None:
    other = FlightLocks(tmp_path)
    assert locks.try_hold(OID)
    assert not other.try_hold(OID)
    locks.close()
    assert other.try_hold(OID)
    other.close()


def test_a_file_that_was_cleared_away_is_made_anew(tmp_path: Path, locks: FlightLocks) -> None:
    (tmp_path / "fusefs" / "locks").unlink()
    other = FlightLocks(tmp_path)
    assert other.try_hold(OID)
    assert not locks.try_hold(OID)
    other.close()
    assert locks.try_hold(OID)


def test_without_a_directory_everything_can_be_held_once(tmp_path: Path) -> None:
    locks = FlightLocks(tmp_path / "missing")
    assert not locks.work
    assert locks.try_hold(OID)
    assert not locks.try_hold(OID)
    locks.release(OID)
    assert locks.try_hold(OID)


def test_a_cache_that_is_made_later_has_locks_from_then_on(tmp_path: Path) -> None:
    locks, other = FlightLocks(tmp_path / "late"), FlightLocks(tmp_path / "late")
    assert not locks.work
    (tmp_path / "late").mkdir()
    assert locks.work
    assert locks.try_hold(OID)
    assert not other.try_hold(OID)
    locks.close()
    other.close()


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("elsewhere")], ids=["fifo", "link"])
def test_only_a_regular_file_is_locked(tmp_path: Path, make: object) -> None:
    (tmp_path / "fusefs").mkdir()
    assert callable(make)
    make(tmp_path / "fusefs" / "locks")
    locks = FlightLocks(tmp_path)
    assert not locks.work
    assert not (tmp_path / "fusefs" / "elsewhere").exists()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs to be root")
def test_the_owner_of_the_cache_owns_the_file(tmp_path: Path) -> None:
    os.chown(tmp_path, 12345, 12346)
    tmp_path.chmod(0o770)
    FlightLocks(tmp_path).close()
    status = (tmp_path / "fusefs" / "locks").stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (12345, 12346, 0o660)
