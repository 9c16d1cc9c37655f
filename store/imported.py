"""`ImportFinder`: where an imported output's content is, if the project's own cache lacks some of it.

`dvc import` leaves data that no remote of the project has: it is in the repository that it came from,
at the commit that the import names. There it is an output, whose objects that repository's cache may
have, a file or directory of git's, or an import again. The nearest place that has everything is taken;
if none has, the nearest that can at least be listed.

Callers: `fusefs.dataset`. Blocking: repositories are opened, and cloned. One thread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Protocol

from store.cache_chain import CacheChain
from store.dvc.import_source import RepositoryImport
from store.dvc.imports import Hop, Importer, follow_import
from store.dvc.index import TrackedOutput
from store.dvc.metafile import Output
from store.dvc.versioned import Wanted
from store.errors import (
    ConfigInvalid,
    MetafileInvalid,
    NotStored,
    NotTracked,
    ObjectCorrupt,
    ObjectMissing,
    Offline,
    RemoteError,
    StoreError,
)
from store.git.trees import Mode
from store.import_sources import ImportSources
from store.local_cache import LocalCache
from store.manifest import Entry, check_manifest, manifest_oid, parse_manifest, serialize_manifest
from store.oid import Oid
from store.prefetching import fetch_below
from store.revision import Beyond, Found, locate
from store.tree import UNKNOWN
from store.version import GitPart, Part

NESTED: Final = 16
"""Directories of git's that were imported and hold imports of such directories; people have none."""

_ASKED_AT_ONCE: Final = 4096


class ImportRemotes(Protocol):
    """The remotes of repositories that something was imported from."""

    @property
    def brought(self) -> Mapping[Oid, bytes]:
        """Manifests that no cache could take."""

    def bring_beyond(self, hop: Hop, root: str, outputs: Sequence[TrackedOutput]) -> Mapping[Oid, StoreError]:
        """Bring the manifests of outputs of the DVC repository at `root` there; tell which cannot be had."""


@dataclass(frozen=True, slots=True)
class ImportFinder:
    """Finds for the imports of one repository; `find` is a `store.revision.Find`."""

    sources: ImportSources
    caches: tuple[LocalCache, ...]
    """Where the repository's objects are."""
    home: Path | None
    """The repository's directory; None for one that is not on this machine."""
    remotes: ImportRemotes | None = None
    """Asked for manifests that no cache has."""
    depth: int = 0

    def find(self, output: Output, root: str, metafile: str) -> Found | None:
        """Where an import's content is; None where the caches have it, and for what is no import.

        Raises `StoreError`, with a line that names the chain, where it is nowhere.
        """
        source = output.source
        if not isinstance(source, RepositoryImport) or not output.cached:
            return None
        here = CacheChain(*self.caches)
        if output.oid is not None and _is_whole(output.oid, here):
            return None
        importer = Importer() if self.home is None else Importer.at(self.home, root, metafile)
        try:
            return self._follow(output, source, importer)
        except StoreError as error:
            if output.oid is None or not output.oid.is_tree or not here.has(output.oid):
                raise
            # Some of it is here, and all of it can be listed.
            warning = f"{output.path!r} is not whole in the cache, and {error}"
            return Found((Part("", output.oid),), is_dir=True, warnings=(warning,))

    def _follow(self, output: Output, source: RepositoryImport, importer: Importer) -> Found:
        """Go from repository to repository until one has everything."""
        beyond: list[LocalCache] = []
        best: Found | None = None
        passed: list[Hop] = []
        origins: list[Beyond] = []
        refusal: StoreError | None = None
        hops = follow_import(source, self.sources, importer)
        while True:
            try:
                hop = next(hops, None)
                if hop is None:
                    break
                self.sources.count()
            except StoreError as error:
                refusal = error
                break
            passed.append(hop)
            try:
                beyond.append(self.sources.find_cache(hop.location, hop.root))
            except ConfigInvalid as error:
                refusal = error
            if hop.tracked is None or not hop.tracked.output.cached:
                return self._find_in_git(hop, beyond)
            chain = CacheChain(*self.caches, *beyond)
            try:
                found = self._read(hop, hop.tracked, chain)
            except (NotStored, ObjectMissing, Offline, RemoteError) as error:
                refusal = error
                continue
            _check_same(output, found, hop)
            found = replace(found, caches=tuple(cache.root for cache in beyond))
            if _has_all(found, chain):
                return found
            wanted = (Wanted(hop.root, hop.tracked.path, hop.tracked.output),)
            origins.append(Beyond(hop, wanted))
            best = best or found
        if best is not None:
            further = (cache.root for cache in beyond if cache.root not in best.caches)
            return replace(best, caches=(*best.caches, *further), beyond=tuple(origins))
        is_absent = isinstance(refusal, NotStored | ObjectMissing | Offline | RemoteError)
        if not passed or (refusal is not None and not is_absent):
            assert refusal is not None  # what ended the way before its first place
            raise refusal
        way = " → ".join(map(str, passed))
        raise ObjectMissing(f"imported from {way}: {refusal}; `dvc fetch` there or `dvc pull` here brings it")

    def _read(self, hop: Hop, tracked: TrackedOutput, chain: CacheChain) -> Found:
        """An output of another repository; its manifest comes from there where no cache has it.

        Raises `NotStored`, `ObjectMissing`, `NotTracked`, `Offline`, `RemoteError`.
        """
        try:
            return _read_output(hop, tracked.output, chain, {})
        except ObjectMissing:
            if self.remotes is None:
                raise
        for failure in self.remotes.bring_beyond(hop, hop.root, [tracked]).values():
            raise failure
        return _read_output(hop, tracked.output, chain, self.remotes.brought)

    def _find_in_git(self, hop: Hop, beyond: list[LocalCache]) -> Found:
        """What git tracks at a place, and the outputs of DVC's in it."""
        files = self.sources.open(hop.location, hop.commit)
        entry = files.find(hop.path)
        is_dir = entry is None or entry.mode in (Mode.TREE, Mode.SUBMODULE)
        if entry is not None and (hop.tracked is not None or not is_dir):
            part = GitPart("", files.repository.git_dir, files.commit.oid, hop.path, entry.oid)
            found = Found((part,), is_dir)
        else:
            found = self._find_in_directory(hop, beyond)
        if hop.location.local is None:
            for one in found.parts:
                if isinstance(one, GitPart) and one.git_dir == files.repository.git_dir:
                    fetch_below(files, one.source)
        return found

    def _find_in_directory(self, hop: Hop, beyond: list[LocalCache]) -> Found:
        if self.depth >= NESTED:
            raise MetafileInvalid(f"imported from {hop}: directories that import directories, {NESTED} deep")
        files = self.sources.open(hop.location, hop.commit)
        caches = (*self.caches, *beyond)
        inner = ImportFinder(self.sources, caches, hop.location.local, self.remotes, self.depth + 1)
        chain = CacheChain(*caches)

        def bring(root: str, outputs: Sequence[TrackedOutput]) -> Mapping[Oid, StoreError]:
            absent = [one for one in outputs if one.output.oid is not None and not chain.has(one.output.oid)]
            if self.remotes is not None and absent:
                return self.remotes.bring_beyond(hop, root, absent)
            missing = [one.output.oid for one in absent if one.output.oid is not None]
            return {oid: ObjectMissing(f"its manifest {oid} is missing") for oid in missing}

        located = locate(files.repository, files.commit, hop.path, str(hop), bring, inner.find)
        roots = [cache.root for cache in beyond]
        return Found(
            located.version.parts,
            is_dir=True,
            manifests=located.manifests,
            caches=tuple(dict.fromkeys((*roots, *located.caches))),
            warnings=located.warnings,
            beyond=(*((Beyond(hop, located.wanted),) if located.wanted else ()), *located.beyond),
        )


