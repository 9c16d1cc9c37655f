"""What a commit is about, and whether it may be: the folder, its project, metafile and cache.

Everything that can be refused without reading the folder is refused here. Used by `version`, with
the project's lock held for `find_metafile`; blocking reads only.
"""

from __future__ import annotations

import contextlib
import os
import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from store.commit.gitignore import refuse_tracked
from store.commit.metafile import SUFFIX
from store.dvc.discovery import Metafile, read_metafile
from store.dvc.files import WorkingFiles
from store.dvc.ignore import IgnoreRules
from store.dvc.project import Kind, Project, find_project
from store.errors import InputError, MetafileInvalid


@dataclass(frozen=True, slots=True)
class Target:
    """A folder or file to be committed. All paths are absolute."""

    source: Path
    is_dir: bool
    project: Project
    cache: Path
    own_cache: bool
    """The cache is the one of our own that serves where there is no other."""
    git_root: Path | None
    """The git work tree that must not hold the data too; None where git has no say."""

    @property
    def relpath(self) -> str:
        """The source's path from the project's root, `/`-separated."""
        return os.path.relpath(self.source, self.project.root)


@dataclass(frozen=True, slots=True)
class Place:
    """Where the version is recorded: the metafile, and the output's path from its directory."""

    metafile: Path
    path: str


def settle_target(path: Path, cache: Path | None) -> Target:
    """Judge what the user named. `cache` overrides the project's.

    Raises `InputError`, `ConfigInvalid`.
    """
    source = Path(os.path.abspath(path))  # noqa: PTH100 -- resolve() would follow symbolic links
    shown = str(path)
    if not os.path.lexists(source):
        raise InputError(f"{shown!r} does not exist")
    if source.name.endswith(SUFFIX) or not source.name:
        raise InputError(f"{shown!r} cannot be committed: name the data, not its metafile")
    try:
        source.name.encode()
    except UnicodeEncodeError:
        raise InputError(f"{shown!r} is not UTF-8, so no {SUFFIX} file can name it; rename it") from None
    project = find_project(source.parent)
    _refuse_symlinks(source, project.root, shown)
    directory = cache.absolute() if cache else project.cache_dir
    _refuse_cache(source, directory, shown)
    is_dir = source.is_dir()
    target = Target(
        source=source,
        is_dir=is_dir,
        project=project,
        cache=directory,
        own_cache=not cache and project.kind is not Kind.DVC and project.config.cache_dir is None,
        git_root=None if project.config.no_scm else _git_root(source.parent),
    )
    if IgnoreRules.load(project.root).ignores(target.relpath, is_dir):
        raise InputError(f"{shown!r} is hidden from DVC by .dvcignore, or is a repository of its own")
    return target


def find_metafile(target: Target) -> Place:
    """The metafile that tracks the target, or the one that will. Raises `InputError` for an overlap."""
    root, wanted = target.project.root, target.relpath
    place = None
    for metafile in _metafiles(target):
        for output in metafile.outputs:
            if output.external:
                continue
            tracked = metafile.output_path(output)
            if tracked == wanted and output.stage:
                raise InputError(
                    f"{wanted!r} is made by the stage {output.stage!r} of {metafile.path!r}; "
                    f"`dvc commit` records what a pipeline made"
                )
            if tracked == wanted:
                if place:
                    raise InputError(
                        f"{wanted!r} is tracked twice, by {metafile.path!r} too; remove one of them"
                    )
                place = Place(root / metafile.path, output.path)
            elif _overlaps(root / tracked, target.source):
                raise InputError(
                    f"{wanted!r} overlaps {tracked!r}, which {metafile.path!r} tracks; "
                    f"commit {tracked!r} instead, or remove {metafile.path!r} first"
                )
    if not place:
        place = Place(target.source.with_name(target.source.name + SUFFIX), target.source.name)
    if target.git_root:
        refuse_tracked(target.git_root, target.source, place.metafile)
    return place


def refuse_inner(target: Target, relpaths: Sequence[str]) -> None:
    """Raise `InputError` if one of the target's files is the metafile of something beside it.

    In a repository `find_metafile` has seen it; elsewhere nobody looks below the root but the scan.
    """
    for relpath in relpaths:
        inner = relpath.removesuffix(SUFFIX)
        if inner != relpath and (target.source / inner).exists() and target.project.kind is Kind.NONE:
            raise InputError(
                f"{str(target.source)!r} holds {relpath!r}, which records a version of {inner!r}; "
                f"remove {relpath!r} first, or commit {inner!r} alone"
            )


def _overlaps(one: Path, other: Path) -> bool:
    one = Path(os.path.normpath(one))
    return one in other.parents or other in one.parents


def _metafiles(target: Target) -> Iterator[Metafile]:
    """The metafiles that may track the target, or what is around or inside it.

    Those that cannot be read are passed over: our own is read once more when it is changed.
    """
    yield from (found for found in target.project.metafiles() if isinstance(found, Metafile))
    if target.project.kind is Kind.NONE:
        # Without a repository the root is just the parent; a version of any folder above counts.
        for parent in target.source.parents[:-1]:
            path = os.path.relpath(f"{parent}{SUFFIX}", target.project.root)
            with contextlib.suppress(MetafileInvalid):
                found = read_metafile(WorkingFiles(target.project.root), path, path)
                if found:
                    yield found


def _refuse_symlinks(source: Path, root: Path, shown: str) -> None:
    """As DVC: the data of a link belongs to where the link leads. A link to a file is its content."""
    if source.is_symlink() and source.is_dir():
        raise InputError(f"{shown!r} is a symbolic link to a directory; commit the directory itself")
    for parent in source.parents:
        if parent == root:
            return
        if parent.is_symlink():
            raise InputError(
                f"{shown!r} lies behind the symbolic link {str(parent)!r}; commit it where it is"
            )


def _refuse_cache(source: Path, cache: Path, shown: str) -> None:
    real, data = os.path.realpath(cache), os.path.realpath(source)
    if posixpath.commonpath((real, data)) in (real, data):
        relation = "lies inside" if len(data) >= len(real) else "contains"
        raise InputError(f"{shown!r} {relation} the cache {str(cache)!r}; choose another with --cache")


def _git_root(directory: Path) -> Path | None:
    for candidate in (directory, *directory.parents):
        if (candidate / ".git").exists():
            return candidate
    return None
