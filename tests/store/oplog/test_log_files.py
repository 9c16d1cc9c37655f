"""Files of a directory of logs: whole, regular, and through no link."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from store.oplog import log_files
from store.oplog.logs import LogName

NAME = str(LogName("end", "1" * 32, "2" * 16, "3" * 32))


@pytest.fixture
def place(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield descriptor
    os.close(descriptor)


def test_only_regular_files_with_names_of_logs_are_logs(place: int, tmp_path: Path) -> None:
    log_files.write(place, NAME, [b"a", b"bc"])
    log_files.write(place, "name", b"near")
    (tmp_path / NAME.replace("3", "4")).symlink_to(tmp_path / NAME)
    (tmp_path / NAME.replace("3", "5")).mkdir()
    assert log_files.names(place) == {NAME: 3}
    assert log_files.read(place, NAME, 2) == b"ab"
    assert (log_files.peek(place, "name"), log_files.peek(place, "absent")) == (b"near", b"")
    for name in (NAME.replace("3", "4"), NAME.replace("3", "5"), "absent"):
        with pytest.raises(OSError):
            log_files.read(place, name, 9)
    os.mkfifo(tmp_path / "pipe")  # nobody waits for a writer
    with pytest.raises(FileNotFoundError):
        log_files.open_file(place, "pipe")
    log_files.remove(place, NAME)
    log_files.remove(place, NAME)
    assert log_files.names(place) == {}


def test_what_ends_early_leaves_what_was_there(place: int, tmp_path: Path) -> None:
    log_files.write(place, NAME, b"old")

    def parts() -> Iterator[bytes]:
        yield b"new"
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        log_files.write(place, NAME, parts())
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [(NAME, b"old")]