def _read_output(hop: Hop, output: Output, caches: CacheChain, brought: Mapping[Oid, bytes]) -> Found:
    """An output of another repository, or what the import names inside of it.

    Raises `NotStored`, `ObjectMissing`, `NotTracked`.
    """
    if output.oid is None:
        raise NotStored(f"{output.path!r} has no hash there")
    if not output.oid.is_tree:
        return Found((Part("", output.oid, output.size, output.isexec),), is_dir=False)
    told = {output.oid: brought[output.oid]} if output.oid in brought else {}
    if output.entries:
        told = {output.oid: serialize_manifest((entry.relpath, entry.md5) for entry in output.entries)}
    if not hop.inside and (told or caches.has(output.oid)):
        return Found((Part("", output.oid),), True, told)
    data = told[output.oid] if told else caches.read(output.oid)
    return _select(hop, _parse(data, output.oid), output.oid)


def _select(hop: Hop, entries: list[Entry], oid: Oid) -> Found:
    """A directory or file within an output: the manifest of a directory is made of that of the whole."""
    below = f"{hop.inside}/"
    chosen = [
        (entry.relpath[len(below) :], entry.md5) for entry in entries if entry.relpath.startswith(below)
    ]
    if chosen:
        data = serialize_manifest(chosen)
        made = replace(manifest_oid(data), algorithm=oid.algorithm)
        return Found((Part("", made),), True, {made: data})
    for entry in entries:
        if entry.relpath == hop.inside:
            return Found((Part("", Oid.parse(entry.md5, oid.algorithm), entry.size, entry.isexec),), False)
    raise NotTracked(f"imported from {hop}, and nothing of that name is in that version")


def _check_same(output: Output, found: Found, hop: Hop) -> None:
    """Is it what was imported? Told where both were hashed in the same way. Raises `ObjectCorrupt`."""
    for part in found.parts:
        if isinstance(part, Part) and output.oid is not None:
            same = part.oid.algorithm == output.oid.algorithm
            if same and part.oid != output.oid:
                raise ObjectCorrupt(
                    f"imported from {hop}, where {part.oid} is and not {output.oid}; `dvc update` it"
                )


def _has_all(found: Found, caches: CacheChain) -> bool:
    """Whether the caches hold every object."""
    for part in found.parts:
        if isinstance(part, Part):
            data = found.manifests.get(part.oid)
            if data is not None and not _has_entries(_parse(data, part.oid), part.oid, caches):
                return False
            if data is None and not _is_whole(part.oid, caches):
                return False
    return True


def _is_whole(oid: Oid, caches: CacheChain) -> bool:
    """Whether the caches hold an object and, of a manifest, every file's."""
    if not oid.is_tree:
        return caches.has(oid)
    try:
        entries = _parse(caches.read(oid), oid)
    except StoreError:
        return False
    return _has_entries(entries, oid, caches)


def _has_entries(entries: list[Entry], oid: Oid, caches: CacheChain) -> bool:
    for start in range(0, len(entries), _ASKED_AT_ONCE):
        digests = [entry.md5 for entry in entries[start : start + _ASKED_AT_ONCE]]
        if UNKNOWN in caches.lengths(digests, oid.algorithm):
            return False
    return True


def _parse(data: bytes, oid: Oid) -> list[Entry]:
    check_manifest(data, oid)
    return parse_manifest(data, str(oid))
