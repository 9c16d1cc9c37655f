"""What cannot be committed is refused in one line, and leaves nothing but whole objects."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from store.commit import Committed, Progress, ahead, staging
from store.errors import CacheUnusable, ChangedMeanwhile, InputError, MetafileInvalid, StoreError

Commit = Callable[..., Committed]
Run = Callable[..., str]
Objects = Callable[[Path], dict[str, bytes]]
Write = Callable[..., Path]


@pytest.fixture
def refused(commit_: Commit, tmp_path: Path, objects: Objects) -> Callable[..., str]:
    """`refused(path, error, …)`: the one line that a commit fails with; no metafile, no leftovers."""

    def refuse(path: Path, error: type[StoreError] = InputError, **options: object) -> str:
        cache = options.setdefault("cache", tmp_path / "cache")
        before = sorted(tmp_path.rglob("*.dvc"))
        with pytest.raises(error) as caught:
            commit_(path, **options)
        message = str(caught.value)
        assert message
        assert "\n" not in message
        assert sorted(tmp_path.rglob("*.dvc")) == before
        assert isinstance(cache, Path)
        if cache.is_dir() and not (cache / "a.txt").exists():
            for name, content in objects(cache).items():
                assert hashlib.md5(content).hexdigest() == name[10:].replace("/", "").removesuffix(".dir")
        return message

    return refuse


def test_nothing_there(tmp_path: Path, refused: Callable[..., str]) -> None:
    assert "does not exist" in refused(tmp_path / "nothing")


def test_a_metafile(tmp_path: Path, commit_: Commit, folder: Path) -> None:
    commit_(folder)
    with pytest.raises(InputError, match="name the data"):
        commit_(tmp_path / "photos.dvc")


@pytest.mark.parametrize("kind", ["FIFO", "socket", "character device"])
def test_special_files(kind: str, folder: Path, refused: Callable[..., str]) -> None:
    path = folder / "b/special"
    if kind == "FIFO":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server, contextlib.chdir(folder):
            server.bind("b/special")
    else:
        path.symlink_to("/dev/null")
    message = refused(folder)
    assert f"is a {kind}" in message
    assert "b/special" in message


def test_a_fifo_alone(tmp_path: Path, refused: Callable[..., str]) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "is a FIFO" in refused(tmp_path / "pipe")


@pytest.mark.parametrize("target", ["nowhere", "loop"])
def test_a_broken_link(target: str, folder: Path, refused: Callable[..., str]) -> None:
    (folder / "loop").symlink_to(target)
    assert "broken symbolic link" in refused(folder)


def test_a_link_to_a_folder(folder: Path, tmp_path: Path, refused: Callable[..., str]) -> None:
    (tmp_path / "link").symlink_to(folder)
    assert "symbolic link to a directory" in refused(tmp_path / "link")


def test_a_folder_behind_a_link(repository: Path, write: Write, refused: Callable[..., str]) -> None:
    write(repository / "real/photos", {"a": b"1"})
    (repository / "link").symlink_to("real")
    assert "behind the symbolic link" in refused(repository / "link/photos")


def test_a_dvcignore_inside(folder: Path, refused: Callable[..., str]) -> None:
    (folder / "b/.dvcignore").write_text("*.tmp\n")
    assert ".dvcignore cannot be part of a version" in refused(folder)


def test_an_ignored_folder(repository: Path, write: Write, refused: Callable[..., str]) -> None:
    write(repository / "photos", {"a": b"1"})
    (repository / ".dvcignore").write_text("/photos\n")
    assert "hidden from DVC" in refused(repository / "photos")


def test_folder_in_the_cache_and_cache_in_the_folder(folder: Path, refused: Callable[..., str]) -> None:
    assert "contains the cache" in refused(folder, cache=folder / "cache")
    assert "lies inside the cache" in refused(folder / "b", cache=folder)
    assert "the cache" in refused(folder, cache=folder)


@pytest.mark.parametrize("kind", ["dvc", "git", "none"])
def test_overlaps(
    kind: str, new_repository: Callable[[str], Path], tmp_path: Path, write: Write, run: Run, commit_: Commit
) -> None:
    root = new_repository("overlaps") if kind == "dvc" else tmp_path
    if kind == "git":
        run(root, "git", "init", "--quiet")
    write(root / "photos", {"a/x": b"1", "b/y": b"2"})
    cache = tmp_path / "cache"
    commit_(root / "photos/a", cache=cache)
    with pytest.raises(InputError, match=r"a\.dvc"):
        commit_(root / "photos", cache=cache)
    (root / "photos/a.dvc").unlink()
    commit_(root / "photos", cache=cache)
    with pytest.raises(InputError, match=r"photos\.dvc' tracks"):
        commit_(root / "photos/b", cache=cache)


def test_git_has_it_already(tmp_path: Path, folder: Path, run: Run, refused: Callable[..., str]) -> None:
    run(tmp_path, "git", "init", "--quiet")
    run(tmp_path, "git", "add", "photos")
    assert "git rm -r --cached" in refused(folder)


def test_git_ignores_the_metafile(
    tmp_path: Path, folder: Path, run: Run, refused: Callable[..., str]
) -> None:
    run(tmp_path, "git", "init", "--quiet")
    (tmp_path / ".gitignore").write_text("*.dvc\n")
    assert "ignored by git" in refused(folder)


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("outs: [", MetafileInvalid, "not YAML"),
        ("<<<<<<< HEAD\nouts: []\n", MetafileInvalid, "merge conflict"),
        ("outs:\n- path: other\n", InputError, "tracks something else"),
        ("deps:\n- path: x\nouts:\n- path: photos\n", InputError, "imported"),
        ("outs:\n- path: photos\n  cache: false\n", InputError, "in git"),
    ],
)
def test_a_metafile_that_is_not_ours(
    text: str, error: type[StoreError], words: str, folder: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    (tmp_path / "photos.dvc").write_text(text)
    assert words in refused(folder, error)
    assert (tmp_path / "photos.dvc").read_text() == text


def test_a_metafile_that_is_no_file(folder: Path, tmp_path: Path, refused: Callable[..., str]) -> None:
    (tmp_path / "photos.dvc").symlink_to("/etc/hostname")
    assert "symbolic link" in refused(folder)
    (tmp_path / "photos.dvc").unlink()
    (tmp_path / "photos.dvc").mkdir()
    assert "not a regular file" in refused(folder)


def test_a_name_that_no_metafile_can_hold(tmp_path: Path, refused: Callable[..., str]) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    path.mkdir()
    assert "not UTF-8" in refused(path)


@pytest.mark.parametrize("size", [100, 3 << 20])
@pytest.mark.parametrize("change", ["overwrite", "append", "truncate", "replace by fifo"])
def test_a_file_that_changes_meanwhile(
    change: str,
    size: int,
    folder: Path,
    refused: Callable[..., str],
    commit_: Commit,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The writer comes when the file is open and its hash begun."""
    path = folder / "b/changing"
    path.write_bytes(bytes(size))
    real = staging.new_md5

    def write_first(data: bytes | memoryview = b"") -> hashlib._Hash:
        match change:
            case "overwrite":
                with path.open("r+b") as file:
                    file.write(b"other")
            case "append":
                with path.open("ab") as file:
                    file.write(b"more")
            case "truncate":
                os.truncate(path, 1)
            case _:
                path.unlink(missing_ok=True)
        return real(data)

    monkeypatch.setattr(staging, "new_md5", write_first)
    for name in ("a.txt", "b/c.txt", "b/d.bin"):
        (folder / name).unlink()
    message = refused(folder, ChangedMeanwhile)
    assert "b/changing" in message
    monkeypatch.undo()


