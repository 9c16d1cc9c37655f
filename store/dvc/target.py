"""`find_target`: the path that a user names → the outputs of a metafile, in the working tree.

A target is a metafile (a `.dvc` file, a `dvc.yaml`), a path that one tracks, or a path inside a tracked
directory. It is looked for where it almost always is, in the metafiles beside the path and beside its
parents, before the whole project is searched. Of outputs that overlap, which DVC refuses to have, the
one whose metafile is nearer is found.

Callers: `fusefs.dataset`. Blocking; any thread.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from store.dvc.discovery import STAGE_FILE, SUFFIX, Broken, Metafile, is_metafile, read_metafile
from store.dvc.files import WorkingFiles, absolute_path, is_directory, join
from store.dvc.index import TrackedOutput, make_index
from store.dvc.metafile import Output
from store.dvc.pipeline import PIPELINE
from store.dvc.project import Kind, Project, find_project
from store.errors import MetafileInvalid, NotStored, NotTracked

_NAMED_NEARBY = 3


@dataclass(frozen=True, slots=True)
class Target:
    """What a user named. Every output has an oid, but for imports that were not downloaded."""

    project: Project
    metafile: Path
    """Absolute; no directory on the way to it is a link."""
    outputs: tuple[Output, ...]
    """The output that the path is or lies in; of a `.dvc` file all that have content in the cache."""
    inside: str
    """Where the target lies below its output, a directory; empty for the output itself."""


def find_target(target: Path) -> Target:
    """Resolve what the user named; it need not exist in the working tree.

    Raises `NotTracked`, with what is tracked nearby and the remedy; `NotStored` if what is tracked has
    no object in any cache; `MetafileInvalid`; `ConfigInvalid`.
    """
    # As typed comes first: a tracked file may be a link into the cache, a tracked directory one to a
    # larger disk. Its parents may be links that lead into the project, though.
    typed = Path(os.path.normpath(absolute_path(target)))
    resolved = Path(os.path.realpath(typed.parent)) / typed.name
    if is_metafile(typed.name) and os.path.lexists(typed) and not is_directory(typed):
        return _open_metafile(typed, target)
    broken: list[Broken] = []
    tracked: list[Path] = []
    for path in dict.fromkeys((typed, resolved)):
        project = find_project(path.parent)
        # Outside of any repository parents may track the path up to the top.
        base = Path(path.anchor) if project.kind is Kind.NONE else project.root
        found = _look_near(base, _relative(path, base), broken)
        if not found:
            base = project.root
            found = _look_everywhere(project, _relative(path, base), broken, tracked)
        if found:
            return _choose(base, *found, target)
    own = [fault for fault in broken if Path(fault.path).name == typed.name + SUFFIX]
    if own:
        raise MetafileInvalid(own[0].message)
    if find_project(typed).root == typed:
        # The root of a repository (or a directory outside of any) belongs to what is in it.
        _look_everywhere(find_project(typed), "", broken, tracked)
    raise NotTracked(_describe(target, typed, tracked, broken))


def _open_metafile(path: Path, target: Path) -> Target:
    project = find_project(path.parent)
    files = WorkingFiles(project.root)
    metafile = read_metafile(files, _relative(path, project.root), str(target))
    if not metafile or not metafile.outputs:
        fault = f": {metafile.faults[0]}" if metafile and metafile.faults else ": it has no outs"
        raise NotTracked(f"{target} tracks nothing{fault}")
    stored = tuple(output for output in metafile.outputs if not _fault(output))
    if not stored:
        raise NotStored(f"{target}: {_fault(metafile.outputs[0])}")
    return _target(path, stored, "")


def _choose(base: Path, tracked: TrackedOutput, inside: str, target: Path) -> Target:
    fault = _fault(tracked.output)
    if fault:
        raise NotStored(f"{target}: {fault}")
    return _target(base / tracked.metafile, (tracked.output,), inside)


def _target(metafile: Path, outputs: tuple[Output, ...], inside: str) -> Target:
    """A link may have led to the metafile: the project is the one that it really lies in."""
    directory = Path(os.path.realpath(metafile.parent))
    return Target(find_project(directory), directory / metafile.name, outputs, inside)


def _fault(output: Output) -> str:
    """Why no cache can have the output's content, or nothing."""
    if output.external:
        return f"{output.path!r} lies outside the repository, where DVC keeps no objects; use it there"
    if not output.cached:
        return f"{output.path!r} is kept in git (cache: false), not in the cache; read it in the working tree"
    if output.oid is None and not output.is_partial_import:
        return f"{output.path!r} has no hash: it was never made or downloaded; `dvc pull` or `dvc repro` it"
    return ""


