"""The run cache: what DVC logged of the stages that it ran, kept beside the objects, in no commit.

    <cache>/runs/<key[:2]>/<key>/<value>

`key` is a hash of the command, its dependencies and the names of its outputs; `value` of all that and
the outputs' hashes. A file is the YAML of one stage as `dvc.lock` has it. The newest is the one that
counts. A cache may be shared: whatever lies there is hostile, and what is no logged run is passed over.

Callers: `fusefs runs`, and targets `run:KEY`. Blocking; frozen results, any thread.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

from store.dvc.discovery import Broken
from store.dvc.document import Mapping, parse_document
from store.dvc.fields import fault, read_mappings
from store.dvc.files import read_regular
from store.dvc.metafile import Output, parse_output
from store.errors import MetafileInvalid, NotTracked

RUNS: Final = "runs"
RUN_LIMIT: Final = 100_000
"""Runs that are listed of one cache."""
SIZE_LIMIT: Final = 4 << 20
"""Bytes of one logged run: a stage of some ten thousand dependencies."""

_HASH: Final = re.compile(r"[0-9a-f]{64}")
_KEY_PREFIX: Final = re.compile(r"[0-9a-f]{4,64}")


@dataclass(frozen=True, slots=True)
class Run:
    """A logged run of a stage."""

    key: str
    """64 hex digits: what was run, on what."""
    value: str
    """64 hex digits: and what came of it."""
    command: str
    """Several commands are joined with `&&`, as DVC runs them."""
    deps: tuple[Output, ...]
    """As outputs, because they are written like them. Paths are relative to the stage's directory."""
    outs: tuple[Output, ...]
    mtime: float
    """When it was logged, seconds since 1970."""


@dataclass(frozen=True, slots=True)
class RunLog:
    """The runs of a cache, the newest first, and what could not be read, a line each."""

    runs: tuple[Run, ...]
    broken: tuple[Broken, ...]


def read_runs(cache: Path) -> RunLog:
    """Every logged run of the cache directory `cache`, at most `RUN_LIMIT`. Raises nothing."""
    return _read_log(_find(cache, ""))


def find_run(cache: Path, key: str) -> Run:
    """The newest run whose key begins with `key`, four or more hex digits.

    Raises `NotTracked` where there is none, or where several keys begin so; `MetafileInvalid` where
    none that is there can be read.
    """
    prefix = key.lower()
    if not _KEY_PREFIX.fullmatch(prefix):
        raise NotTracked(f"{key!r} is not the key of a run: that has 4 to 64 hex digits")
    log = _read_log(_find(cache, prefix))
    keys = sorted({run.key for run in log.runs})
    if len(keys) > 1:
        raise NotTracked(
            f"the keys of {len(keys)} runs begin with {key}; give more digits: {keys[0][:16]}, …"
        )
    if not log.runs and log.broken:
        raise MetafileInvalid(log.broken[0].message)
    if not log.runs:
        raise NotTracked(f"no run with the key {key} is logged in {cache}")
    return log.runs[0]


def _read_log(places: Iterator[tuple[Path, str, str]]) -> RunLog:
    runs: list[Run] = []
    broken: list[Broken] = []
    for path, key, value in islice(places, RUN_LIMIT):
        try:
            run = _read_run(path, key, value)
        except MetafileInvalid as error:
            broken.append(Broken(str(path), str(error)))
        else:
            if run:
                runs.append(run)
    runs.sort(key=lambda run: (-run.mtime, run.key, run.value))
    return RunLog(tuple(runs), tuple(broken))


def _find(cache: Path, prefix: str) -> Iterator[tuple[Path, str, str]]:
    """The files that may be runs: path, key, value. Links are not followed."""
    for short in _directories(cache / RUNS):
        if len(short.name) != 2 or not short.name.startswith(prefix[:2]):
            continue
        for directory in _directories(short):
            key = directory.name
            if _HASH.fullmatch(key) and key.startswith(prefix) and key[:2] == short.name:
                for name in sorted(_names(directory)):
                    if _HASH.fullmatch(name):
                        yield directory / name, key, name


def _directories(directory: Path) -> list[Path]:
    """The directories in a directory, sorted; none where it cannot be read."""
    return [path for name in sorted(_names(directory)) if _is_real_directory(path := directory / name)]


def _names(directory: Path) -> list[str]:
    try:
        return os.listdir(directory) if _is_real_directory(directory) else []  # noqa: PTH208 -- names alone
    except OSError:
        return []


def _is_real_directory(path: Path) -> bool:
    try:
        return stat.S_ISDIR(path.lstat().st_mode)
    except OSError:
        return False


def _read_run(path: Path, key: str, value: str) -> Run | None:
    """One logged run; None if it is gone by now. Raises `MetafileInvalid`."""
    where = str(path)
    try:
        mtime = path.lstat().st_mtime
        data = read_regular(path, SIZE_LIMIT, follow=False)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise MetafileInvalid(f"{where} cannot be read: {error.strerror}") from None
    if data is None:
        return None
    if len(data) > SIZE_LIMIT:
        raise MetafileInvalid(f"{where} has more than {SIZE_LIMIT >> 20} MiB")
    body = parse_document(data, where)
    deps, outs = (
        tuple(parse_output(entry, "", where) for entry in read_mappings(body, name, where))
        for name in ("deps", "outs")
    )
    return Run(key, value, _read_command(body, where), deps, outs, mtime)


def _read_command(body: Mapping, where: str) -> str:
    command = body.get("cmd")
    if isinstance(command, str):
        return command
    if isinstance(command, list) and command and all(isinstance(line, str) for line in command):
        return " && ".join(str(line) for line in command)
    raise fault(body, where, "cmd is neither a command nor a list of them")
