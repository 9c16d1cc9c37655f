"""Writing metafiles: the old one or the new one is there, and nothing else is left of it."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from store.commit.metafile import replace_file


def names(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()]


class Killed(BaseException):
    """Stands for the end of the process, behind which nothing is tidied up."""


def test_what_is_not_whole_has_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*_: object) -> None:
        assert names(tmp_path) == []
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", die)
        with pytest.raises(Killed):
            replace_file(tmp_path / "data.dvc", b"new")
    assert names(tmp_path) == []
    replace_file(tmp_path / "data.dvc", b"new")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"data.dvc": b"new"}


def test_the_next_writer_removes_what_a_killed_one_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / ("n" * 251 + ".dvc")  # as long as a name may be
    path.write_bytes(b"old")
    path.chmod(0o640)

    def die(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", die)
        with pytest.raises(Killed):
            replace_file(path, b"new")
    assert path.read_bytes() == b"old" and len(names(tmp_path)) == 2
    replace_file(path, b"newer")
    assert path.read_bytes() == b"newer" and names(tmp_path) == [path.name]
    assert path.stat().st_mode & 0o777 == 0o640


def test_writers_at_once_leave_one_file(tmp_path: Path) -> None:
    path = tmp_path / "data.dvc"
    failures: list[Exception] = []

    def write(data: bytes) -> None:
        try:
            for _ in range(20):
                replace_file(path, data)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(bytes([letter]) * 9,)) for letter in b"abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures and names(tmp_path) == [path.name]
    assert path.read_bytes() in (b"a" * 9, b"b" * 9, b"c" * 9)