def _look_near(base: Path, wanted: str, broken: list[Broken]) -> tuple[TrackedOutput, str] | None:
    """Search beside `wanted` (relative to `base`) and beside its parents, the nearest first.

    What bears the name of one of them comes before all others, for listing a directory may be long,
    and so may be the reading of what is in it.
    """
    files = WorkingFiles(base)
    named = [f"{path}{SUFFIX}" for path in _upwards(wanted)]
    for candidate in (path for path in named if files.exists(path)):
        found = make_index(_read_all(files, [candidate], broken)).find(wanted)
        if found:
            return found
    for path in _upwards(wanted):
        directory, _, _ = path.rpartition("/")
        stages = [join(directory, name) for name in (PIPELINE, STAGE_FILE)]
        found = make_index(_read_all(files, stages, broken)).find(wanted)
        if found:
            return found
    for path in _upwards(wanted):
        directory, _, _ = path.rpartition("/")
        try:
            items = files.list(directory)
        except OSError:
            continue  # not there, or closed to us: the named files were tried
        paths = [
            join(directory, item.name) for item in items if item.name.endswith(SUFFIX) and not item.is_dir
        ]
        found = make_index(_read_all(files, (path for path in paths if path not in named), broken)).find(
            wanted
        )
        if found:
            return found
    return None


def _look_everywhere(
    project: Project, wanted: str, broken: list[Broken], tracked: list[Path]
) -> tuple[TrackedOutput, str] | None:
    """Search all metafiles of the project. Appends to `tracked` what they track, for a message."""
    found = list(project.metafiles())
    broken += [fault for fault in found if isinstance(fault, Broken)]
    index = make_index(found)
    tracked += [project.root / output.path for output in index.outputs]
    return index.find(wanted)


def _read_all(files: WorkingFiles, paths: Iterable[str], broken: list[Broken]) -> Iterator[Metafile]:
    for path in paths:
        try:
            metafile = read_metafile(files, path, str(files.root / path))
        except MetafileInvalid as error:
            broken.append(Broken(path, str(error)))
        else:
            if metafile:
                broken += [Broken(path, fault) for fault in metafile.faults]
                yield metafile


def _upwards(path: str) -> Iterator[str]:
    """The path and its parents, without the root."""
    while path:
        yield path
        path, _, _ = path.rpartition("/")


def _relative(path: Path, base: Path) -> str:
    """`path` below `base`, `/`-separated; empty for `base` itself."""
    return "" if path == base else path.relative_to(base).as_posix()


def _describe(target: Path, typed: Path, tracked: list[Path], broken: list[Broken]) -> str:
    """One line: what is wrong, what would have been there, what to do."""
    exists = os.path.lexists(typed)
    within = [path for path in tracked if path.is_relative_to(typed)]
    parts = [
        f"{target} is not tracked by DVC" if exists else f"{target} does not exist, nor is it tracked by DVC"
    ]
    if within:
        parts.append(f"name what is tracked in it: {_name_some(within, target, typed)}")
    elif tracked:
        parts.append(f"tracked nearby: {_name_some(tracked, target, typed)}")
    if broken:
        parts.append(f"not everything could be read: {broken[0].message}")
    if exists and not within:
        parts.append(f"`fusefs commit {shlex.quote(str(target))}` would make a version of it")
    return "; ".join(parts)


def _name_some(paths: list[Path], target: Path, typed: Path) -> str:
    """The paths that share most with the target, written as it was: absolute or relative."""
    nearest = sorted(set(paths), key=lambda path: (-_kinship(path, typed), path))
    here = "" if target.is_absolute() else str(Path.cwd())
    names = [os.path.relpath(path, here) if here else str(path) for path in nearest[:_NAMED_NEARBY]]
    more = f" and {len(nearest) - _NAMED_NEARBY} more" if len(nearest) > _NAMED_NEARBY else ""
    return ", ".join(names) + more


def _kinship(one: Path, other: Path) -> int:
    """How many directories from the top two paths share."""
    return len(Path(os.path.commonpath((one, other))).parts)
