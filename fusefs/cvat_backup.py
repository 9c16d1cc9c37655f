"""What a backup for CVAT is made of: versions as tasks, with their own documents or the least there can be.

A version that was restored from CVAT's backup has its `task.json` and `annotations.json`, which go back as
they are; where they do not fit its media any more, or there are none, a task without annotations is made.

Blocking; runs a loop where videos and images have to be looked at. Caller: `fusefs backup --format cvat`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import trio

from fusefs.backing_up import measure
from fusefs.dataset import Dataset, Request
from fusefs.interruption import Interrupted
from fusefs.opened_version import Work, read_version
from store.backup.cvat.documents import (
    ANNOTATIONS_LIMIT,
    LIMIT,
    count_jobs,
    localized,
    minimal_annotations,
    minimal_project,
    minimal_task,
    parse,
    task_fault,
    version_name,
)
from store.backup.cvat.layout import ANNOTATIONS, DATA, INDEX, MANIFEST, PROJECT, TASK, media_of, task_folders
from store.backup.cvat.writing import Member
from store.backup.writing import read_object
from store.cache_chain import CacheChain
from store.engine import Engine
from store.errors import InputError
from store.making.cvat_sources import MANIFEST_NAME, open_folder, open_video
from store.making.tasks import RowOrigin
from store.media.folders import related_rows
from store.media.manifest_jsonl import predefined_paths
from store.media.ordering import IMAGE, LEXICOGRAPHICAL, PREDEFINED, VIDEO, is_frame, is_hidden, kind_of
from store.media.recipe import ChunksRecipe
from store.oid import DVC_ALGORITHMS, Oid
from store.tree import ROOT_ROW, Tree
from store.tree_files import TreeFiles

MANIFEST_LIMIT: Final = 256 << 20


@dataclass(frozen=True, slots=True)
class Task:
    """A task's members, without a folder before them."""

    name: str
    members: tuple[Member, ...]
    document: Mapping[str, Any]
    """Its `task.json`."""


@dataclass(slots=True)
class Planned:
    """What goes into the zip."""

    members: list[Member] = field(default_factory=list)
    tasks: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def bytes(self) -> int:
        """Of all members."""
        return sum(member.size for member in self.members)


def plan(versions: Sequence[tuple[Request, Dataset]], cache: CacheChain) -> Planned:
    """One task for one version, a project for several, or for one that is of a project.

    Raises `InputError` for what CVAT would not import, `ObjectMissing`, `StoreError`, `Interrupted`.
    """
    planned = Planned()
    opened = [_Version(request, dataset, cache, planned.warnings) for request, dataset in versions]
    projects = [version for version in opened if PROJECT in version.files]
    if projects and len(opened) > 1:
        raise InputError(f"{projects[0].name!r} is a whole project of CVAT's; back it up alone")
    if projects:
        (version,) = opened
        folders = task_folders(version.files)
        tasks = [version.task(folder) for folder in folders]
        others = [path for path in version.files if not path.startswith(tuple(folders))]
        planned.members += [Member(path, version.files[path]) for path in others]
    else:
        tasks = [version.task("") for version in opened]
        folders = [""] if len(tasks) == 1 else [f"task_{number}/" for number in range(len(tasks))]
        if len(tasks) > 1:
            project = minimal_project("project", [dict(task.document) for task in tasks])
            planned.members.append(Member(PROJECT, project))
    for folder, task in zip(folders, tasks, strict=True):
        planned.members += [Member(folder + member.name, member.content) for member in task.members]
        planned.tasks.append(task.name)
    return planned


