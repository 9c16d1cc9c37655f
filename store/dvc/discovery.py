"""The walk that finds a project's metafiles, as DVC's own goes.

Top-down from the root, not through symlinks, past what `.dvcignore` hides (which includes `.git`,
`.dvc` and subrepos) and past directories that a metafile read before tracks. What cannot be read is
reported beside what can: one bad file does not take the rest down.

Callers: `store.dvc.index`, `store.dvc.project`, `store.dvc.target`, commit. Blocking; one thread per walk.
"""

from __future__ import annotations

import posixpath
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from store.dvc.document import SIZE_LIMIT
from store.dvc.files import Files, Item, join
from store.dvc.ignore import IgnoreRules
from store.dvc.metafile import Output, parse_dvc_file
from store.dvc.pipeline import PIPELINE, read_pipeline
from store.errors import ConfigInvalid, MetafileInvalid

SUFFIX: Final = ".dvc"
STAGE_FILE: Final = "Dvcfile"
"""A `.dvc` file of DVC 0.x without the suffix: the stage that `dvc repro` made by default."""
PATTERNS: Final = (f"*{SUFFIX}", *(f"{way}{name}" for name in (STAGE_FILE, PIPELINE) for way in ("", "*/")))
"""Of git, for what `is_metafile` accepts."""


@dataclass(frozen=True, slots=True)
class Metafile:
    """A metafile that was read. `path` is relative to the project's root."""

    path: str
    outputs: tuple[Output, ...]
    faults: tuple[str, ...] = ()
    """Parts of it that could not be read, a line each."""

    def output_path(self, output: Output) -> str:
        """Where an output of this file lies, relative to the root; begins with `..` if outside."""
        return posixpath.normpath(posixpath.join(posixpath.dirname(self.path), output.path))


@dataclass(frozen=True, slots=True)
class Broken:
    """Something that could not be read; `message` is one line that names it."""

    path: str
    message: str


class ListedFiles:
    """`Files` that lists only what somebody else found (git, say); reading goes to the real ones."""

    __slots__ = ("_files", "_items")

    def __init__(self, files: Files, paths: Iterable[str]) -> None:
        self._files = files
        self._items: dict[str, dict[str, Item]] = {}
        for path in paths:
            self._insert(path, is_dir=False)

    def _insert(self, path: str, is_dir: bool) -> None:
        while path:
            parent, _, name = path.rpartition("/")
            siblings = self._items.setdefault(parent, {})
            if name in siblings:
                return
            siblings[name] = Item(name, is_dir)
            path, is_dir = parent, True

    def read(self, path: str, limit: int) -> bytes | None:
        return self._files.read(path, limit)

    def list(self, path: str) -> list[Item]:
        return sorted(self._items.get(path, {}).values(), key=lambda item: item.name)

    def exists(self, path: str) -> bool:
        return self._files.exists(path)


def is_metafile(name: str) -> bool:
    """Whether a file of that name (without directories) tells what is tracked."""
    return (name.endswith(SUFFIX) and name != SUFFIX) or name in (STAGE_FILE, PIPELINE)


def read_metafile(files: Files, path: str, where: str) -> Metafile | None:
    """Read one metafile, called `where` in messages; None if it is not there.

    Raises `MetafileInvalid`.
    """
    if posixpath.basename(path) == PIPELINE:
        pipeline = read_pipeline(files, path, where)
        return Metafile(path, pipeline.outputs, pipeline.faults) if pipeline else None
    try:
        data = files.read(path, SIZE_LIMIT)
    except OSError as error:
        raise MetafileInvalid(f"{where} cannot be read: {error.strerror}") from None
    return None if data is None else Metafile(path, parse_dvc_file(data, where))


def discover(files: Files, *, below: bool = True) -> Iterator[Metafile | Broken]:
    """Every metafile below the root of `files`, outer directories first; `below=False`: only in it."""
    try:
        rules = IgnoreRules(files)
    except ConfigInvalid as error:
        yield Broken(".dvcignore", str(error))
        return
    outputs: set[str] = set()
    waiting = deque([""])
    while waiting:
        directory = waiting.popleft()
        if directory in outputs:
            continue
        try:
            items = [item for item in files.list(directory) if _is_of_interest(item)]
            items = [item for item in items if not rules.ignores(join(directory, item.name), item.is_dir)]
        except OSError as error:
            yield Broken(directory, f"directory {directory!r} cannot be read: {error.strerror}")
            continue
        except ConfigInvalid as error:
            yield Broken(join(directory, ".dvcignore"), str(error))
            continue
        for found in _read_all(files, (join(directory, item.name) for item in items if not item.is_dir)):
            yield found
            if isinstance(found, Metafile):
                outputs.update(found.output_path(output) for output in found.outputs if not output.external)
                yield from (Broken(found.path, fault) for fault in found.faults)
        if below:
            waiting.extend(join(directory, item.name) for item in items if item.is_dir)


def _is_of_interest(item: Item) -> bool:
    return item.is_dir or is_metafile(item.name)


def _read_all(files: Files, paths: Iterable[str]) -> Iterator[Metafile | Broken]:
    for path in paths:
        try:
            metafile = read_metafile(files, path, path)
        except MetafileInvalid as error:
            yield Broken(path, str(error))
        else:
            if metafile:
                yield metafile
