"""Frames of videos as encoded files, for Python: of a mount (`MountFrames`) or without one (`VersionFrames`).

Both give the same bytes for the same recipe, and both are found again by name after they were pickled or a
process has forked. Any thread; blocking.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any, Final, Protocol
from weakref import WeakKeyDictionary

import trio

from fusefs.filesystem import FusefsFileSystem
from fusefs.python_errors import python_errors
from fusefs.version_paths import find_file
from fusefs.views.frame_store import FrameStore
from fusefs.views.frames_json import frame_name
from store.engine import Engine
from store.errors import MediaInvalid, StoreError
from store.making.tasks import RowOrigin
from store.media.numbering import Numbering
from store.media.ordering import VIDEO, kind_of
from store.media.recipe import FramesRecipe
from store.tree_files import TreeFiles
from store.tree_glob import find_files

AT_ONCE: Final = 8
"""Videos whose frames are counted at a time."""
TABLE: Final = "frames.json"
CONTROLS: Final = (".fusefs", ".fusefs-control")
"""What a mount's own directory is called: the second, where the version has the first."""
_FRAMES: Final = '"frames": ['


class FrameSource(Protocol):
    """Where frames come from."""

    def videos(self, only: Sequence[str]) -> list[tuple[str, range]]:
        """The videos by path, all or those at and below the patterns, each with its selected frames.

        Raises OSError, and ValueError for what is no video.
        """

    def read(self, path: str, number: int) -> bytes:
        """The file of a frame. Raises OSError, and ValueError for one that cannot be decoded."""


def open_frames(source: str | os.PathLike[str] | FusefsFileSystem, recipe: FramesRecipe) -> FrameSource:
    """The frames of a mount, by its directory, or of a version that `fusefs.open` gave."""
    if isinstance(source, FusefsFileSystem):
        return VersionFrames(source, recipe)
    return MountFrames(source, recipe)


class MountFrames:
    """The view `.fusefs/frames` of a mount."""

    def __init__(self, mountpoint: str | os.PathLike[str], recipe: FramesRecipe) -> None:
        """Raises ValueError where nothing is mounted that has this view."""
        self._mountpoint = Path(mountpoint).absolute()
        self._recipe = recipe
        places = (self._mountpoint / control / "frames" / str(recipe) for control in CONTROLS)
        found = next((place for place in places if place.is_dir()), None)
        if found is None:
            raise ValueError(f"{mountpoint} is no mount of fusefs that shows frames")
        self._root = found

    def videos(self, only: Sequence[str]) -> list[tuple[str, range]]:
        found: dict[str, None] = {}
        for pattern in only or [""]:
            for top in self._match(pattern):
                found.update((path, None) for path in self._walk(top))
        paths = sorted(found, key=os.fsencode)
        with ThreadPoolExecutor(AT_ONCE) as threads:
            return list(zip(paths, threads.map(self._count, paths), strict=True))

    def _match(self, pattern: str) -> list[Path]:
        """A path that is there is taken as it is, whatever is in it."""
        relative = PurePosixPath(pattern)
        if relative.is_absolute() or ".." in relative.parts:
            raise ValueError(f"{pattern!r} is not a path in the version")
        if (self._root / relative).is_dir():
            return [self._root / relative]
        tops = [top for top in self._root.glob(pattern) if top.is_dir()]
        # What is there and has no video has no directory here.
        if not tops and not any(self._mountpoint.glob(pattern)):
            raise FileNotFoundError(f"nothing matches {pattern!r} in {self._mountpoint}")
        return tops

    def _walk(self, top: Path) -> Iterator[str]:
        """The directories that stand for videos."""
        waiting = [top]
        while waiting:
            directory = waiting.pop()
            if kind_of(directory.name) == VIDEO and (directory / TABLE).is_file():
                yield directory.relative_to(self._root).as_posix()
            else:
                waiting += [entry for entry in directory.iterdir() if entry.is_dir()]

    def _count(self, path: str) -> range:
        """By the head of the table: the rest has a line a frame."""
        lines = []
        with (self._root / path / TABLE).open(encoding="utf-8") as table:
            for line in table:
                lines.append(line)
                if line.startswith(_FRAMES):
                    break
        facts: dict[str, Any] = json.loads("".join(lines) + "]}")
        return Numbering(facts["frame_count"], 1, self._recipe.selection).frames

    def read(self, path: str, number: int) -> bytes:
        return (self._root / path / frame_name(number, self._recipe.encoding.form)).read_bytes()


class VersionFrames:
    """Frames that are made by worker processes of this one, chunk by chunk, and kept in the cache."""

    def __init__(self, files: FusefsFileSystem, recipe: FramesRecipe) -> None:
        self._files = files
        self._target = str(files.storage_options["target"])
        self._recipe = recipe

    def videos(self, only: Sequence[str]) -> list[tuple[str, range]]:
        session = self._files.session
        tree = session.tree
        with python_errors(self._target):
            rows = [row for row in find_files(tree, only, self._target) if not tree.is_symlink(row)]
            found = {tree.path(row): row for row in rows if kind_of(tree.path(row)) == VIDEO}
            paths = sorted(found, key=os.fsencode)
            frames = session.run(_count_frames, [found[path] for path in paths], self._recipe)
        return list(zip(paths, frames, strict=True))

    def read(self, path: str, number: int) -> bytes:
        session = self._files.session
        row = find_file(session, path)
        with python_errors(path):
            return session.run(_read_frame, row, self._recipe, number)


async def _count_frames(
    engine: Engine, files: TreeFiles, rows: Sequence[int], recipe: FramesRecipe
) -> list[range]:
    counted: list[range] = [range(0)] * len(rows)
    limit = trio.Semaphore(AT_ONCE)
    errors: list[StoreError] = []

    async def count(place: int) -> None:
        try:
            index = await engine.maker.index(RowOrigin(files, rows[place]))
            counted[place] = Numbering(index.frame_count, 1, recipe.selection).frames
        except StoreError as error:
            errors.append(error)
            nursery.cancel_scope.cancel()
        finally:
            limit.release()

    async with trio.open_nursery() as nursery:
        for place in range(len(rows)):
            await limit.acquire()
            nursery.start_soon(count, place)
    if errors:
        raise errors[0]
    return counted


async def _read_frame(engine: Engine, files: TreeFiles, row: int, recipe: FramesRecipe, number: int) -> bytes:
    store = _stores.setdefault(engine, FrameStore(engine))
    video = await store.video(RowOrigin(files, row), recipe)
    if number not in video.frames:
        raise MediaInvalid(f"{video.name!r} has no frame {number} that {recipe} selects")
    return await store.frame(video, video.frames.index(number))


_stores: Final[WeakKeyDictionary[Engine, FrameStore]] = WeakKeyDictionary()
