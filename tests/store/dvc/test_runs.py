from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from store.dvc import runs
from store.dvc.runs import find_run, read_runs
from store.errors import MetafileInvalid, NotTracked
from store.oid import Oid
from tests.repositories import initialize

DIGEST = "92ea5dc312bbab1be4c38c7b05d14fd6"
KEYS = ["ab" + "0" * 62, "ab" + "1" * 62, "cd" * 32]
BODY = f"cmd: make\nouts:\n- path: x\n  hash: md5\n  md5: {DIGEST}\n"


def _log(cache: Path, key: str, value: str, body: str = BODY, mtime: int = 0) -> Path:
    path = cache / "runs" / key[:2] / key / value
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(body)
    os.utime(path, (mtime, mtime))
    return path


def test_runs_of_the_real_dvc(tmp_path: Path, run: Callable[..., str]) -> None:
    initialize(tmp_path)
    (tmp_path / "src").write_text("1")
    run(
        tmp_path,
        "dvc",
        "stage",
        "add",
        "-n",
        "s",
        "-d",
        "src",
        "-o",
        "out",
        "-M",
        "m",
        "cp src out; cp src m",
    )
    run(tmp_path, "dvc", "repro", "--quiet")
    (tmp_path / "src").write_text("2")
    run(tmp_path, "dvc", "repro", "--quiet")
    log = read_runs(tmp_path / ".dvc/cache")
    assert not log.broken
    newest, oldest = log.runs
    assert newest.command == oldest.command == "cp src out; cp src m"
    assert [(dep.path, dep.oid, dep.size) for dep in newest.deps] == [
        ("src", Oid("c81e728d9d4c2f636f067f89cc14862c"), 1)
    ]
    assert {out.path for out in newest.outs} == {"out", "m"}
    assert {out.oid for out in oldest.outs} == {Oid("c4ca4238a0b923820dcc509a6f75849b")}
    assert newest.mtime >= oldest.mtime
    assert find_run(tmp_path / ".dvc/cache", newest.key[:8]) == newest


def test_the_newest_comes_first(tmp_path: Path) -> None:
    _log(tmp_path, KEYS[0], "1" * 64, mtime=100)
    _log(tmp_path, KEYS[0], "2" * 64, mtime=300)
    _log(tmp_path, KEYS[2], "3" * 64, "cmd:\n- one\n- two\n", mtime=200)
    log = read_runs(tmp_path)
    assert [(run.key[:2], run.value[0], run.mtime) for run in log.runs] == [
        ("ab", "2", 300),
        ("cd", "3", 200),
        ("ab", "1", 100),
    ]
    assert log.runs[1].command == "one && two"
    assert find_run(tmp_path, KEYS[0]).value == "2" * 64
    assert find_run(tmp_path, "CDCD").key == KEYS[2]


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("ab00", ""),
        ("abcd", "no run with the key abcd is logged"),
        ("ab", "is not the key of a run"),
        ("../../../x", "is not the key of a run"),
        ("g" * 8, "is not the key of a run"),
        ("a" * 65, "is not the key of a run"),
    ],
)
def test_finding_by_the_first_digits(tmp_path: Path, key: str, message: str) -> None:
    for number in KEYS:
        _log(tmp_path, number, "1" * 64)
    if not message:
        assert find_run(tmp_path, key).key == KEYS[0]
        return
    with pytest.raises(NotTracked, match=message):
        find_run(tmp_path, key)


def test_several_keys_that_begin_alike(tmp_path: Path) -> None:
    for end in "12":
        _log(tmp_path, "ab" * 31 + "0" + end, "1" * 64)
    with pytest.raises(NotTracked, match="the keys of 2 runs begin with abab"):
        find_run(tmp_path, "abab")


def test_what_is_broken_is_reported_and_what_is_no_run_passed_over(tmp_path: Path) -> None:
    good = _log(tmp_path, KEYS[2], "9" * 64)
    for number, body in enumerate(["outs: [\n", "[]\n", "outs: []\n", "cmd: {a: b}\n", "cmd: x\nouts: 3\n"]):
        _log(tmp_path, KEYS[0], str(number) * 64, body)
    _log(tmp_path, KEYS[1], "." + "a" * 22 + ".tmp")
    _log(tmp_path, "ef" + "g" * 62, "1" * 64)
    (tmp_path / "runs/file").touch()
    (tmp_path / "runs/xy").symlink_to(tmp_path / "runs/cd")
    (good.parent / ("8" * 64)).symlink_to(good)
    os.mkfifo(good.parent / ("7" * 64))
    log = read_runs(tmp_path)
    assert [run.value for run in log.runs] == ["9" * 64]
    assert len(log.broken) == 7
    assert all(broken.message.startswith(broken.path) and "\n" not in broken.message for broken in log.broken)
    with pytest.raises(MetafileInvalid, match="line 2: not YAML"):
        find_run(tmp_path, KEYS[0])


def test_no_cache_has_no_runs(tmp_path: Path) -> None:
    assert read_runs(tmp_path / "nothing") == read_runs(tmp_path) == runs.RunLog((), ())


def test_there_is_an_end_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "RUN_LIMIT", 2)
    monkeypatch.setattr(runs, "SIZE_LIMIT", 100)
    for key in KEYS:
        _log(tmp_path, key, "1" * 64, "cmd: " + "x" * 200)
    assert len(read_runs(tmp_path).broken) == 2
