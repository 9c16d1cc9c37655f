"""`commit` in every kind of project: what it makes, what it does again, what it leaves."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from store.commit import Committed, Progress, staging
from store.commit import state as state_module
from store.commit.scan import scan
from store.commit.staging import Hashed, find_again
from store.errors import ChangedMeanwhile, LockTimeout
from store.manifest import parse_manifest

Commit = Callable[..., Committed]
Run = Callable[..., str]
Objects = Callable[[Path], dict[str, bytes]]
Write = Callable[..., Path]


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that the test has just written count as written long ago."""
    real = state_module.clock_ns
    monkeypatch.setattr("store.commit.version.clock_ns", lambda: real() + 10_000_000_000)


def test_without_any_repository(
    folder: Path, home: Path, commit_: Commit, objects: Objects, tmp_path: Path
) -> None:
    committed = commit_(folder)
    cache = home / "data/fusefs"
    assert len(objects(cache)) == 4
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700
    assert committed.metafile == tmp_path / "photos.dvc"
    assert not (tmp_path / ".gitignore").exists()
    assert [(e.relpath, e.size) for e in committed.entries] == [
        ("a.txt", 4),
        ("b/c.txt", 4),
        ("b/d.bin", 5000),
    ]
    assert (committed.size, committed.hashed, committed.stored) == (5008, 3, 4)


def test_the_manifest_lists_the_entries(folder: Path, home: Path, commit_: Commit) -> None:
    committed = commit_(folder)
    oid = str(committed.oid)
    data = (home / "data/fusefs/files/md5" / oid[:2] / oid[2:]).read_bytes()
    assert [(e.relpath, e.md5) for e in parse_manifest(data, oid)] == [
        (e.relpath, e.md5) for e in committed.entries
    ]


def test_in_a_git_repository(tmp_path: Path, folder: Path, run: Run, commit_: Commit) -> None:
    run(tmp_path, "git", "init", "--quiet")
    assert commit_(folder).gitignored
    assert (tmp_path / ".gitignore").read_text() == "/photos\n"
    assert not commit_(folder).gitignored
    assert "photos/" not in run(tmp_path, "git", "status", "--short")
    assert "?? photos.dvc" in run(tmp_path, "git", "status", "--short")


def test_git_ignores_data_of_any_name(tmp_path: Path, run: Run, write: Write, commit_: Commit) -> None:
    """Also where git would take the end of the name for that of the line."""
    root = tmp_path / "project"
    root.mkdir()
    run(root, "git", "init", "--quiet")
    names = ["two  ", "new\nline", "return\r", "#hash", "!bang", "st*r[1]?", "back\\", " lead", "tab\t", "é"]
    for name in names:
        write(root / name, {"a": b"1"})
        assert commit_(root / name).gitignored
        assert not commit_(root / name).gitignored
    shown = run(root, "git", "status", "--short", "-z", "--untracked-files=all").split("\0")
    metafiles = {f"?? {name}.dvc".replace("\r", "\n") for name in names}  # as text is read
    assert set(shown) == {"", "?? .gitignore", *metafiles}


@pytest.mark.parametrize("before", ["x", "x\n", ""])
def test_the_gitignore_line_stands_alone(
    before: str, tmp_path: Path, folder: Path, run: Run, commit_: Commit
) -> None:
    run(tmp_path, "git", "init", "--quiet")
    (tmp_path / ".gitignore").write_text(before)
    commit_(folder)
    assert (tmp_path / ".gitignore").read_text().splitlines() == [*before.split(), "/photos"]


def test_what_git_ignores_already_needs_no_line(
    tmp_path: Path, folder: Path, run: Run, commit_: Commit
) -> None:
    run(tmp_path, "git", "init", "--quiet")
    (tmp_path / ".gitignore").write_text("/phot*/\n")
    assert not commit_(folder).gitignored


def test_a_cache_of_choice(
    folder: Path, tmp_path: Path, home: Path, commit_: Commit, objects: Objects
) -> None:
    commit_(folder, cache=tmp_path / "new/cache")
    assert len(objects(tmp_path / "new/cache")) == 4
    assert not (home / "data").exists()


