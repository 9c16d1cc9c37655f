"""`fusefs materialize`: all products of a view, made ahead of any reader, here or by a cluster."""

from __future__ import annotations

import errno
import hashlib
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import fusefs as fusefs_package
from fusefs import cluster, cluster_worker, sessions
from fusefs.cluster_worker import Surroundings, run_tasks
from fusefs.frame_sources import VersionFrames
from fusefs.materializing import MOST_IN_CALL, in_calls
from store.making.task_wire import task_to_wire
from store.making.tasks import Task
from store.media.recipe import parse_frames
from store.oid import Oid
from store.remotes.spec import RemoteSpec
from store.tree import UNKNOWN
from tests.cli.conftest import Command
from tests.cli.media_dataset import media_dataset
from tests.conftest import Fusefs, SmallDataset, small_dataset
from tests.patience import until
from tests.store.media.videos import Videos, full_decode


@pytest.fixture
def media(tmp_path: Path) -> SmallDataset:
    return media_dataset(tmp_path)


def products(cache: Path) -> set[str]:
    """The keys of what is kept."""
    derived = cache / "fusefs/derived"
    return {path.parent.name + path.name for path in derived.glob("??/*")}


def run(command: Command, dataset: SmallDataset, view: str, *words: str | Path, status: int = 0) -> Any:
    done = command("materialize", "--cache", dataset.cache, dataset.oid, "--view", view, "--json", *words)
    assert done.status == status, done.stderr
    return done.json


def remove_content(dataset: SmallDataset, path: str) -> None:
    digest = hashlib.md5(dataset.files[path], usedforsecurity=False).hexdigest()
    (dataset.cache / "files/md5" / digest[:2] / digest[2:]).unlink()


def test_all_frames_are_made_once(command: Command, media: SmallDataset, tmp_path: Path) -> None:
    made = run(command, media, "frames:jpg,scale=32x18")
    assert (made["sources"], made["pieces"], made["kept"], made["failures"]) == (3, 230, 0, {})
    assert made["made"] == made["products"] >= 3
    assert made["bytes"] > 0
    kept = products(media.cache)
    again = run(command, media, "frames:jpg,scale=32x18")
    assert (again["made"], again["kept"], again["bytes"]) == (0, made["products"], 0)
    assert products(media.cache) == kept


def test_what_is_made_is_what_readers_find(command: Command, media: SmallDataset, videos: Videos) -> None:
    run(command, media, "frames:npy", "--only", "clips/a.mp4")
    remove_content(media, "clips/a.mp4")
    with fusefs_package.open(media.oid, cache=media.cache) as files:
        frames = VersionFrames(files, parse_frames("npy"))
        full = full_decode(videos.path("b-frames"))
        for number, plain in enumerate(full):
            pixels = frames.read("clips/a.mp4", number)[128:]
            assert hashlib.md5(pixels, usedforsecurity=False).hexdigest() == plain.rgb
    sessions.close_all()


def test_what_is_missing_is_made_and_the_rest_is_passed_over(command: Command, media: SmallDataset) -> None:
    made = run(command, media, "frames:png", "--only", "clips/a.mp4")
    whole = products(media.cache)
    largest = max((media.cache / "fusefs/derived").glob("??/*"), key=lambda path: path.stat().st_size)
    largest.unlink()
    again = run(command, media, "frames:png", "--only", "clips/a.mp4")
    assert (again["made"], again["kept"]) == (1, made["products"] - 1)
    assert products(media.cache) == whole


def test_failures_are_told_by_class_and_stop_nothing(command: Command, tmp_path: Path) -> None:
    media = media_dataset(tmp_path, bad=True)
    remove_content(media, "clips/b.mkv")
    told = run(command, media, "frames:jpg", status=1)
    assert {kind: failure["failed"] for kind, failure in told["failures"].items()} == {
        "invalid": 1,
        "missing": 1,
    }
    assert "clips/text.mp4" in told["failures"]["invalid"]["example"]
    assert told["pieces"] == 130
    done = command("materialize", "--cache", media.cache, media.oid, "--view", "frames:jpg")
    assert done.status == 1
    assert "2 failed" in done.stdout
    assert "dvc fetch" in done.stderr


