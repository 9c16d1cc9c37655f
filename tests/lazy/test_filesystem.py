"""Versions in Python without a mount: names, bytes, errors, and processes that fork."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import obstore
import pytest

import fusefs
from fusefs import sessions
from fusefs.filesystem import FusefsFileSystem
from store.fetching import breaker
from tests.lazy.conftest import FILES, Pushed
from tests.mount.datasets import Cache, entries_of, filler, md5
from tests.mount.mounts import ROOT, Mounter
from tests.patience import until
from tests.revisions.projects import Project
from tests.servers.nginx import nginx
from tests.servers.object_stores import ObjectStoreServer, moto, new_s3_bucket
from tests.store.remotes.test_object_stores import s3_writer

__all__ = ["moto"]

LARGE = filler(9_000_000, 7)
MANY = {f"{number % 3}/{number}.bin": filler(2_000, number) for number in range(200)}


@pytest.fixture(autouse=True)
def surroundings(mounter: Mounter, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As a user who has nothing; and afterwards nothing is left open in this process."""
    for name in [name for name in os.environ if name.startswith(("DVC_", "GIT_"))]:
        monkeypatch.delenv(name)
    for name, value in mounter.environment.items():
        monkeypatch.setenv(name, value)
    yield
    sessions.close_all()
    FusefsFileSystem.clear_instance_cache()


def dataset(tmp_path: Path, files: dict[str, bytes], *, here: bool = False) -> tuple[str, dict[str, Any]]:
    """An oid, and the options to read it: from a directory as remote, or all of it from the cache."""
    cache, remote = Cache(tmp_path / "cache"), Cache(tmp_path / "remote")
    for data in files.values():
        (cache if here else remote).put(data)
    oid = cache.put_manifest(entries_of(files))
    return oid, {"cache": cache.root, "remote": str(remote.root)}


def test_a_revision_is_listed_and_read_without_a_mount(pushed: Pushed) -> None:
    with fusefs.open(pushed.root / "data", rev="v1") as files:
        assert sorted(files.ls("", detail=False)) == ["a.txt", "sub"]
        assert files.find("") == sorted(FILES)
        assert {path: files.cat_file(path) for path in FILES} == FILES
        assert files.oid == pushed.oid and len(files.rev) == 40
        assert files.isdir("sub") and files.isfile("a.txt") and not files.exists("b.txt")
        assert files.glob("**/*.bin") == ["sub/b.bin"]
        assert [(place, set(below), set(names)) for place, below, names in files.walk("")] == [
            ("", {"sub"}, {"a.txt"}),
            ("sub", set(), {"b.bin", "empty"}),
        ]
        assert files.du("") == sum(map(len, FILES.values()))
        assert files.du("", total=False) == {path: len(data) for path, data in FILES.items()}
        assert files.info("sub/b.bin")["size"] == len(FILES["sub/b.bin"])
        assert files.checksum("a.txt") == files.ukey("a.txt") == md5(FILES["a.txt"])
        assert files.tail("sub/b.bin", 10) == FILES["sub/b.bin"][-10:]
    sessions.close_all()  # which waits for what is still on its way into the cache
    assert pushed.object(pushed.cache, md5(FILES["a.txt"])).exists()


def test_what_a_mount_tells_is_told(mounter: Mounter, tmp_path: Path) -> None:
    oid, options = dataset(tmp_path, FILES, here=True)
    mount = mounter.mount(oid, "--cache", options["cache"])
    with fusefs.open(oid, **options) as files:
        for path in ("a.txt", "sub", "sub/empty"):
            status, told = (mount.path / path).stat(), files.info(path)
            assert told["mode"] == status.st_mode and told["mtime"] == status.st_mtime
            assert files.modified(path).timestamp() == files.created(path).timestamp() == status.st_mtime
        assert {one["name"]: one["size"] for one in files.ls("sub")} == {"sub/b.bin": 10240, "sub/empty": 0}
    mount.umount()


