"""Objects read through processes that stay: verified, bounded, and again when a process is gone."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import signal
import threading
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from store.errors import ObjectCorrupt, ObjectMissing, RepositoryUnusable, StoreTimeout
from store.git import cat_file, command
from store.git.cat_file import CatFile
from store.git.objects import Objects
from tests.store.git.conftest import Plain

MISSING = "1234567890123456789012345678901234567890"


@pytest.fixture
def objects(plain: Plain) -> Iterator[Objects]:
    found = Objects(plain.path / ".git/objects", "sha1")
    yield found
    found.close()


def put(plain: Plain, data: bytes) -> str:
    return plain("hash-object", "-w", "--stdin", stdin=data)


def children() -> set[int]:
    """The processes that this one has started and not waited for."""
    found: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread that has just ended
            found.update(map(int, (task / "children").read_text().split()))
    return found


def forge(plain: Plain, oid: str, data: bytes) -> None:
    """Put other bytes where the loose object `oid` lies, well compressed."""
    path = plain.path / ".git/objects" / oid[:2] / oid[2:]
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_bytes(zlib.compress(data))


@pytest.mark.parametrize("data", [b"", b"\n", b"x\0y\n", bytes(range(256)) * 5000], ids=len)
def test_bytes_come_as_they_are(data: bytes, plain: Plain, objects: Objects, tmp_path: Path) -> None:
    oid = put(plain, data)
    assert objects.size(oid) == len(data)
    assert objects.read(oid) == data
    assert objects.read(oid) == data
    with (tmp_path / "copy").open("wb") as file:
        assert objects.copy(oid, file.fileno()) == len(data)
    assert (tmp_path / "copy").read_bytes() == data
    assert objects.read_beginning(oid, 100) == data[:100]


def test_packs_and_what_is_added_later(plain: Plain, objects: Objects) -> None:
    contents = [b"%d\n" % number * 100 for number in range(300)]
    oids = [put(plain, data) for data in contents[:5]]
    commit = plain.commit("one", a="A\n")
    assert objects.read(oids[0]) == contents[0]
    plain("repack", "-a", "-d", "-k", "--quiet")
    batch = b"".join(b"blob\ndata %d\n%s\n" % (len(data), data) for data in contents)
    plain("-c", "fastimport.unpackLimit=0", "fast-import", "--quiet", stdin=batch)
    oids = [hashlib.sha1(b"blob %d\0%s" % (len(data), data)).hexdigest() for data in contents]
    assert objects.sizes([*oids, MISSING, commit]) == [*map(len, contents), None, objects.size(commit)]
    assert [objects.read(oid) for oid in oids] == contents


def test_what_is_not_there(plain: Plain, objects: Objects) -> None:
    for ask in (objects.size, objects.read, objects.header):
        with pytest.raises(ObjectMissing, match=MISSING):
            ask(MISSING)
    assert objects.sizes([]) == []
    objects.prefetch([MISSING])


@pytest.mark.parametrize(
    "oid", ["HEAD", "", MISSING[:39], MISSING.upper()[:39] + "A", MISSING + "\n", "0" * 64]
)
def test_only_whole_names_are_asked_for(oid: str, plain: Plain, objects: Objects) -> None:
    plain.commit("one")
    with pytest.raises(RepositoryUnusable, match="is not the name of a git object"):
        objects.read(oid)


def test_kinds(plain: Plain, objects: Objects) -> None:
    commit = plain.commit("one", a="A\n")
    assert objects.header(commit).kind == "commit"
    assert objects.read(commit, "commit").startswith(b"tree ")
    for other in ("blob", "tree", "tag"):
        with pytest.raises(ObjectCorrupt, match=f"is a commit, where a {other} is named"):
            objects.read(commit, other)
    with pytest.raises(ObjectCorrupt):
        objects.read_beginning(commit, 10)


def test_a_limit(plain: Plain, objects: Objects) -> None:
    oid = put(plain, b"x" * 1000)
    assert objects.read(oid, limit=1000) == b"x" * 1000
    with pytest.raises(RepositoryUnusable, match="has 1000 bytes; at most 999 are read"):
        objects.read(oid, limit=999)


def test_another_objects_bytes_are_never_handed_out(plain: Plain, objects: Objects, tmp_path: Path) -> None:
    oid = put(plain, b"right\n")
    forge(plain, oid, b"blob 6\0wrong\n")
    assert plain("cat-file", "blob", oid) == "wrong", "git itself does not notice"
    with pytest.raises(ObjectCorrupt, match="is not what its name says"):
        objects.read(oid)
    with (tmp_path / "copy").open("wb") as file, pytest.raises(ObjectCorrupt):
        objects.copy(oid, file.fileno())
    large = put(plain, bytes(1 << 20))
    forge(plain, large, b"blob %d\0" % (1 << 20) + bytes((1 << 20) - 1) + b"x")
    with pytest.raises(ObjectCorrupt):
        objects.read(large)
    assert objects.read(put(plain, b"fine")) == b"fine"


@pytest.mark.parametrize(
    "data", [b"blob 9\0short\n", b"blob 2\0long\n", b"blob x\0", b"none 6\0right\n", b"", b"blob 6"]
)
def test_damaged_objects(
    data: bytes, plain: Plain, objects: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    oid = put(plain, b"right\n")
    forge(plain, oid, data)
    # Over one that is shorter than it says git 2.39 ponders for ever.
    monkeypatch.setattr("store.git.objects.SECONDS", 1.0)
    with pytest.raises((ObjectCorrupt, ObjectMissing, StoreTimeout)):
        objects.read(oid)
    monkeypatch.setattr("store.git.objects.SECONDS", 60.0)
    assert objects.read(put(plain, b"fine")) == b"fine"


def test_a_truncated_object(plain: Plain, objects: Objects) -> None:
    oid = put(plain, random.Random(1).randbytes(300_000))
    path = plain.path / ".git/objects" / oid[:2] / oid[2:]
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(ObjectCorrupt, match="try git fsck"):
        objects.read(oid)
    assert objects.read(put(plain, b"fine")) == b"fine"


def test_a_process_that_died_is_replaced(plain: Plain, objects: Objects) -> None:
    oid = put(plain, b"A\n")
    before = children()
    assert objects.read(oid) == b"A\n"
    assert len(children() - before) == 1  # what it is comes with the content
    assert objects.size(oid) == 2
    started = children() - before
    assert len(started) == 2
    for number in started:
        os.kill(number, signal.SIGKILL)
    assert objects.read(oid) == b"A\n"
    assert objects.size(oid) == 2
    assert not started & children()
    objects.close()
    assert children() <= before
    assert objects.read(oid) == b"A\n"


def test_a_process_that_does_not_answer(
    plain: Plain, objects: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    oid = put(plain, b"A\n")
    before = children()
    objects.size(oid)
    for number in children() - before:
        os.kill(number, signal.SIGSTOP)
    monkeypatch.setattr("store.git.objects.SECONDS", 0.05)
    with pytest.raises(StoreTimeout, match=r"did not answer within 0\.05 s"):
        objects.size(oid)
    monkeypatch.setattr("store.git.objects.SECONDS", 60)
    assert objects.size(oid) == 2


def test_many_threads(plain: Plain, objects: Objects) -> None:
    contents = [random.Random(number).randbytes(number * 999) for number in range(40)]
    oids = [put(plain, data) for data in contents]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(objects.read, oids * 5)) == contents * 5


def test_waiting_for_another_thread_has_a_deadline(plain: Plain) -> None:
    oid = put(plain, b"A\n")
    process = CatFile(plain.path / ".git/objects", "sha1", "--batch-check")
    entered, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with process.asking(oid, seconds=30):
            process.take_header(oid)
            entered.set()
            leave.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    assert entered.wait(60)
    with pytest.raises(StoreTimeout, match="was busy"), process.asking(oid, seconds=0.01):
        pass
    leave.set()
    thread.join(60)
    process.close()


def test_what_cannot_be_written_ends_the_copy(plain: Plain, objects: Objects) -> None:
    oid = put(plain, b"x" * 1_000_000)
    before = children()
    with open("/dev/full", "wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        objects.copy(oid, file.fileno())
    assert objects.size(oid) == 1_000_000
    objects.close()
    assert children() <= before


def test_what_is_missing_is_fetched_once(plain: Plain) -> None:
    asked: list[Sequence[str]] = []

    def fetch(oids: Sequence[str]) -> None:
        asked.append(oids)
        for oid in oids:
            assert put(plain, contents[oid]) == oid

    names = [hashlib.sha1(b"blob 1\0%d" % digit).hexdigest() for digit in range(3)]
    contents = {oid: b"%d" % digit for digit, oid in enumerate(names)}
    objects = Objects(plain.path / ".git/objects", "sha1", fetch)
    try:
        assert objects.sizes(names) == [None] * 3
        assert objects.read(names[0]) == b"0"
        objects.prefetch([*names, *names])
        objects.prefetch(names)
        assert [objects.read(oid) for oid in names] == [b"0", b"1", b"2"]
    finally:
        objects.close()
    assert asked == [[names[0]], names[1:]]


def test_nothing_stays_behind(plain: Plain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = tmp_path / "tmp"
    directory.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(directory))
    objects = Objects(plain.path / ".git/objects", "sha1")
    oid = put(plain, b"A\n")
    assert objects.read(oid) == b"A\n"
    assert list(directory.iterdir()) == []
    objects.close()


def test_the_output_of_a_command_is_bounded(plain: Plain) -> None:
    oid = put(plain, b"x" * 100_000)
    for limit, fits in ((100_000, True), (99_999, False)):
        if fits:
            done = command.run(["cat-file", "blob", oid], directory=plain.path, limit=limit)
            assert len(done.output) == limit
        else:
            with pytest.raises(RepositoryUnusable, match="says more than 99999 bytes"):
                command.run(["cat-file", "blob", oid], directory=plain.path, limit=limit)


def test_a_command_has_a_deadline(plain: Plain, tmp_path: Path) -> None:
    """A FIFO that nobody writes to, where git looks for its configuration."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    plain("config", "include.path", str(fifo))
    before = children()
    with pytest.raises(StoreTimeout, match=r"git rev-parse did not end within 0\.2 s"):
        command.run(["rev-parse", "--git-dir"], directory=plain.path, seconds=0.2)
    assert children() <= before


def test_questions_fit_into_the_smallest_pipe() -> None:
    longest = 64 + len(" commit ") + len(str(1 << 63)) + 1
    assert cat_file.AT_ONCE * longest <= 5000
    assert cat_file.AT_ONCE * 65 <= 4096