def test_a_fifo_in_the_place_of_a_file_does_not_make_us_wait(
    folder: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = ahead._open

    def swap_first(path: str, found: ahead.Found) -> int:
        if path.endswith("a.txt"):
            Path(path).unlink()
            os.mkfifo(path)
        return real(path, found)

    monkeypatch.setattr(ahead, "_open", swap_first)
    assert "a.txt" in refused(folder, ChangedMeanwhile)


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    if os.geteuid() != 0:
        pytest.skip("needs to be root")
    path = tmp_path / "tiny"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", path], check=True, timeout=60)
    yield path
    subprocess.run(["umount", path], check=True, timeout=60)


@pytest.mark.root
@pytest.mark.parametrize("size", [100_000, 3 << 20])
def test_a_full_disk(
    size: int, folder: Path, tiny_disk: Path, write: Write, refused: Callable[..., str]
) -> None:
    write(folder, {f"c/{i}": os.urandom(size) for i in range(12)})
    message = refused(folder, CacheUnusable, cache=tiny_disk / "cache")
    assert "No space left" in message
    assert str(tiny_disk) in message


@pytest.mark.root
@pytest.mark.parametrize("before", [None, b"#" * 4092 + b"\n"], ids=["none", "a page but three bytes"])
def test_a_full_disk_leaves_the_gitignore_as_it_was(
    before: bytes | None, tiny_disk: Path, tmp_path: Path, run: Run, refused: Callable[..., str]
) -> None:
    """Half a line would hide something else."""
    run(tiny_disk, "git", "init", "--quiet")
    (tiny_disk / "photos").mkdir()
    if before is not None:
        (tiny_disk / ".gitignore").write_bytes(before)
    with open(tiny_disk / "the rest", "wb", buffering=0) as rest, contextlib.suppress(OSError):
        while True:
            rest.write(bytes(4096))
    message = refused(tiny_disk / "photos", cache=tmp_path / "cache")
    assert ".gitignore" in message and "No space left" in message
    found = (tiny_disk / ".gitignore").read_bytes() if (tiny_disk / ".gitignore").exists() else None
    assert found == before


@pytest.mark.parametrize("inside", [[], ["file"]], ids=["empty", "not empty"])
def test_a_directory_in_the_place_of_an_object(
    inside: list[str], folder: Path, tmp_path: Path, commit_: Commit
) -> None:
    place = tmp_path / "cache/files/md5/5b/bf5a52328e7439ae6e719dfe712200"  # one
    place.mkdir(parents=True)
    for name in inside:
        (place / name).touch()
    with pytest.raises(CacheUnusable, match=f"Is a directory .*{place.name}"):
        commit_(folder, cache=tmp_path / "cache")
    assert not (tmp_path / "photos.dvc").exists()
    assert [path.name for path in place.iterdir()] == inside


@pytest.mark.parametrize("kind", ["fifo", "link"])
def test_what_is_no_object_in_the_place_of_one(
    kind: str, folder: Path, tmp_path: Path, commit_: Commit, objects: Objects
) -> None:
    place = tmp_path / "cache/files/md5/5b/bf5a52328e7439ae6e719dfe712200"
    place.parent.mkdir(parents=True)
    (tmp_path / "elsewhere").write_bytes(b"one\n")
    if kind == "fifo":
        os.mkfifo(place)
    else:
        place.symlink_to(tmp_path / "elsewhere")
    commit_(folder, cache=tmp_path / "cache")
    assert not place.is_symlink() and len(objects(tmp_path / "cache")) == 4


def test_a_cache_that_is_a_file(folder: Path, tmp_path: Path, refused: Callable[..., str]) -> None:
    (tmp_path / "file").write_text("")
    assert "cannot write to the cache" in refused(folder, CacheUnusable, cache=tmp_path / "file")


@pytest.mark.parametrize("planted", ["files", "files/md5", "files/md5/5b", "fusefs", "fusefs/tmp"])
def test_links_in_a_shared_cache_lead_nowhere(
    planted: str, tmp_path: Path, write: Write, commit_: Commit
) -> None:
    """`5b` is where the object of `one\\n` belongs."""
    content = b"one\n"
    digest = hashlib.md5(content).hexdigest()
    link = tmp_path / "cache" / planted.replace("5b", digest[:2])
    link.parent.mkdir(parents=True)
    (tmp_path / "victim").mkdir()
    link.symlink_to(tmp_path / "victim")
    write(tmp_path / "data", {"a": content})
    with pytest.raises(CacheUnusable):
        commit_(tmp_path / "data", cache=tmp_path / "cache")
    assert list((tmp_path / "victim").iterdir()) == []


def test_a_file_that_may_not_be_read(folder: Path, tmp_path: Path) -> None:
    (folder / "b/c.txt").chmod(0)
    script = (
        "from pathlib import Path; from store.commit import CommitOptions, commit\n"
        "from store.errors import InputError\n"
        "try: commit(Path('photos'), CommitOptions(cache=Path('cache')))\n"
        "except InputError as error: print(error)\n"
    )
    # Root reads everything, unless it has no capabilities.
    powerless = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []
    done = subprocess.run(
        [*powerless, sys.executable, "-c", script],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "cannot read" in done.stdout, done.stderr
    assert "b/c.txt" in done.stdout


class Interrupting(Progress):
    """Ctrl-C comes when the first files are read."""

    def begin(self, files: int, size: int) -> None: ...

    def update(self, files: int, size: int) -> None:
        signal.raise_signal(signal.SIGINT)

    def end(self) -> None: ...


def test_an_interrupt_leaves_nothing(folder: Path, tmp_path: Path, write: Write, objects: Objects) -> None:
    from store.commit import CommitOptions, commit

    write(folder, {f"many/{i}": b"%d" % i for i in range(2000)})
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            commit(folder, CommitOptions(cache=tmp_path / "cache"), Interrupting())
    finally:
        signal.signal(signal.SIGINT, before)
    objects(tmp_path / "cache")  # fails for what is not an object
    assert not (tmp_path / "photos.dvc").exists()
    assert len(commit(folder, CommitOptions(cache=tmp_path / "cache")).entries) == 2003
