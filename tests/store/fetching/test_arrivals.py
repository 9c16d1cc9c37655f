"""What was fetched comes to its place whole and durable, and what was not goes with its process."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from store.errors import CacheUnusable
from store.fetching.arrivals import QUARANTINED, QUARANTINED_BYTES, Arrival, Arrivals
from store.layouts import object_path
from store.oid import MD5_DOS2UNIX, Oid

OIDS = [Oid(f"{number:032x}") for number in range(40)]
LEGACY = Oid("ab" * 16, algorithm=MD5_DOS2UNIX)
TREE = Oid("cd" * 16, is_tree=True)


@pytest.fixture
def arrivals(tmp_path: Path) -> Arrivals:
    return Arrivals(tmp_path / "cache")


def bring(arrivals: Arrivals, oid: Oid, data: bytes) -> Path:
    descriptor, path = arrivals.new_file()
    os.write(descriptor, data)
    arrivals.admit(oid, path, descriptor)
    os.close(descriptor)
    return arrivals.root / object_path(oid)


def incoming(arrivals: Arrivals) -> list[str]:
    return sorted(path.name for path in (arrivals.root / "fusefs" / "incoming").iterdir())


@pytest.mark.parametrize("oid", [OIDS[0], LEGACY, TREE], ids=["md5", "md5-dos2unix", "manifest"])
def test_an_object_comes_to_the_place_where_dvc_looks_for_it(arrivals: Arrivals, oid: Oid) -> None:
    place = bring(arrivals, oid, b"bytes")
    assert place.read_bytes() == b"bytes"
    assert stat.S_IMODE(place.stat().st_mode) == 0o444
    assert incoming(arrivals) == []


def test_many_come_together_and_each_tells_what_became_of_it(arrivals: Arrivals) -> None:
    batch = []
    for oid in OIDS:
        descriptor, path = arrivals.new_file()
        os.write(descriptor, str(oid).encode())
        batch.append(Arrival(oid, path, descriptor))
    batch[7].path.unlink()
    failures = arrivals.admit_all(batch)
    assert [number for number, failure in enumerate(failures) if failure is not None] == [7]
    for arrival in batch:
        os.close(arrival.descriptor)
    there = [oid for oid in OIDS if (arrivals.root / object_path(oid)).exists()]
    assert there == OIDS[:7] + OIDS[8:]
    assert incoming(arrivals) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_objects_belong_to_whoever_owns_the_cache(arrivals: Arrivals) -> None:
    arrivals.root.mkdir()
    os.chown(arrivals.root, 1234, 5678)
    arrivals.root.chmod(0o2775)
    place = bring(arrivals, OIDS[0], b"bytes")
    for path in (place, place.parent, arrivals.root / "fusefs" / "incoming"):
        assert (path.stat().st_uid, path.stat().st_gid) == (1234, 5678), path
    assert stat.S_IMODE(place.parent.stat().st_mode) == 0o2775
    assert stat.S_IMODE(place.stat().st_mode) == 0o444


def test_the_umask_does_not_count(arrivals: Arrivals, tmp_path: Path) -> None:
    arrivals.root.mkdir(0o755)
    code = (
        "import os, sys; from pathlib import Path; os.umask(0o077)\n"
        "from store.fetching.arrivals import Arrivals; from store.oid import Oid\n"
        "arrivals = Arrivals(Path(sys.argv[1])); fd, path = arrivals.new_file()\n"
        "arrivals.admit(Oid('0' * 32), path, fd)"
    )
    subprocess.run([sys.executable, "-c", code, str(arrivals.root)], check=True, timeout=60)
    place = arrivals.root / object_path(OIDS[0])
    assert stat.S_IMODE(place.stat().st_mode) == 0o444
    assert stat.S_IMODE(place.parent.stat().st_mode) == 0o755


def test_a_complete_partial_of_any_mode_is_admitted(arrivals: Arrivals) -> None:
    arrivals.prepare()
    partial = arrivals.root / "fusefs" / "partial"
    partial.write_bytes(b"whole now")
    partial.chmod(0o600)
    descriptor = os.open(partial, os.O_RDWR)
    arrivals.admit(OIDS[0], partial, descriptor)
    os.close(descriptor)
    place = arrivals.root / object_path(OIDS[0])
    assert place.read_bytes() == b"whole now"
    assert stat.S_IMODE(place.stat().st_mode) == 0o444
    assert not partial.exists()


def test_what_a_killed_process_left_is_cleared_and_what_a_living_one_writes_is_not(
    arrivals: Arrivals,
) -> None:
    code = (
        "import sys; from pathlib import Path; from store.fetching.arrivals import Arrivals\n"
        "fd, path = Arrivals(Path(sys.argv[1])).new_file(); print(path.name, flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(arrivals.root)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        name = other.stdout.readline().strip()
        descriptor, path = arrivals.new_file()
        Arrivals(arrivals.root).prepare()
        assert incoming(arrivals) == sorted([name, path.name])
        other.kill()
    Arrivals(arrivals.root).prepare()
    assert incoming(arrivals) == [path.name]
    os.close(descriptor)
    Arrivals(arrivals.root).prepare()
    assert incoming(arrivals) == []


def test_a_cache_that_is_removed_meanwhile_is_made_again(arrivals: Arrivals, tmp_path: Path) -> None:
    bring(arrivals, OIDS[0], b"first")
    arrivals.root.rename(tmp_path / "moved")
    bring(arrivals, OIDS[1], b"second")  # still on its way to where the cache was
    place = bring(arrivals, OIDS[2], b"third")
    assert place.read_bytes() == b"third"
    place.unlink()
    place.parent.rmdir()
    assert bring(arrivals, OIDS[2], b"third").read_bytes() == b"third"


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CacheUnusable, match="file/cache"):
        Arrivals(tmp_path / "file" / "cache").new_file()


def test_nothing_is_written_through_a_link(arrivals: Arrivals, tmp_path: Path) -> None:
    arrivals.prepare()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (arrivals.root / "files").symlink_to(elsewhere)
    descriptor, path = arrivals.new_file()
    with pytest.raises(CacheUnusable):
        arrivals.admit(OIDS[0], path, descriptor)
    os.close(descriptor)
    assert list(elsewhere.iterdir()) == []


@pytest.fixture
def switched_often() -> Iterator[None]:
    """Threads take turns within a few calls, so that what one does falls between two of another's."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(usual)