class _Version:
    """The files of a version by path, each an object and its length."""

    def __init__(self, request: Request, dataset: Dataset, cache: CacheChain, warnings: list[str]) -> None:
        if dataset.tree is None:
            raise InputError(f"{dataset.target} is no single version")
        path = dataset.target.rpartition("@")[0] or dataset.target
        self.name = path.rstrip("/").rpartition("/")[2].removesuffix(".dvc")
        self._request, self._dataset, self._cache, self._warnings = request, dataset, cache, warnings
        self._tree = Tree.open(dataset.tree)
        tree = self._tree
        self._rows = {tree.path(row): row for row in range(tree.rows) if self._is_object(row)}
        for path in self._rows:
            if any("\ud800" <= letter <= "\udfff" for letter in path):
                raise InputError(f"{path!r} is a name that is not UTF-8, which CVAT does not take")
        lengths = dict(measure({tree.oid(row): None for row in self._rows.values()}, cache))
        self.files = {path: (tree.oid(row), lengths[tree.oid(row)]) for path, row in self._rows.items()}

    def _is_object(self, row: int) -> bool:
        tree = self._tree
        is_file = not tree.is_directory(row) and not tree.is_symlink(row)
        return is_file and tree.algorithm(row) in DVC_ALGORITHMS

    def task(self, folder: str) -> Task:
        """The task whose files are in a folder, `/` behind; all of the version where it is empty."""
        if folder + TASK not in self.files:
            if folder:
                raise InputError(f"{self.name!r} has no {folder + TASK}; remove {folder}, or restore it")
            return self._made(self.name, "")
        try:
            return self._kept(folder)
        except InputError as error:
            self._warnings.append(f"{folder + TASK} is not written back, nor annotations: {error}")
        return self._made(self.name if not folder else folder.rstrip("/"), folder + DATA)

    def _kept(self, folder: str) -> Task:
        """With the documents that are there. Raises `InputError` where they do not hold."""
        data = self._read(folder + TASK, LIMIT)
        document = parse(data, folder + TASK)
        annotations = self._read(folder + ANNOTATIONS, ANNOTATIONS_LIMIT)
        jobs = count_jobs(annotations, folder + ANNOTATIONS)
        fault = task_fault(document, jobs, self._count_frames(folder))
        if fault:
            raise InputError(fault)
        members = [Member(TASK, localized(document, data))]
        for path, content in self.files.items():
            name = path.removeprefix(folder)
            if path.startswith(folder) and name not in (TASK, INDEX):
                members.append(Member(name, content))
        return Task(version_name(document, "task"), tuple(members), document)

    def _count_frames(self, folder: str) -> int | None:
        """How many images or frames a task with documents has, None where that cannot be told."""
        media = media_of(self.files, folder)
        below = f"{folder}{DATA}/"
        if not media:
            raise InputError("it has no media")
        if all(kind_of(path) == IMAGE for path in media):
            frames = {path.removeprefix(below) for path in media if is_frame(path.removeprefix(below))}
            if folder + MANIFEST in self.files:
                named = predefined_paths(self._read(folder + MANIFEST, MANIFEST_LIMIT))
                if set(named) != frames:
                    raise InputError(f"{MANIFEST} does not name the images that are there")
            return len(frames)
        if len(media) > 1 or kind_of(media[0]) != VIDEO:
            return None
        found: list[int] = []

        async def look(engine: Engine, files: TreeFiles) -> None:
            index = await engine.maker.index(RowOrigin(files, self._rows[media[0]]))
            found.append(index.frame_count)

        try:
            self._run(look)
        except InputError:
            return None  # it may be one that CVAT can read
        return found[0]

    def _made(self, name: str, folder: str) -> Task:
        """A task of the video or the images in a folder, without annotations."""
        below = f"{folder}/" if folder else ""
        inside = [path.removeprefix(below) for path in self.files if path.startswith(below)]
        shown = [path for path in inside if not any(map(is_hidden, path.split("/")))]
        videos = [path for path in shown if kind_of(path) == VIDEO]
        images = [path for path in inside if is_frame(path)]
        if len(videos) + bool(images) != 1:
            raise InputError(
                f"{name!r} has {len(videos)} videos and {len(images)} images, and a task of CVAT's is one "
                "video or a folder of images; name one of them, such as TARGET/clip.mp4"
            )
        if videos:
            manifest, count = self._describe_video(below + videos[0])
            media = {videos[0].rpartition("/")[2]: self.files[below + videos[0]]}
            sorting = LEXICOGRAPHICAL
        else:
            manifest, count, media, sorting = self._describe_images(folder, below)
        left = len(inside) - len(media)
        if left and not folder:
            self._warnings.append(f"{left} files of {name!r} are no media of the task, and not written")
        task = minimal_task(name, count, is_video=bool(videos), sorting=sorting)
        members = [
            Member(TASK, task),
            Member(ANNOTATIONS, minimal_annotations()),
            *(Member(f"{DATA}/{path}", content) for path, content in media.items()),
            Member(MANIFEST, manifest),
        ]
        return Task(name, tuple(members), parse(task, TASK))

    def _describe_video(self, path: str) -> tuple[bytes, int]:
        """The manifest of a video, and how many frames it has."""
        found: list[tuple[bytes, int]] = []

        async def look(engine: Engine, files: TreeFiles) -> None:
            origin = RowOrigin(files, self._rows[path])
            video = await open_video(engine.maker, engine.threads, origin, ChunksRecipe())
            manifest = await video.manifest(engine.maker, engine.threads)
            found.append((manifest, len(video.numbering.frames)))

        self._run(look)
        return found[0]

    def _describe_images(self, folder: str, below: str) -> tuple[bytes, int, dict[str, tuple[Oid, int]], str]:
        """The manifest of a folder's images, how many there are, all that belong to them, and their order."""
        order = PREDEFINED if self._is_ordered(below) else LEXICOGRAPHICAL
        found: list[tuple[bytes, list[int]]] = []

        async def look(engine: Engine, files: TreeFiles) -> None:
            row = ROOT_ROW
            for part in folder.split("/") if folder else ():
                row = files.tree.lookup(row, part.encode()) or ROOT_ROW
            chunked = await open_folder(engine.maker, engine.threads, files, row, ChunksRecipe(order=order))
            manifest = await chunked.manifest(engine.maker, engine.threads)
            found.append((manifest, chunked.rows.tolist()))

        self._run(look)
        manifest, frames = found[0]
        related = {image for frame in frames for image in related_rows(self._tree, frame)}
        paths = [self._tree.path(row) for row in (*frames, *sorted(related))]
        return manifest, len(frames), {path.removeprefix(below): self.files[path] for path in paths}, order

    def _is_ordered(self, below: str) -> bool:
        """Does a manifest say in which order the images are, each once?"""
        if below + MANIFEST_NAME not in self.files:
            return False
        try:
            named = predefined_paths(self._read(below + MANIFEST_NAME, MANIFEST_LIMIT))
        except InputError as error:
            self._warnings.append(f"the order is by name: {error}")
            return False
        is_right = 0 < len(named) == len(set(named)) and all(below + path in self.files for path in named)
        if not is_right:
            self._warnings.append(f"the order is by name: {MANIFEST_NAME} does not name images once each")
        return is_right

    def _read(self, path: str, limit: int) -> bytes:
        if path not in self.files:
            raise InputError(f"there is no {path}")
        oid, size = self.files[path]
        if size > limit:
            raise InputError(f"{path} has {size} bytes, more than {limit}")
        return read_object(self._cache, oid, size)

    def _run(self, look: Work) -> None:
        came = trio.run(partial(read_version, self._request, self._dataset, self._tree, look))
        if came:
            raise Interrupted(came)
