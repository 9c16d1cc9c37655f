"""Makers that do what real ones do when content is bad: they run in workers of the tests."""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgpack

from store.errors import MediaInvalid
from store.making.makers import MISSING, Made, Piece
from store.media.source import MediaSource

Arguments = Mapping[str, Any]
Sources = Sequence[MediaSource]


def word(number: int) -> bytes:
    return b"piece %d;" % number * 50


def words(arguments: Arguments, sources: Sources) -> Iterator[Made]:
    """Pieces."""
    yield from map(word, range(arguments["pieces"]))


def slow(arguments: Arguments, sources: Sources) -> Iterator[Made]:
    """Pieces, each after a while, as they are wanted."""
    for number in arguments[MISSING]:
        time.sleep(arguments.get("seconds", 0.02))
        yield Piece(number, word(number))


def paced(arguments: Arguments, sources: Sources) -> Iterator[Made]:
    """Pieces, for each of which a byte of the source is read first, as they are wanted."""
    for number in arguments[MISSING]:
        sources[0].read_at(0, 1)
        yield Piece(number, word(number))


def crash(arguments: Arguments, sources: Sources) -> Iterator[Made]:
    """One piece, then a bad pointer."""
    yield word(0)
    ctypes.string_at(0)


def hang(arguments: Arguments, sources: Sources) -> Iterator[Made]:
    """One piece, then nothing, with the interpreter's lock held and signals blocked."""
    yield word(0)
    ctypes.PyDLL(None).sleep(1000)


def devour(arguments: Arguments, sources: Sources) -> Iterator[Made]:
    """One piece, then all memory."""
    yield word(0)
    eaten = []
    while True:
        eaten.append(bytes(1 << 28))


def raise_bug(arguments: Arguments, sources: Sources) -> Iterator[Made]:
    """One piece, then an error that nobody expects."""
    yield word(0)
    raise ZeroDivisionError("a bug")


def chatter(arguments: Arguments, sources: Sources) -> Iterator[Made]:
    """More on standard error than anybody reads, as some libraries have it, and then a piece."""
    for _ in range(100):
        with contextlib.suppress(BlockingIOError):
            os.write(2, b"deprecated pixel format used\n" * 1000)
    yield word(0)


def refuse(arguments: Arguments, sources: Sources) -> Iterator[Made]:
    """The piece in the middle is damaged."""
    for number in range(arguments["pieces"]):
        yield MediaInvalid(f"piece {number} is damaged") if number == 1 else word(number)


def flood(arguments: Arguments, sources: Sources) -> Iterator[Made]:
    """More pieces than were announced."""
    yield from map(word, range(arguments["pieces"] + 2))


def copy(arguments: Arguments, sources: Sources) -> Iterator[Made]:
    """The first source in equal parts."""
    (source, *_), pieces = sources, arguments["pieces"]
    length = source.size // pieces
    for number in range(pieces):
        yield source.read_at(number * length, length)


def escape(arguments: Arguments, sources: Sources) -> Iterator[Made]:
    """Which of the things that a worker must not do it could do, and what it knows of its parent."""
    tries: dict[str, Callable[[], object]] = {
        "connect": lambda: socket.create_connection(("127.0.0.1", 9), 1.0),
        "unix": lambda: socket.socket(socket.AF_UNIX),
        "run": lambda: subprocess.run(["/bin/true"], check=True),
        "write": lambda: Path(arguments["target"]).write_text("taken over"),
        "trace": _trace,
    }
    done = []
    for name, attempt in tries.items():
        try:
            attempt()
        except OSError:
            continue
        done.append(name)
    files = list(Path("/proc/self/fd").iterdir())
    yield msgpack.packb([done, sorted(os.environ), len(files), os.getpid()])


def _trace() -> None:
    if ctypes.CDLL(None, use_errno=True).ptrace(0, 0, 0, 0) < 0:
        raise OSError