def test_of_what_was_wrong_the_newest_few_are_kept_aside(arrivals: Arrivals) -> None:
    for number, oid in enumerate(OIDS[:20]):
        descriptor, path = arrivals.new_file()
        os.write(descriptor, str(oid).encode())
        os.utime(descriptor, (number, number))
        os.close(descriptor)
        arrivals.put_aside(oid, path)
    aside = arrivals.root / "fusefs" / "quarantine"
    assert sorted(path.name for path in aside.iterdir()) == [str(oid) for oid in OIDS[20 - QUARANTINED : 20]]
    descriptor, path = arrivals.new_file()
    os.truncate(descriptor, QUARANTINED_BYTES + 1)
    os.close(descriptor)
    arrivals.put_aside(OIDS[30], path)
    assert not (aside / str(OIDS[30])).exists()
    assert incoming(arrivals) == []


def test_many_threads_that_put_aside_at_once_leave_no_more(arrivals: Arrivals, switched_often: None) -> None:
    def put_aside(oid: Oid) -> None:
        descriptor, path = arrivals.new_file()
        os.close(descriptor)
        arrivals.put_aside(oid, path)

    aside = arrivals.root / "fusefs" / "quarantine"
    with ThreadPoolExecutor(8) as threads:
        for number in range(40):
            list(threads.map(put_aside, [Oid(f"{number:016x}{one:016x}") for one in range(8)]))
            assert len(list(aside.iterdir())) <= QUARANTINED


@pytest.mark.parametrize("kind", ["shorter", "link", "fifo", "directory"])
def test_what_lies_in_an_objects_place_and_is_not_it_is_kept_aside(
    arrivals: Arrivals, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    place = arrivals.root / object_path(OIDS[0])
    place.parent.mkdir(parents=True)
    if kind == "shorter":
        place.write_bytes(b"byt")
    elif kind == "link":
        place.symlink_to("/etc/passwd")
    elif kind == "fifo":
        os.mkfifo(place)
    else:
        place.mkdir()
    before = place.lstat()
    assert bring(arrivals, OIDS[0], b"bytes").read_bytes() == b"bytes"
    assert stat.S_ISREG(place.lstat().st_mode)
    aside = arrivals.root / "fusefs" / "quarantine" / str(OIDS[0])
    assert os.path.samestat(aside.lstat(), before)
    (line,) = caplog.messages
    assert str(OIDS[0]) in line and "fusefs/quarantine" in line


def test_an_object_that_somebody_else_has_brought_meanwhile_is_nothing_to_tell_of(
    arrivals: Arrivals, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        bring(arrivals, OIDS[0], b"bytes")
    assert not caplog.messages
    assert not (arrivals.root / "fusefs" / "quarantine").exists()