def test_chunks_of_videos_and_folders(command: Command, media: SmallDataset) -> None:
    told = run(command, media, "chunks:10")
    # 10 + 10 + 3 chunks of videos and 2 of images in both qualities, and the sizes of the images.
    assert (told["sources"], told["products"], told["failures"]) == (4, 2 * 25 + told["products"] % 2, {})
    assert run(command, media, "chunks:10", "--only", "pictures")["sources"] == 1
    assert run(command, media, "chunks:10", "--only", "pictures")["made"] == 0


def test_shards_need_nothing(command: Command, media: SmallDataset) -> None:
    done = command("materialize", "--cache", media.cache, media.oid, "--view", "shards:10")
    assert (done.status, len(done.lines)) == (0, 1)
    assert "nothing to make" in done.stdout


def test_an_interrupted_run_goes_on(fusefs: Fusefs, media: SmallDataset) -> None:
    words = ("materialize", "--cache", media.cache, media.oid, "--view", "frames:webp,scale=640x360")
    process = fusefs.start(*words, "--jobs", "1")
    try:
        # An index is there long before its frames.
        until(lambda: products(media.cache) or process.poll() is not None, "something is made")
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 128 + signal.SIGINT
    assert "interrupted" in out
    before = products(media.cache)
    fusefs(*words, "--only", "clips/turned.mp4", check=True)
    assert products(media.cache) >= before
    assert not [path for path in (media.cache / "fusefs/incoming").rglob("*") if path.is_file()]


def test_a_terminal_sees_progress(fusefs: Fusefs, media: SmallDataset) -> None:
    ours, theirs = pty.openpty()
    try:
        words = ("materialize", "--cache", str(media.cache), media.oid, "--view", "frames:webp,scale=640x360")
        process = subprocess.Popen(
            fusefs.command(*words),
            env={**fusefs.environment, "TERM": "xterm"},
            stdout=subprocess.PIPE,
            stderr=theirs,
        )
    finally:
        os.close(theirs)
    shown = b""
    try:
        while part := os.read(ours, 4096):
            shown += part
    except OSError as error:  # how Linux says that nobody has the terminal open any more
        assert error.errno == errno.EIO
    finally:
        os.close(ours)
    stdout, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert b"made" in stdout
    assert b"pieces/s" in shown


def task(number: int) -> Task:
    return Task("words", "1", "", (), number)


@pytest.mark.parametrize(("groups", "lanes"), [([1] * 100, 4), ([3] * 40, 2), ([8, 8, 2], 16), ([], 4)])
def test_calls_are_large_in_the_beginning_and_small_in_the_end(groups: list[int], lanes: int) -> None:
    tasks = [task(number) for number in range(sum(groups))]
    begins = [sum(groups[:place]) for place in range(len(groups))]
    parts = [tasks[begin : begin + size] for begin, size in zip(begins, groups, strict=True)]
    calls = list(in_calls(parts, len(tasks), lanes))
    assert [task for call in calls for task in call] == tasks
    for part in parts:
        assert any(all(task in call for task in part) for call in calls), "a group was parted"
    assert all(len(call) <= max(MOST_IN_CALL, *groups) for call in calls)
    sizes = [len(call) for call in calls]
    if len(parts) == 100:
        assert sizes[:4] == [8] * 4 and sizes[-8:] == [1] * 8


