"""`Tracker`: one target at many commits: what it is at each, and which commits can have changed it.

At the first commit it is found out what kind of thing the target is and which metafile names it; at
the others only that file is read, for a walk through the whole project at every commit would be long.
A metafile that was renamed is another one: its history ends there.

Callers: `store.history`. Blocking as the repository is; one thread.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from store.dvc.discovery import Metafile, is_metafile, read_metafile
from store.dvc.index import read_index
from store.dvc.metafile import Output
from store.dvc.pipeline import LOCK, PIPELINE
from store.errors import MetafileInvalid, NotStored, NotTracked
from store.git.commit import Commit
from store.git.files import GitFiles
from store.git.repository import Repository
from store.git.trees import Mode
from store.oid import Oid
from store.prefetching import fetch_metafiles
from store.revision import Located, dvc_root, locate, place_outputs, told_manifests
from store.version import GitPart, Part, Version


@dataclass(frozen=True, slots=True)
class State:
    """What a target is at a commit."""

    version: Version
    files: int | None = None
    """As the metafile has it, None where it does not say."""
    size: int | None = None
    """Bytes of all files together, likewise."""
    manifests: Mapping[Oid, bytes] = field(default_factory=dict, compare=False)
    """Those that the metafile itself tells."""

    @property
    def identity(self) -> tuple[object, ...]:
        """Equal where the content is: which hash function named it does not count, nor what is told of it."""
        return (*map(_identify, self.version.parts), self.version.inside)

    @property
    def oid(self) -> str:
        """As DVC prints it, or git; empty for several outputs and for what lies inside of one."""
        match self.version:
            case Version(parts=(only,), inside=""):
                return str(only.oid)
        return ""


def _identify(part: Part | GitPart) -> tuple[object, ...]:
    return (part.path, str(part.oid), isinstance(part, Part) and part.isexec)


class Tracker(Protocol):
    """A target, followed from commit to commit."""

    @property
    def paths(self) -> Sequence[str]:
        """The paths without a change to which the target does not change; none means every commit may."""

    @property
    def is_cheap(self) -> bool:
        """Whether the state at a commit costs no more than reading a file or two."""

    def state(self, commit: Commit) -> State | None:
        """What the target is at a commit; None where there is none.

        Raises `MetafileInvalid` where it cannot be told, and what reading the repository raises.
        """


def open_tracker(
    repository: Repository, commit: Commit, path: str, where: str, *, partial: bool = False
) -> Tracker:
    """The tracker of `path`, from the repository's root, as it is at `commit`; `where` for messages.

    Of a `partial` clone the metafiles are fetched together. Raises as `store.revision.locate` does.
    """
    files = GitFiles(repository, commit)
    if partial:
        fetch_metafiles(files)
    entry = files.find(path)
    if entry is not None and entry.mode is not Mode.TREE and is_metafile(posixpath.basename(path)):
        return _OutputTracker(repository, path, "", "", where)
    root = dvc_root(files, path)
    index = read_index(files, root=root)
    below = path[len(root) :].removeprefix("/")
    found = index.find(below) if below or not root else None
    if found is not None and found[0].output.cached:
        tracked, inside = found
        metafile = posixpath.join(root, tracked.metafile)
        output = posixpath.join(root, tracked.path)
        return _OutputTracker(repository, metafile, output, inside, where)
    if entry is not None and entry.mode is not Mode.TREE:
        return _BlobTracker(repository, path)
    if entry is None and not index.below(below):
        locate(repository, commit, path, where)  # which says what is wrong
        raise NotTracked(f"{where}: nothing is tracked there")
    outside = dict.fromkeys(
        file
        for tracked in (index.below(below) if path else ())
        for file in _metafile_paths(posixpath.join(root, tracked.metafile))
        if not file.startswith(f"{path}/")
    )
    return _DirectoryTracker(repository, path, tuple(outside), where, partial)


@dataclass(frozen=True, slots=True)
class _OutputTracker:
    """What a metafile names: all outputs of a `.dvc` file, or one of any metafile, or inside of one."""

    repository: Repository
    metafile: str
    output: str
    """From the root; empty for all outputs."""
    inside: str
    where: str
    _known: dict[str, State | None] = field(default_factory=dict)
    """By the blob of a `.dvc` file, which says it all; many tags share one."""

    is_cheap = True

    @property
    def paths(self) -> Sequence[str]:
        return _metafile_paths(self.metafile)

    def state(self, commit: Commit) -> State | None:
        files = GitFiles(self.repository, commit)
        entry = files.find(self.metafile)
        if entry is None or entry.mode is Mode.TREE:
            return None
        alone = posixpath.basename(self.metafile) != PIPELINE
        if alone and entry.oid in self._known:
            return self._known[entry.oid]
        metafile = read_metafile(files, self.metafile, self.metafile)
        state = self._read(metafile) if metafile is not None else None
        if alone:
            self._known[entry.oid] = state
        return state

    def _read(self, metafile: Metafile) -> State | None:
        outputs = [output for output in metafile.outputs if output.cached and output.oid is not None]
        if self.output:
            outputs = [output for output in outputs if metafile.output_path(output) == self.output]
        if not outputs or (self.inside and not outputs[0].is_dir):
            return None
        try:
            parts = place_outputs(outputs, self.where)
        except NotStored as error:
            raise MetafileInvalid(str(error)) from None
        told = told_manifests(outputs)
        if self.inside:
            return State(Version(parts, self.inside), manifests=told)
        return State(Version(parts), _add(map(_count, outputs)), _add(o.size for o in outputs), told)


@dataclass(frozen=True, slots=True)
class _BlobTracker:
    """A file of git's."""

    repository: Repository
    path: str

    is_cheap = True

    @property
    def paths(self) -> Sequence[str]:
        return (self.path,)

    def state(self, commit: Commit) -> State | None:
        entry = GitFiles(self.repository, commit).find(self.path)
        if entry is None or entry.mode in (Mode.TREE, Mode.SUBMODULE):
            return None
        name = self.path.rpartition("/")[2]
        part = GitPart(name, self.repository.git_dir, commit.oid, self.path, entry.oid)
        [size] = self.repository.objects.sizes([entry.oid])
        return State(Version((part,)), 1, size)


@dataclass(frozen=True, slots=True)
class _DirectoryTracker:
    """A directory that is no output: what git tracks in it, and the outputs below."""

    repository: Repository
    path: str
    outside: tuple[str, ...]
    """Metafiles elsewhere that have outputs in it."""
    where: str
    partial: bool

    is_cheap = False

    @property
    def paths(self) -> Sequence[str]:
        return (self.path, *self.outside) if self.path else ()

    def state(self, commit: Commit) -> State | None:
        if self.partial:
            fetch_metafiles(GitFiles(self.repository, commit))
        try:
            located: Located = locate(self.repository, commit, self.path, self.where)
        except (NotTracked, NotStored):
            return None
        return State(located.version, manifests=located.manifests)


def _metafile_paths(metafile: str) -> tuple[str, ...]:
    """The files that say what a metafile's outputs are."""
    if posixpath.basename(metafile) == PIPELINE:
        return (metafile, metafile.removesuffix(PIPELINE) + LOCK)
    return (metafile,)


def _count(output: Output) -> int | None:
    return output.nfiles if output.is_dir else 1


def _add(numbers: Iterable[int | None]) -> int | None:
    """The sum; None where one is not known."""
    total = 0
    for number in numbers:
        if number is None:
            return None
        total += number
    return total
