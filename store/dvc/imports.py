"""`follow_import`: from an imported output to where its content comes from, through as many repositories.

`dvc import` copies a path of another repository as it is at one commit. There it may be a file of
git's, an output whose objects are in that repository's remotes, or an import again. Every repository
on the way is a place where the content may be.

A repository that came from elsewhere must not make us look at this machine's directories: paths are
followed only from repositories that are on this machine themselves.

Callers: what brings the content of imports. Blocking as the given `Repositories` are; any thread.
"""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from store.dvc.files import Files, join
from store.dvc.import_source import RepositoryImport
from store.dvc.index import TrackedOutput, read_index
from store.errors import MetafileInvalid, NotTracked, RepositoryUnusable, StoreError
from store.git.objects import is_oid
from store.git.urls import Location, parse_location, without_secrets

HOPS: Final = 16
"""Repositories on the way; people have two."""


class Repositories(Protocol):
    """Opens the repositories that imports name."""

    def open(self, location: Location, commit: str) -> Files:
        """The files of a commit, given by its hex name, valid for as long as the caller needs them.

        Raises `RepositoryUnusable`, `RevisionUnknown`, `ObjectMissing`, `StoreTimeout`.
        """


@dataclass(frozen=True, slots=True)
class Hop:
    """What an import names: a path in a repository at a commit."""

    location: Location
    commit: str
    files: Files
    root: str
    """The DVC repository in it that `path` belongs to; empty for the root."""
    path: str
    """From the repository's root, `/`-separated, normalised; empty for all of it."""
    tracked: TrackedOutput | None
    """The output that `path` is or lies in; None where git tracks it, and for a directory that is none
    but may hold some."""
    inside: str
    """Where `path` lies below the output."""

    def __str__(self) -> str:
        return _describe(self.location, self.commit, self.path)


def follow_import(
    source: RepositoryImport, repositories: Repositories, bases: Sequence[Path]
) -> tuple[Hop, ...]:
    """The places that an imported output came through, the nearest first; at least one.

    `bases` are the directories that a relative path of a repository may be meant from: the metafile's,
    then the DVC root's; none for a repository that is not on this machine. Raises `MetafileInvalid` for
    an import that names nothing, for a loop, and for more than `HOPS`; `NotTracked` where the source has
    no such path; and, with the import's name in front, what `repositories` raise.
    """
    hops: list[Hop] = []
    wanted = source.path
    while True:
        location, path = _locate(source, bases), _normalize(wanted, source)
        passed = " → ".join([*(str(hop) for hop in hops), _describe(location, source.commit, path)])
        here = (_identity(location), source.commit, path)
        if any(here == (_identity(hop.location), hop.commit, hop.path) for hop in hops):
            raise MetafileInvalid(f"imports go round in a circle: {passed}; import it from its origin")
        if len(hops) == HOPS:
            raise MetafileInvalid(f"an import of an import, more than {HOPS} times: {passed}")
        hop = _visit(source, location, path, repositories)
        hops.append(hop)
        onward = hop.tracked.source if hop.tracked else None
        if hop.tracked is None or not isinstance(onward, RepositoryImport):
            return tuple(hops)
        source, wanted = onward, join(onward.path, hop.inside)
        bases = ()
        if location.local:
            root = location.local / hop.root
            bases = (root / posixpath.dirname(hop.tracked.metafile), root)


def _locate(source: RepositoryImport, bases: Sequence[Path]) -> Location:
    """The repository that an import names. A relative path is meant from the first base that has it."""
    shown = without_secrets(source.url)[:200]
    if not is_oid(source.commit):
        raise MetafileInvalid(f"an import of {shown!r} names no commit (rev_lock); `dvc update` sets it")
    locations = [parse_location(source.url, base) for base in bases or (Path("/"),)]
    if not locations[0].local:
        return locations[0]
    if not bases:
        raise RepositoryUnusable(
            f"an import of {shown!r}, a path of this machine, by a repository from elsewhere is not followed"
        )
    for location in locations:
        if location.local and location.local.exists():
            return location
    raise RepositoryUnusable(f"the repository {shown!r} that was imported from is gone; bring it back there")


def _normalize(path: str, source: RepositoryImport) -> str:
    normal = posixpath.normpath(path or ".")
    if normal.startswith(("/", "../")) or normal == ".." or "\0" in normal:
        raise MetafileInvalid(
            f"an import of {path!r}, which is no path inside {without_secrets(source.url)!r}"
        )
    return "" if normal == "." else normal


def _visit(source: RepositoryImport, location: Location, path: str, repositories: Repositories) -> Hop:
    where = _describe(location, source.commit, path)
    try:
        files = repositories.open(location, source.commit)
    except StoreError as error:
        raise type(error)(f"imported from {where}: {error}") from None
    root = path
    while root and not files.exists(join(root, ".dvc")):
        root = root.rpartition("/")[0]
    inner = path[len(root) + 1 :] if root else path
    index = read_index(files, root=root)
    found = index.find(inner) if inner or not root else None
    if _is_file(files, path) or not found:
        if not files.exists(path) and not index.below(inner):
            fault = f"; {index.broken[0].message}" if index.broken else ""
            raise NotTracked(f"imported from {where}, where nothing of that name is tracked{fault}")
        return Hop(location, source.commit, files, root, path, None, "")
    tracked, inside = found
    return Hop(location, source.commit, files, root, path, tracked, inside)


def _is_file(files: Files, path: str) -> bool:
    """Whether git tracks a file there: then that is what DVC reads."""
    directory, _, name = path.rpartition("/")
    try:
        return any(item.name == name and not item.is_dir for item in files.list(directory))
    except OSError:
        return False


def _identity(location: Location) -> str:
    return str(location.local.resolve()) if location.local else location.url


def _describe(location: Location, commit: str, path: str) -> str:
    return f"{location.url}@{commit[:10]}:{path}"