def test_urls_name_a_version_and_a_path(pushed: Pushed, monkeypatch: pytest.MonkeyPatch) -> None:
    for url in (f"fusefs://{pushed.root}/data@v1!/a.txt", f"fusefs://{pushed.root}/data.dvc!/a.txt"):
        with fsspec.open(url) as file:
            assert file.read() == FILES["a.txt"]
        files, path = fsspec.url_to_fs(url)
        assert path == "a.txt" and files.unstrip_protocol(path) == url
    monkeypatch.chdir(pushed.root)
    with fsspec.open("fusefs://data@v1!/a.txt", "rt") as file:
        assert file.read() == "first\n"
    with fsspec.open("fusefs://sub/b.bin", target="data", rev="v1") as file:
        assert file.read() == FILES["sub/b.bin"]
    found = fsspec.open_files("fusefs://data@v1!/sub/*")
    assert [one.path for one in found] == ["sub/b.bin", "sub/empty"]
    with pytest.raises(ValueError, match="!/PATH"):
        fsspec.open("fusefs://data/a.txt")


def test_instances_are_one_where_they_mean_the_same(pushed: Pushed, monkeypatch: pytest.MonkeyPatch) -> None:
    def made(**options: Any) -> FusefsFileSystem:
        return fsspec.filesystem("fusefs", **options)

    monkeypatch.chdir(pushed.root)
    here = made(target="data", rev="v1")
    assert here is made(target=str(pushed.root / "data"), rev="v1", verify="blocks", offline=False)
    assert here is not made(target="data", rev="v1", offline=True)
    assert here is not made(target="data")
    monkeypatch.chdir(pushed.root / "more")
    assert here is not made(target="data", rev="v1")
    assert here is pickle.loads(pickle.dumps(here))
    with ThreadPoolExecutor(1) as thread:
        other = thread.submit(made, target=str(pushed.root / "data"), rev="v1").result()
    here.connect(), other.connect()
    assert other._session() is here._session()


def test_files_are_read_as_python_reads_them(tmp_path: Path) -> None:
    oid, options = dataset(tmp_path, {"large": LARGE, "text": b"one\ntwo\n\xff"})
    with fusefs.open(oid, **options) as files:
        with files.open("large") as file:
            assert file.size == len(LARGE)
            assert file.seek(5_000_000) == 5_000_000
            assert file.read(1000) == LARGE[5_000_000:5_001_000]
            assert file.seek(-10, os.SEEK_END) and file.read() == LARGE[-10:]
            assert file.seek(0) == 0 and file.read() == LARGE
        with files.open("text", "rt", errors="replace") as lines:
            assert list(lines) == ["one\n", "two\n", "\ufffd"]
        assert files.read_block("text", 0, 100, delimiter=b"\n") == b"one\ntwo\n\xff"
        ranges = files.cat_ranges(["large", "text", "none"], [0, 4, 0], [3, 7, 1])
        assert ranges[:2] == [LARGE[:3], b"two"] and isinstance(ranges[2], FileNotFoundError)
        with pytest.raises(FileNotFoundError):
            files.cat_ranges(["none"], 0, 1, on_error="raise")
        assert files.cat_file("large", 10, -10) == LARGE[10:-10]


def test_what_is_open_is_read_on_when_its_file_system_is_closed(tmp_path: Path) -> None:
    oid, options = dataset(tmp_path, {"large": LARGE, "small": b"small"})
    with nginx(tmp_path / "nginx", tmp_path / "remote") as server:
        with fusefs.open(oid, cache=options["cache"], remote=server.url) as files:
            large, small = files.open("large"), files.open("small")
            session = files._session()
        with large, small:
            assert large.read(100) == LARGE[:100] and small.read() == b"small"
            assert large.seek(8_000_000) and large.read(100) == LARGE[8_000_000:8_000_100]
        until(lambda: not session.is_open)
        assert files.cat_file("small") == b"small"  # opened anew
        with pytest.raises(ValueError, match="closed"):
            large.read(1)