@pytest.mark.usefixtures("later")
def test_the_second_commit_reads_nothing(folder: Path, commit_: Commit) -> None:
    first = commit_(folder)
    metafile = first.metafile.stat()
    second = commit_(folder)
    assert (second.oid, second.entries) == (first.oid, first.entries)
    assert (second.hashed, second.stored) == (0, 0)
    assert first.metafile.stat().st_ino == metafile.st_ino


@pytest.mark.usefixtures("later")
def test_a_change_is_seen_though_size_and_mtime_are_kept(folder: Path, commit_: Commit) -> None:
    first = commit_(folder)
    path = folder / "a.txt"
    times = path.stat()
    path.write_bytes(b"ONE\n")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    second = commit_(folder)
    assert second.hashed == 1
    assert second.oid != first.oid


def test_a_file_just_written_is_not_remembered(
    folder: Path, commit_: Commit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It could be written once more within the same tick of the clock."""
    newest = max(path.stat().st_ctime_ns for path in folder.rglob("*"))
    monkeypatch.setattr("store.commit.version.clock_ns", lambda: newest + 1)
    commit_(folder)
    assert commit_(folder).hashed == 3


@pytest.mark.usefixtures("later")
def test_what_became_an_object_is_known(folder: Path, tmp_path: Path, commit_: Commit) -> None:
    """A link changes its file's ctime. Of two that are the same the second one loses its link again."""
    (folder / "twin").write_bytes((folder / "a.txt").read_bytes())
    commit_(folder, cache=tmp_path / "cache", link="hardlink")
    assert (folder / "b/d.bin").stat().st_nlink == 2
    assert commit_(folder, cache=tmp_path / "cache", link="hardlink").hashed == 0


def test_who_writes_to_an_object_s_file_is_seen(folder: Path) -> None:
    files = scan(str(folder), lambda path, is_directory: False)
    linked = [Hashed(found, "0" * 32, "staged", True) for found in files]
    (folder / "a.txt").write_bytes(b"ONE\n")
    os.utime(folder / "a.txt", (1, 1))
    (folder / "b/c.txt").unlink()
    (folder / "b/d.bin").chmod(0o444)
    ((found, md5),) = find_again(folder, linked)
    assert (found.relpath, md5) == ("b/d.bin", "0" * 32)
    assert found.ctime_ns == (folder / "b/d.bin").stat().st_ctime_ns


@pytest.mark.parametrize("mtime", [1_000_000_000, 4_000_000_000], ids=["whole seconds", "in the future"])
def test_an_mtime_that_was_set_is_no_reason_to_read_again(
    mtime: int, folder: Path, commit_: Commit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As whoever unpacks an archive sets it. What every write changes is ctime."""
    for path in folder.rglob("*.*"):
        os.utime(path, (mtime, mtime))
    real = state_module.clock_ns
    monkeypatch.setattr("store.commit.version.clock_ns", lambda: real() + 1_000_000_000)
    commit_(folder)
    assert commit_(folder).hashed == 0


@pytest.mark.usefixtures("later")
def test_what_the_cache_lost_is_stored_again(
    folder: Path, home: Path, commit_: Commit, objects: Objects
) -> None:
    commit_(folder)
    cache = home / "data/fusefs"
    before = objects(cache)
    gone, damaged, *_ = sorted(path for path in cache.rglob("*") if path.is_file() and path.suffix != ".dir")
    gone.unlink()
    damaged.chmod(0o644)
    damaged.write_bytes(b"a wrong length, really")
    held = damaged.open("rb")
    committed = commit_(folder)
    assert (committed.hashed, committed.stored) == (2, 2)
    assert objects(cache) == before
    assert held.read() == b"a wrong length, really"  # never in place: whoever reads goes on
    held.close()


@pytest.mark.usefixtures("later")
@pytest.mark.parametrize("damage", ["garbage", "row"])
def test_a_damaged_state_is_put_aside(damage: str, folder: Path, state: Path, commit_: Commit) -> None:
    first = commit_(folder)
    if damage == "garbage":
        state.write_bytes(b"not a database, and long enough to look like something" * 100)
    else:
        import sqlite3

        with sqlite3.connect(state) as db:
            db.execute("UPDATE hashes SET md5 = ?", (bytes(16),))
        db.close()
    second = commit_(folder)
    assert (second.oid, second.hashed) == (first.oid, 3)
    assert state.with_name("hashes.sqlite.damaged").exists()
    commit_(folder)
    assert commit_(folder).hashed == 0


def test_the_state_is_private(folder: Path, state: Path, commit_: Commit) -> None:
    commit_(folder)
    assert stat.S_IMODE(state.stat().st_mode) == 0o600
    assert stat.S_IMODE(state.parent.stat().st_mode) == 0o700


def test_hard_links_only_where_asked_for(
    folder: Path, tmp_path: Path, commit_: Commit, objects: Objects
) -> None:
    (folder / "run").write_bytes(b"#!")
    (folder / "run").chmod(0o755)
    committed = commit_(folder, cache=tmp_path / "copied")
    assert {path.stat().st_nlink for path in folder.rglob("*") if path.is_file()} == {1}
    linked = commit_(folder, cache=tmp_path / "linked", link="hardlink")
    assert linked.oid == committed.oid
    assert objects(tmp_path / "linked") == objects(tmp_path / "copied")
    assert (folder / "a.txt").stat().st_nlink == 2
    assert stat.S_IMODE((folder / "a.txt").stat().st_mode) == 0o444
    # An object is never executable, so this one is a copy and the file stays as it was.
    assert stat.S_IMODE((folder / "run").stat().st_mode) == 0o755


def test_cache_type_asks_for_hard_links(repository: Path, write: Write, run: Run, commit_: Commit) -> None:
    write(repository / "photos", {"a": b"one"})
    run(repository, "dvc", "config", "cache.type", "hardlink,copy")
    commit_(repository / "photos")
    assert (repository / "photos/a").stat().st_nlink == 2
    assert "up to date" in run(repository, "dvc", "status")


def test_objects_are_readable_whatever_the_umask(folder: Path, tmp_path: Path, commit_: Commit) -> None:
    old = os.umask(0o077)
    try:
        commit_(folder, cache=tmp_path / "cache")
    finally:
        os.umask(old)
    modes = {stat.S_IMODE(p.stat().st_mode) for p in (tmp_path / "cache/files").rglob("*") if p.is_file()}
    assert modes == {0o444}


@pytest.mark.root
def test_root_writes_for_the_owner_of_the_cache(folder: Path, tmp_path: Path, commit_: Commit) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs to be root")
    cache = tmp_path / "cache"
    cache.mkdir()
    os.chown(cache, 12345, 23456)
    cache.chmod(0o2770)
    commit_(folder, cache=cache)
    for path in cache.rglob("*"):
        status = path.stat()
        assert (status.st_uid, status.st_gid) == (12345, 23456), path
        assert stat.S_IMODE(status.st_mode) == (0o2770 if path.is_dir() else 0o444), path


def test_names_that_are_not_utf8_are_warned_of(folder: Path, commit_: Commit) -> None:
    with open(os.fsencode(folder) + b"/caf\xe9", "wb") as file:
        file.write(b"x")
    committed = commit_(folder)
    assert len(committed.warnings) == 1
    assert "DVC cannot read" in committed.warnings[0]
    assert committed.entries[-1].relpath == "caf\udce9"


def test_leftovers_of_the_dead_are_cleared_and_of_the_living_are_not(
    folder: Path, tmp_path: Path, commit_: Commit
) -> None:
    rooms = tmp_path / "cache/fusefs/tmp"
    for name in ("dead", "alive"):
        (rooms / name).mkdir(parents=True)
        (rooms / name / "lock").touch()
        (rooms / name / "0-1").write_bytes(b"half an obj")
    (rooms / "barely-begun").mkdir()
    holder = subprocess.Popen(
        ["flock", rooms / "alive/lock", "sh", "-c", "echo held; exec cat"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert holder.stdout and holder.stdout.readline() == b"held\n"
        commit_(folder, cache=tmp_path / "cache")
        assert [path.name for path in rooms.iterdir()] == ["alive"]
        assert (rooms / "alive/0-1").exists()
    finally:
        holder.communicate(b"", timeout=60)


class Gate(Progress):
    """Holds a commit in its middle until it is let go."""

    def __init__(self) -> None:
        self.reached, self.open = threading.Event(), threading.Event()

    def begin(self, files: int, size: int) -> None:
        self.reached.set()
        assert self.open.wait(60)

    def update(self, files: int, size: int) -> None: ...

    def end(self) -> None: ...


@pytest.mark.parametrize("kind", ["dvc", "none"])
def test_two_commits_at_once(
    kind: str, new_repository: Callable[[str], Path], tmp_path: Path, write: Write, objects: Objects
) -> None:
    from store.commit import CommitOptions, commit

    root = new_repository("both") if kind == "dvc" else tmp_path
    folder = write(root / "photos", {"a": b"1", "b": b"2"})
    gate = Gate()
    done: list[Committed] = []
    cache = tmp_path / "cache"
    first = threading.Thread(
        target=lambda: done.append(commit(folder, CommitOptions(cache=cache, lock_timeout=60), gate))
    )
    first.start()
    try:
        assert gate.reached.wait(60)
        with pytest.raises(LockTimeout, match="another commit"):
            commit(folder, CommitOptions(cache=cache, lock_timeout=0))
        second = threading.Thread(
            target=lambda: done.append(commit(folder, CommitOptions(cache=cache, lock_timeout=60)))
        )
        second.start()
    finally:
        gate.open.set()
        first.join(60)
    second.join(60)
    assert len(done) == 2
    assert done[0].oid == done[1].oid
    assert len(objects(cache)) == 3


def test_the_hardlink_lock_keeps_dvc_out_and_waits_for_it(repository: Path, run: Run) -> None:
    from store.commit.locks import lock_dvc

    run(repository, "dvc", "config", "core.hardlink_lock", "true")
    (repository / "x").write_text("x")
    with lock_dvc(repository / ".dvc", 1, hardlink=True):
        assert "Unable to acquire lock" in run(repository, "dvc", "add", "x", status=1)
        with pytest.raises(LockTimeout), lock_dvc(repository / ".dvc", 0, hardlink=True):
            pytest.fail("two have it")
    run(repository, "dvc", "add", "x")


@pytest.mark.root
def test_root_leaves_a_repository_to_its_people(repository: Path, write: Write, commit_: Commit) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs to be root")
    write(repository / "photos", {"a": b"1"})
    (repository / ".dvc/tmp/lock").unlink(missing_ok=True)
    for path in (repository, *repository.rglob("*")):
        os.chown(path, 12345, 23456, follow_symlinks=False)
    commit_(repository / "photos")
    for path in (repository / "photos.dvc", repository / ".gitignore", *(repository / ".dvc").rglob("*")):
        assert (path.stat().st_uid, path.stat().st_gid) == (12345, 23456), path


def test_a_reflink_is_hashed_itself(
    folder: Path, tmp_path: Path, commit_: Commit, objects: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a stand-in for the file system's cloning, which most disks of test machines lack."""
    cloned = []

    def clone(source: int, target: int) -> bool:
        # A clone holds what the file had at that moment, here something else than what is read later.
        cloned.append(os.pwrite(target, os.pread(source, 1 << 20, 0).upper(), 0))
        return True

    monkeypatch.setattr(staging, "_clone", clone)
    (folder / "large").write_bytes(b"x")
    with pytest.raises(ChangedMeanwhile):
        monkeypatch.setattr(staging, "_clone", lambda source, target: os.pwrite(target, b"longer", 0) > 0)
        commit_(folder, cache=tmp_path / "cache")
    monkeypatch.setattr(staging, "_clone", clone)
    commit_(folder, cache=tmp_path / "cache")
    assert len(cloned) == 4
    for name, content in objects(tmp_path / "cache").items():
        digest = name.removeprefix("files/md5/").replace("/", "").removesuffix(".dir")
        assert hashlib.md5(content).hexdigest() == digest
        assert name.endswith(".dir") or content == content.upper()
