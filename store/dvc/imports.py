"""`follow_import`: from an imported output to where its content comes from, through as many repositories.

`dvc import` copies a path of another repository as it is at one commit. There it may be a file of
git's, an output whose objects are in that repository's remotes, or an import again. Every repository
on the way is a place where the content may be.

A repository that came from elsewhere, or that is somebody else's, must not make us look at this user's
directories: paths of this machine are followed only from repositories on it that are his.

Callers: `store.imported`. Blocking as the given `Repositories` are; any thread.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, Self

from store.dvc.files import Files, join
from store.dvc.import_source import RepositoryImport
from store.dvc.index import Index, TrackedOutput
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

    def read_index(self, location: Location, commit: str, root: str) -> Index:
        """What the DVC repository at `root` of those files tracks. Raises as `open` does."""


@dataclass(frozen=True, slots=True)
class Importer:
    """A repository that imports, by what a path of this machine may mean in it."""

    bases: tuple[Path, ...] = ()
    """The directories that a relative path may be meant from: the metafile's, then the DVC root's.
    None where paths are not followed."""
    refusal: str = "a repository from elsewhere"
    """Whose paths are not followed, if there are no bases."""

    @classmethod
    def at(cls, repository: Path, root: str, metafile: str) -> Self:
        """The importer that is a repository of this machine, at its directory: whose it is counts.

        `root` is the DVC root in it and `metafile` the path of the import from there.
        """
        try:
            own = repository.stat().st_uid == os.geteuid()
        except OSError:
            own = False
        if not own:
            return cls((), "a repository of another user")
        home = repository / root
        return cls((home / posixpath.dirname(metafile), home))


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

    def importer(self, metafile: str) -> Importer:
        """What a path means in a metafile (given from the DVC root) of this place."""
        return Importer.at(self.location.local, self.root, metafile) if self.location.local else Importer()

    def __str__(self) -> str:
        return _describe(self.location, self.commit, self.path)


def follow_import(source: RepositoryImport, repositories: Repositories, importer: Importer) -> Iterator[Hop]:
    """The places that an imported output came through, the nearest first; at least one.

    Each is visited when it is asked for: whoever found the content goes no further. Raises
    `MetafileInvalid` for an import that names nothing, for a loop, and for more than `HOPS`;
    `NotTracked` where the source has no such path; and, with the import's name in front, what
    `repositories` raise.
    """
    hops: list[Hop] = []
    wanted = source.path
    while True:
        location, path = _locate(source, importer), _normalize(wanted, source)
        passed = " → ".join([*(str(hop) for hop in hops), _describe(location, source.commit, path)])
        here = (_identity(location), source.commit, path)
        if any(here == (_identity(hop.location), hop.commit, hop.path) for hop in hops):
            raise MetafileInvalid(f"imports go round in a circle: {passed}; import it from its origin")
        if len(hops) == HOPS:
            raise MetafileInvalid(f"an import of an import, more than {HOPS} times: {passed}")
        hop = _visit(source, location, path, repositories)
        yield hop
        hops.append(hop)
        onward = hop.tracked.source if hop.tracked else None
        if hop.tracked is None or not isinstance(onward, RepositoryImport):
            return
        source, wanted, importer = onward, join(onward.path, hop.inside), hop.importer(hop.tracked.metafile)


def _locate(source: RepositoryImport, importer: Importer) -> Location:
    """The repository that an import names. A relative path is meant from the first base that has it."""
    shown = without_secrets(source.url)[:200]
    if not is_oid(source.commit):
        raise MetafileInvalid(f"an import of {shown!r} names no commit (rev_lock); `dvc update` sets it")
    locations = [parse_location(source.url, base) for base in importer.bases or (Path("/"),)]
    if not locations[0].local:
        return locations[0]
    if not importer.bases:
        raise RepositoryUnusable(
            f"an import of {shown!r}, a path of this machine, by {importer.refusal} is not followed"
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
    index = repositories.read_index(location, source.commit, root)
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