def test_copies_are_whole_or_not_there(tmp_path: Path) -> None:
    oid, options = dataset(tmp_path, {**FILES, "large": LARGE})
    out = tmp_path / "out"
    with fusefs.open(oid, **options) as files:
        files.get("", f"{out}/", recursive=True)
        found = {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}
        assert found == {**FILES, "large": LARGE}
        with (tmp_path / "one").open("wb") as file:
            files.get_file("a.txt", file)
        assert (tmp_path / "one").read_bytes() == FILES["a.txt"]
        for full in ("/dev/full", str(tmp_path / "link")):
            if full != "/dev/full":
                Path(full).symlink_to("/dev/full")
            with pytest.raises(OSError, match="No space left"):
                files.get_file("large", full)
            assert Path(full).is_char_device()  # only what was made is removed
        with pytest.raises(FileNotFoundError):
            files.get_file("none", str(tmp_path / "none"))
        assert not (tmp_path / "none").exists()
        assert files.cat("sub", recursive=True) == {
            path: data for path, data in FILES.items() if path.startswith("sub/")
        }


def test_nothing_can_be_changed(tmp_path: Path) -> None:
    oid, options = dataset(tmp_path, FILES, here=True)
    with fusefs.open(oid, **options) as files:
        attempts: list[Callable[[], object]] = [
            lambda: files.open("a.txt", "wb"),
            lambda: files.open("new", "ab"),
            lambda: files.pipe_file("a.txt", b""),
            lambda: files.rm("a.txt"),
            lambda: files.rm_file("a.txt"),
            lambda: files.mkdir("new"),
            lambda: files.makedirs("new/new"),
            lambda: files.rmdir("sub"),
            lambda: files.cp_file("a.txt", "b.txt"),
            lambda: files.mv("a.txt", "b.txt"),
            lambda: files.touch("a.txt"),
            lambda: files.put_file(__file__, "new"),
        ]
        for attempt in attempts:
            with pytest.raises(OSError) as caught:
                attempt()
            assert caught.value.errno == errno.EROFS
        assert files.cat_file("a.txt") == FILES["a.txt"]


def test_errors_are_pythons_own(pushed: Pushed, tmp_path: Path) -> None:
    for target, rev in (("data", "none"), ("nothing", ""), ("nothing", "v1")):
        with pytest.raises(FileNotFoundError) as caught:
            fusefs.open(pushed.root / target, rev=rev)
        assert target in str(caught.value) and "Traceback" not in str(caught.value)
    with pytest.raises(ValueError, match="MD5"):
        (tmp_path / "bad.dvc").write_text("outs:\n- md5: nonsense\n  path: bad\n")
        fusefs.open(tmp_path / "bad.dvc")
    with pytest.raises(TypeError, match="revision"):
        fsspec.filesystem("fusefs", target="data", revision="v1")
    with pytest.raises(ValueError, match="verify"):
        fusefs.open("data", verify="never")
    oid, options = dataset(tmp_path, FILES)
    Cache(tmp_path / "remote").remove(md5(FILES["a.txt"]))
    with fusefs.open(oid, **options) as files:
        with pytest.raises(IsADirectoryError):
            files.cat_file("sub")
        with pytest.raises(IsADirectoryError):
            files.open("sub")
        with pytest.raises(NotADirectoryError):
            files.info("a.txt/below")
        with pytest.raises(OSError, match=r"a\.txt") as missing:
            files.open("a.txt")
        assert missing.value.errno == errno.EIO
        assert md5(FILES["a.txt"]) in str(missing.value)


