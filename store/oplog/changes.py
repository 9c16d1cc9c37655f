"""What came into a cache and what left it since it was published: a file that its users append to.

`<cache>/fusefs/changes.jsonl`, of lines as logs have them, each with its xxh3-64:

    {"generation":"…32 digits…","xxh3":"…"}
    {"put":[["md5:…",20000],…],"gone":["md5:…",…],"xxh3":"…"}

There is none before a cache is published, and who finds none writes none. A batch of changes is one write at
the end, and begins with a line's end: one that was torn costs itself alone. A file that is too long is
removed; then whoever publishes the cache lists it again. What others do to a cache is not seen: what is
published is a hint.

Blocking; any thread and process.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from store.errors import CacheUnusable
from store.keeping.records import HOME, open_home
from store.oid import Oid
from store.oplog.logs import format_oid, is_sealed, parse_oid, seal
from store.ownership import OPEN_DIRECTORY

FILE: Final = "changes.jsonl"
LARGEST: Final = 32 << 20
"""Bytes: of half a million changes."""
GONE: Final = -1
_TOGETHER: Final = 4096
"""Changes of one line."""
_HEAD: Final = 128
"""Bytes: more than the first line has."""
_SLACK: Final = 1 << 20
"""By so much a file may be too long: by a line of somebody who has not seen it yet."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in a file of changes."""

    generation: str
    position: int


class _Begin(msgspec.Struct, frozen=True):
    generation: str


class _Batch(msgspec.Struct, frozen=True):
    put: list[tuple[str, int]] = []
    gone: list[str] = []


def note_changes(root: int, put: Iterable[tuple[Oid, int]] = (), gone: Iterable[Oid] = ()) -> None:
    """Write down what has just come into the cache whose open directory is `root`, with lengths in bytes, and
    what has left it. Where that is not wanted, or not possible, nothing is done."""
    with contextlib.suppress(OSError), ExitStack() as stack:
        home = os.open(HOME, OPEN_DIRECTORY, dir_fd=root)
        stack.callback(os.close, home)
        file = stack.enter_context(_opened(home, os.O_WRONLY | os.O_APPEND))
        come = [(format_oid(oid), size) for oid, size in put]
        left = [format_oid(oid) for oid in gone]
        for start in range(0, max(len(come), len(left)), _TOGETHER):
            batch = _Batch(come[start : start + _TOGETHER], left[start : start + _TOGETHER])
            os.write(file, b"\n" + seal(msgspec.json.encode(batch)))
        if os.fstat(file).st_size > LARGEST:
            os.unlink(FILE, dir_fd=home)


def begin_changes(cache: Path) -> Mark:
    """From now on changes are written down. Raises `CacheUnusable`."""
    try:
        with open_home(cache) as (home, ownership):
            with contextlib.suppress(FileNotFoundError), _opened(home, os.O_RDONLY) as file:
                mark = Mark(_generation(os.pread(file, _HEAD, 0)), os.fstat(file).st_size)
                if mark.generation and mark.position < LARGEST // 2:
                    return mark
            generation = secrets.token_hex(16)
            line = seal(msgspec.json.encode(_Begin(generation)))
            file = ownership.open_own_file(f".{generation}", home)
            try:
                os.write(file, line)
                os.rename(f".{generation}", FILE, src_dir_fd=home, dst_dir_fd=home)
            finally:
                os.close(file)
            return Mark(generation, len(line))
    except OSError as error:
        raise CacheUnusable(f"cannot write to the cache {str(cache)!r}: {error.strerror}") from None


def read_changes(cache: Path, since: Mark) -> tuple[Mapping[Oid, int], Mark] | None:
    """What has changed since then, with lengths, or `GONE`, and the mark of now; None where nobody knows."""
    try:
        with open_home(cache) as (home, _), _opened(home, os.O_RDONLY) as file:
            data = os.pread(file, LARGEST + _SLACK, 0)
    except OSError:
        return None
    generation = _generation(data[:_HEAD])
    if not generation or generation != since.generation or not since.position <= len(data) < LARGEST + _SLACK:
        return None
    changes: dict[Oid, int] = {}
    start = end = since.position
    for line in data[since.position :].split(b"\n"):
        stop = start + len(line)
        if is_sealed(line):
            changes.update(_read(line))
            end = stop
        elif stop < len(data):
            end = stop  # it was torn; the last one may still be being written
        start = stop + 1
    return changes, Mark(since.generation, end)


def _read(line: bytes) -> Iterator[tuple[Oid, int]]:
    with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError):
        batch = msgspec.json.decode(line, type=_Batch)
        for text, size in batch.put:
            oid = parse_oid(text)
            if oid is not None and size >= 0:
                yield oid, size
        for text in batch.gone:
            oid = parse_oid(text)
            if oid is not None:
                yield oid, GONE


def _generation(data: bytes) -> str:
    line = data.partition(b"\n")[0]
    if is_sealed(line):
        with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError):
            return msgspec.json.decode(line, type=_Begin).generation
    return ""


@contextlib.contextmanager
def _opened(home: int, how: int) -> Iterator[int]:
    """The file, opened. Raises `OSError`."""
    file = os.open(FILE, how | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=home)
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise FileNotFoundError(FILE)
        yield file
    finally:
        os.close(file)
