"""What `commit` makes is what `dvc add` makes of the same folder, byte for byte."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from store.commit import Committed

Commit = Callable[..., Committed]
Run = Callable[..., str]
Objects = Callable[[Path], dict[str, bytes]]

ODD_FILES = {
    "plain.txt": b"plain\n",
    "crlf.txt": b"a\r\nb\r\n",
    "empty": b"",
    "no": b"1",
    "12:30": b"2",
    "007": b"3",
    "- x: [y]": b"4",
    "with space": b"5",
    'quote"and\\': b"6",
    "it's": b"6",
    "new\nline": b"7",
    "grüße/é": b"8",
    "gru\u0308\u00dfe": b"9",
    "\U0001f600.bin": b"10",
    ".hidden/.file": b"11",
    "deep/er/and/deeper/x": b"12",
    "large": bytes(range(256)) * 12_000,
    "B": b"13",
    "a": b"13",
}


@pytest.fixture
def odd(tmp_path: Path, write: Callable[..., Path]) -> Path:
    """A folder with names and kinds of files that are easily got wrong."""
    root = write(tmp_path / "odd", ODD_FILES)
    (root / "empty-directory").mkdir()
    (root / "plain.txt").chmod(0o755)
    (root / "link").symlink_to("deep/er/and/deeper/x")
    (root / "linked-directory").symlink_to("deep")
    return root


def twins(new_repository: Callable[[str], Path], source: Path, name: str) -> tuple[Path, Path]:
    """Two repositories that hold a copy of `source` under `name`."""
    roots = new_repository("ours"), new_repository("theirs")
    for root in roots:
        if source.is_dir():
            shutil.copytree(source, root / name, symlinks=True)
        else:
            shutil.copy2(source, root / name)
    return roots


def assert_same(ours: Path, theirs: Path, name: str, objects: Objects) -> None:
    assert (ours / f"{name}.dvc").read_bytes() == (theirs / f"{name}.dvc").read_bytes()
    assert (ours / ".gitignore").read_bytes() == (theirs / ".gitignore").read_bytes()
    assert objects(ours / ".dvc/cache") == objects(theirs / ".dvc/cache")
    for path in (ours / ".dvc/cache/files").rglob("*"):
        twin = theirs / path.relative_to(ours)
        assert path.stat().st_mode == twin.stat().st_mode, path


def test_a_folder(
    odd: Path, new_repository: Callable[[str], Path], run: Run, commit_: Commit, objects: Objects
) -> None:
    ours, theirs = twins(new_repository, odd, "odd")
    run(theirs, "dvc", "add", "--quiet", "odd")
    committed = commit_(ours / "odd")
    assert_same(ours, theirs, "odd", objects)
    assert committed.hashed == len(committed.entries) == len(ODD_FILES) + 1
    assert "up to date" in run(ours, "dvc", "status")
    shutil.rmtree(ours / "odd")
    run(ours, "dvc", "checkout", "--quiet")
    for name, content in ODD_FILES.items():
        assert (ours / "odd" / name).read_bytes() == content


@pytest.mark.parametrize(
    ("name", "mode"), [("run.sh", 0o755), ("notes [1] #!.txt", 0o644), ("no", 0o640), ("12:30:45", 0o644)]
)
def test_a_single_file(
    name: str,
    mode: int,
    tmp_path: Path,
    new_repository: Callable[[str], Path],
    run: Run,
    commit_: Commit,
    objects: Objects,
) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"#!/bin/sh\n")
    source.chmod(mode)
    ours, theirs = twins(new_repository, source, name)
    run(theirs, "dvc", "add", "--quiet", name)
    committed = commit_(ours / name)
    assert_same(ours, theirs, name, objects)
    assert not committed.oid.is_tree
    assert committed.entries[0].isexec == (mode == 0o755)


def test_an_empty_folder(
    tmp_path: Path, new_repository: Callable[[str], Path], run: Run, commit_: Commit, objects: Objects
) -> None:
    (tmp_path / "empty/inside").mkdir(parents=True)
    ours, theirs = twins(new_repository, tmp_path / "empty", "empty")
    run(theirs, "dvc", "add", "--quiet", "empty")
    assert str(commit_(ours / "empty").oid) == "d751713988987e9331980363e24189ce.dir"
    assert_same(ours, theirs, "empty", objects)


def test_dvcignore_above_the_folder(
    folder: Path, new_repository: Callable[[str], Path], run: Run, commit_: Commit, objects: Objects
) -> None:
    (folder / "b/.git").mkdir()
    (folder / "b/.git/config").write_text("not data")
    ours, theirs = twins(new_repository, folder, "photos")
    for root in (ours, theirs):
        (root / ".dvcignore").write_text("*.bin\n!keep.bin\n")
        (root / "photos/keep.bin").write_bytes(b"kept")
    run(theirs, "dvc", "add", "--quiet", "photos")
    commit_(ours / "photos")
    assert_same(ours, theirs, "photos", objects)


def test_an_existing_metafile_keeps_the_rest(
    folder: Path, new_repository: Callable[[str], Path], run: Run, commit_: Commit, objects: Objects
) -> None:
    ours, theirs = twins(new_repository, folder, "photos")
    old = (
        "# whose photos\n"
        "desc: holidays   # ours\n"
        "outs:\n"
        "- path: photos   # the folder\n"
        "  hash: md5\n"
        "  md5: d751713988987e9331980363e24189ce.dir\n"
        "  isexec: true\n"
        "  desc: two\n"
        "  push: false\n"
        "  cache: true\n"
        "meta:\n"
        "    who: [me,   you]\n"
    )
    for root in (ours, theirs):
        (root / "photos.dvc").write_text(old)
    run(theirs, "dvc", "add", "--quiet", "photos")
    commit_(ours / "photos")
    assert_same(ours, theirs, "photos", objects)
    assert "whose photos" in (ours / "photos.dvc").read_text()


def test_dvc_configuration_is_heeded(
    folder: Path, new_repository: Callable[[str], Path], tmp_path: Path, run: Run, commit_: Commit
) -> None:
    ours, theirs = twins(new_repository, folder, "photos")
    for root in (ours, theirs):
        cache = tmp_path / f"of {root.name}" / "cache"
        (root / ".dvc/config").write_text(f"[cache]\n    dir = {cache}\n    shared = group\n")
    run(theirs, "dvc", "add", "--quiet", "photos")
    commit_(ours / "photos")
    assert not (ours / ".dvc/cache/files").exists()
    assert "up to date" in run(ours, "dvc", "status")
    made = [tmp_path / "of theirs", *(tmp_path / "of theirs").rglob("*")]
    modes = {path.relative_to(tmp_path / "of theirs"): path.stat().st_mode & 0o7777 for path in made}
    assert set(modes.values()) == {0o2775, 0o444}
    assert {path: (tmp_path / "of ours" / path).stat().st_mode & 0o7777 for path in modes} == modes


def test_the_next_version(repository: Path, folder: Path, run: Run, commit_: Commit) -> None:
    shutil.copytree(folder, repository / "photos")
    first = commit_(repository / "photos")
    (repository / "photos/e").write_bytes(b"three\n")
    second = commit_(repository / "photos")
    assert second.oid != first.oid
    assert second.stored == 2
    assert not second.gitignored
    assert (repository / ".gitignore").read_text() == "/photos\n"
    assert "up to date" in run(repository, "dvc", "status")


def test_dvc_waits_for_us_and_we_for_dvc(repository: Path) -> None:
    """Both know the lock by the same file and the same call; dvc's library is the judge."""
    zc_lockfile = pytest.importorskip("zc.lockfile", reason="comes with dvc")
    from store.commit.locks import lock_dvc
    from store.errors import LockTimeout

    path = repository / ".dvc/tmp/lock"
    with lock_dvc(repository / ".dvc", 1, hardlink=False), pytest.raises(zc_lockfile.LockError):
        zc_lockfile.LockFile(str(path))
    theirs = zc_lockfile.LockFile(str(path))
    try:
        with pytest.raises(LockTimeout, match="lock"), lock_dvc(repository / ".dvc", 0, hardlink=False):
            pytest.fail("both have it")
        content = path.read_text()
    finally:
        theirs.close()
    with lock_dvc(repository / ".dvc", 1, hardlink=False):
        assert path.read_text() == content  # the same process, so the same pid