def test_what_a_remote_refuses_and_what_may_not_be_asked_are_told_apart(tmp_path: Path) -> None:
    oid, options = dataset(tmp_path, FILES)
    with nginx(tmp_path / "nginx", tmp_path / "remote", login=("ann", "right")) as server:
        files = fusefs.open(oid, cache=options["cache"], remote=server.url)
        with pytest.raises(PermissionError):
            files.cat_file("a.txt")
        files = fusefs.open(oid, cache=options["cache"], remote=server.url, offline=True)
        with pytest.raises(OSError, match="offline") as caught:
            files.cat_file("a.txt")
        assert caught.value.errno == errno.ENETUNREACH


def test_symlinks_are_followed_within_the_version(pushed: Pushed, project: Project) -> None:
    targets = {"into": "data/sub", "file": "single.bin.dvc", "up": "../../etc", "loop": "loop", "gone": "x"}
    for name, target in {**targets, "root": "/etc"}.items():
        (pushed.root / name).symlink_to(target)
    project.commit("v2")
    with fusefs.open(f"{pushed.root}/.@v2") as files:
        assert files.cat_file("into/b.bin") == FILES["sub/b.bin"]
        assert files.info("file")["islink"] and files.info("file")["type"] == "file"
        assert files.cat_file("file") == (pushed.root / "single.bin.dvc").read_bytes()
        assert files.isdir("into") and {one["name"]: one["type"] for one in files.ls("")}["into"] == "link"
        for name in ("up", "gone", "root/passwd", "up/passwd"):
            assert not files.exists(name)
            with pytest.raises(FileNotFoundError):
                files.cat_file(name)
        with pytest.raises(OSError) as caught:
            files.info("loop")
        assert caught.value.errno == errno.ELOOP


def test_many_threads_read_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HEDGE_SECONDS", "UNKNOWN_HEDGE_SECONDS"):  # on a busy machine any answer may take long
        monkeypatch.setattr(breaker, name, 600.0)
    oid, options = dataset(tmp_path, MANY)
    log = tmp_path / "access.log"
    with nginx(tmp_path / "nginx", tmp_path / "remote", extra=f"access_log {log};") as server:
        files = fusefs.open(oid, cache=options["cache"], remote=server.url)
        together = threading.Barrier(16)

        def read_all(_: int) -> dict[str, bytes]:
            together.wait(60)
            return {path: files.cat_file(path) for path in MANY}

        with ThreadPoolExecutor(16) as threads:
            assert all(found == MANY for found in threads.map(read_all, range(16)))
        assert files.cat(list(MANY)) == MANY
    assert log.read_text().count('"GET /files') == len(MANY)


def read_and_tell(files: FusefsFileSystem, told: Any) -> None:
    """In a process of its own."""
    told.put({path: files.cat_file(path) for path in files.find("")})


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_processes_of_every_kind_read_what_they_are_given(tmp_path: Path, method: str) -> None:
    oid, options = dataset(tmp_path, FILES)
    context = multiprocessing.get_context(method)
    told = context.Queue()
    with fusefs.open(oid, **options) as files:
        files.cat_file("a.txt")
        children = [context.Process(target=read_and_tell, args=(files, told)) for _ in range(2)]
        for child in children:
            child.start()  # type: ignore[attr-defined]
        assert [told.get(timeout=60) for _ in children] == [FILES, FILES]
        for child in children:
            child.join(60)  # type: ignore[attr-defined]
            assert child.exitcode == 0  # type: ignore[attr-defined]
        assert files.cat_file("sub/b.bin") == FILES["sub/b.bin"]


def in_a_fork(work: Callable[[], object]) -> None:
    """Run `work` in a forked child; an alarm ends one that hangs."""
    child = os.fork()
    if not child:
        signal.alarm(60)
        try:
            work()
            os._exit(0)
        except BaseException as error:
            sys.__stderr__.write(f"in the child: {error!r}\n")
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0