def test_a_cluster_makes_the_same(fusefs: Fusefs, media: SmallDataset, tmp_path: Path) -> None:
    words = ("--view", "frames:jpg,scale=32x18", "--json")
    other = small_dataset(tmp_path / "other", media.files)
    fusefs("materialize", "--cache", other.cache, other.oid, *words, check=True)
    done = fusefs(
        "materialize", "--cache", media.cache, media.oid, *words, "--dask", "--jobs", "2", check=True
    )
    assert '"pieces": 230' in done.stdout
    assert "Traceback" not in done.stderr
    assert products(media.cache) == products(other.cache)


class FileOrigin:
    """A file that is known by its oid."""

    def __init__(self, data: bytes) -> None:
        self.oid = Oid(hashlib.md5(data, usedforsecurity=False).hexdigest())
        self.name = "clip.mp4"


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A machine that sees no cache of ours: what it makes lies in its own."""
    for name in ("CACHE", "STATE", "DATA", "CONFIG"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / "elsewhere" / name))
    yield tmp_path / "elsewhere" / "CACHE/fusefs/objects"
    cluster_worker.close_all()


def surroundings(tmp_path: Path, remotes: list[RemoteSpec]) -> Surroundings:
    return Surroundings.of([tmp_path / "not/here"], [], remotes, offline=False)


def test_a_worker_elsewhere_reads_from_the_remote(
    media: SmallDataset, tmp_path: Path, elsewhere: Path
) -> None:
    remote = RemoteSpec("near", str(media.cache))
    origin: Any = FileOrigin(media.files["clips/a.mp4"])
    task = Task("index", "1", "", (origin,), pieces=1)
    wire = task_to_wire(task, lambda _: UNKNOWN)
    (outcome,) = run_tasks(surroundings(tmp_path, [remote]), [wire])
    assert (outcome.kind, outcome.pieces, outcome.kept) == ("", 1, False)
    assert products(elsewhere) == {task.key}
    (again,) = run_tasks(surroundings(tmp_path, [remote]), [wire])
    assert again.kept
    # What was deleted under a worker that lives on is made again, and at once.
    (path,) = (elsewhere / "fusefs/derived").glob("??/*")
    path.unlink()
    (third,) = run_tasks(surroundings(tmp_path, [remote]), [wire])
    assert (third.kind, third.pieces, third.kept) == ("", 1, False)
    assert products(elsewhere) == {task.key}
    origin = FileOrigin(media.files["clips/b.mkv"])
    wire = task_to_wire(Task("index", "1", "", (origin,), pieces=1), lambda _: UNKNOWN)
    (missing,) = run_tasks(surroundings(tmp_path, []), [wire])
    assert missing.kind == "missing"


def test_what_workers_are_told_is_not_shown(tmp_path: Path) -> None:
    spec = RemoteSpec("far", "s3://bucket/path", {"secret_access_key": "hush-hush"})
    told = surroundings(tmp_path, [spec])
    assert "hush" not in repr(told) + str(told)
    assert told == surroundings(tmp_path, [spec])


def test_a_worker_with_other_libraries_makes_nothing(
    media: SmallDataset, tmp_path: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = surroundings(tmp_path, [])
    monkeypatch.setattr(cluster_worker, "environment", lambda: "PyAV 1.0")
    origin: Any = FileOrigin(b"")
    (outcome,) = run_tasks(told, [task_to_wire(Task("index", "1", "", (origin,)), lambda _: UNKNOWN)])
    assert "PyAV 1.0" in outcome.message
    assert products(elsewhere) == set()


def test_a_cluster_that_is_not_there(
    command: Command, media: SmallDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = ("materialize", "--cache", media.cache, media.oid, "--view", "frames:jpg")
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 0.5)
    done = command(*place, "--dask", "tcp://127.0.0.1:9")
    assert (done.status, done.stdout) == (1, "")
    assert "no Dask cluster" in done.stderr
    assert "Traceback" not in done.stderr
    monkeypatch.setitem(sys.modules, "distributed", None)
    done = command(*place, "--dask")
    assert (done.status, done.stderr.count("\n")) == (1, 1)
    assert "fusefs[dask]" in done.stderr