def test_a_fork_reads_object_stores_that_its_parent_has_read(tmp_path: Path, moto: ObjectStoreServer) -> None:
    """What a data loader does: the parent looks at some, its forked workers at all."""
    oid, options = dataset(tmp_path, {**MANY, "large": LARGE})
    bucket = new_s3_bucket(moto)
    store = s3_writer(moto, bucket)
    objects = tmp_path / "remote/files/md5"
    for place in objects.rglob("*"):
        if place.is_file():
            obstore.put(store, f"files/md5/{place.relative_to(objects)}", place.read_bytes())
    config = Path(os.environ["XDG_CONFIG_HOME"]) / "dvc/config"
    config.parent.mkdir(parents=True)
    config.write_text(
        f"['remote \"store\"']\nurl = s3://{bucket}\nendpointurl = {moto.url}\n"
        "access_key_id = key\nsecret_access_key = secret\n"
    )
    paths = list(MANY)
    with fusefs.open(oid, cache=options["cache"], remote="store") as files:
        opened = files.open("large")
        assert opened.read(10) == LARGE[:10]
        assert files.cat_file(paths[0]) == MANY[paths[0]]

        def child() -> None:
            assert files.cat(paths) == MANY
            opened.seek(8_000_000)
            assert opened.read(1000) == LARGE[8_000_000:8_001_000]

        in_a_fork(child)
        assert files.cat(paths) == MANY
        in_a_fork(lambda: in_a_fork(child))


def test_a_fork_leaves_its_parents_locks_alone(tmp_path: Path) -> None:
    oid, options = dataset(tmp_path, FILES)
    with fusefs.open(oid, **options) as files:
        files.cat_file("a.txt")
        locks = tmp_path / "cache/fusefs/locks"

        def held() -> list[Path]:
            links = list(Path("/proc/self/fd").iterdir())
            return [link for link in links if link.is_symlink() and link.readlink() == locks]

        assert held()

        def child() -> None:
            assert not held()

        in_a_fork(child)


_WITHOUT_FUSE = """
import sys
sys.modules["pyfuse3"] = None  # what is imported now fails
before = set(sys.modules)
import fusefs
assert not {"trio", "fsspec", "obstore", "msgpack"} & (set(sys.modules) - before)
with fusefs.open(sys.argv[1], cache=sys.argv[2], remote=sys.argv[3]) as files:
    print(files.cat_file("a.txt").decode(), end="")
left = fusefs.open(sys.argv[1], cache=sys.argv[2], remote=sys.argv[3])
print(left.open("sub/b.bin").size)
"""


def test_neither_fuse_nor_its_library_is_needed(tmp_path: Path) -> None:
    """Nor anything closed by hand: what was fetched is in its place when the process has ended."""
    oid, options = dataset(tmp_path, FILES)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", _WITHOUT_FUSE, oid, options["cache"], options["remote"]],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, f"first\n{len(FILES['sub/b.bin'])}\n", "")
    cache = Cache(options["cache"])
    assert {cache.place(md5(FILES[path])).read_bytes() for path in ("a.txt", "sub/b.bin")} == {
        FILES["a.txt"],
        FILES["sub/b.bin"],
    }
    assert not list((options["cache"] / "fusefs/incoming").iterdir())


def test_sizes_that_nobody_knows_are_asked_for_once(tmp_path: Path) -> None:
    oid, options = dataset(tmp_path, MANY)
    log = tmp_path / "access.log"
    asked = []
    with nginx(tmp_path / "nginx", tmp_path / "remote", extra=f"access_log {log};") as server:
        for _ in range(2):
            with fusefs.open(oid, cache=options["cache"], remote=server.url) as files:
                assert files.du("") == 2000 * len(MANY)
                assert files.size("0/0.bin") == 2000
            sessions.close_all()
            server.await_log()
            asked.append(log.read_text().count('"HEAD /files'))
    assert asked[0] == asked[1] > 0
    assert '"GET /files' not in log.read_text()


def test_the_listing_is_fit_for_json(tmp_path: Path) -> None:
    oid, options = dataset(tmp_path, FILES, here=True)
    with fusefs.open(oid, **options) as files:
        assert json.loads(json.dumps(files.find("", detail=True))).keys() == FILES.keys()
