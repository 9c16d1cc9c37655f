"""What a backup is made of: the outputs of versions that the user names, and the objects that these name.

Callers: `fusefs backup`, `fusefs restore`. Blocking.
"""

from __future__ import annotations

import contextlib
import posixpath
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fusefs.clones import repository_directory
from fusefs.dataset import Dataset
from store.backup.format import METAFILE_LIMIT, Header, Recorded, Revision
from store.backup.writing import Kept
from store.cache_chain import CacheChain
from store.dvc.files import WorkingFiles
from store.dvc.metafile import Output
from store.dvc.versioned import Wanted
from store.errors import InputError, ObjectMissing, StoreError
from store.git.commit import Commit
from store.git.files import GitFiles
from store.git.repository import Repository
from store.local_cache import LocalCache
from store.manifest import parse_manifest
from store.oid import DVC_ALGORITHMS, Oid
from store.revision import told_manifests
from store.tree import UNKNOWN

SUFFIX = ".dvc"


@dataclass(frozen=True, slots=True)
class Contents:
    """What goes into a backup: its header, objects in order with their lengths in bytes, products."""

    header: Header
    objects: tuple[tuple[Oid, int], ...]
    products: tuple[Kept, ...] = ()

    def with_products(self, views: Iterable[str], products: Sequence[Kept]) -> Contents:
        """The same with products of views, each once."""
        kept = tuple({product.key: product for product in products}.values())
        size = sum(product.size for product in kept)
        header = replace(self.header, views=tuple(sorted(set(views))), products=len(kept), product_bytes=size)
        return Contents(header, self.objects, kept)


def record_outputs(dataset: Dataset, name: str) -> tuple[Recorded, ...]:
    """The outputs of a version whose revision the user called `name`; all of one that a part of was named.

    Raises `InputError` for what is none.
    """
    if not dataset.wanted:
        if not dataset.oid:
            raise InputError(f"{dataset.target} is no output; name a tracked path, a revision or an oid")
        local = LocalCache(dataset.cache)
        candidates = [Oid.parse(dataset.oid, algorithm) for algorithm in DVC_ALGORITHMS]
        oid = next(filter(local.has, candidates), candidates[0])
        return (Recorded(oid.digest[:10], oid),)
    recorded = []
    with contextlib.ExitStack() as stack:
        texts = _Texts(dataset, stack)
        for wanted in dataset.wanted:
            output = wanted.output
            if output.oid is None:
                continue  # an import that was not downloaded, which a warning has told of
            path = posixpath.join(wanted.root, wanted.path)
            recorded.append(_record(output, path, texts.revision(name), texts.metafile(wanted)))
    return tuple(recorded)


def gather(
    outputs: Sequence[Recorded], before: Sequence[Recorded], datasets: Iterable[Dataset], cache: CacheChain
) -> Contents:
    """All that `outputs` name and `before` do not. Raises `ObjectMissing` for what is not here."""
    told: dict[Oid, bytes] = {}
    for dataset in datasets:
        told.update(told_manifests(wanted.output for wanted in dataset.wanted))
    known = {oid for output in before for oid in _named(output.oid, told, cache)}
    plain: dict[Oid, None] = {}
    manifests: dict[Oid, None] = {}
    for output in outputs:
        for oid in _named(output.oid, told, cache):
            if oid not in known:
                (manifests if oid.is_tree else plain)[oid] = None
    objects = measure([*plain, *manifests], cache)
    header = Header(
        tuple(outputs),
        len(objects),
        sum(size for _, size in objects),
        tuple(dict.fromkeys(output.oid for output in before)),
    )
    return Contents(header, objects)


def places(outputs: Sequence[Recorded]) -> list[tuple[str, Recorded]]:
    """Where the metafile of each output belongs, from the directory that it is restored to.

    Where a backup has several versions of one path, each has a directory, named by its revision.
    """
    paths = [output.path for output in outputs]
    if len(set(paths)) == len(paths):
        return [(output.path + SUFFIX, output) for output in outputs]
    found: dict[str, Recorded] = {}
    for output in outputs:
        revision = output.revision.oid[:10] or output.oid.digest[:10]
        found.setdefault(f"{revision}/{output.path}{SUFFIX}", output)
    return list(found.items())


def missing_of(output: Recorded, cache: CacheChain) -> int:
    """How many objects that an output names are not in the cache."""
    try:
        oids = _named(output.oid, {}, cache)
    except ObjectMissing:
        return 1
    return sum(length == UNKNOWN for _, length in _lengths(list(oids), cache))


def _named(oid: Oid, told: dict[Oid, bytes], cache: CacheChain) -> dict[Oid, None]:
    """An output's own object, and where that is a manifest those in it, which come first."""
    if not oid.is_tree:
        return {oid: None}
    data = told.get(oid) or _read(oid, cache)
    entries = parse_manifest(data, str(oid))
    found = {Oid(entry.md5, algorithm=oid.algorithm): None for entry in entries}
    if oid not in told:  # what the metafile tells has no object
        found[oid] = None
    return found


def _read(oid: Oid, cache: CacheChain) -> bytes:
    descriptor, _ = cache.open(oid)
    with open(descriptor, "rb") as file:
        return file.read()


def measure(oids: Iterable[Oid], cache: CacheChain) -> tuple[tuple[Oid, int], ...]:
    """Objects and their lengths in bytes. Raises `ObjectMissing` for those that are not here."""
    oids = list(oids)
    lengths = dict(_lengths(oids, cache))
    lacking = [oid for oid in oids if lengths[oid] == UNKNOWN]
    if lacking:
        raise ObjectMissing(
            f"{len(lacking)} objects are not here, such as {lacking[0]}; `fusefs fetch` brings them"
        )
    return tuple((oid, lengths[oid]) for oid in oids)


def _lengths(oids: Sequence[Oid], cache: CacheChain) -> list[tuple[Oid, int]]:
    found: list[tuple[Oid, int]] = []
    for algorithm in DVC_ALGORITHMS:
        some = [oid for oid in oids if oid.algorithm == algorithm]
        found += zip(some, cache.lengths([str(oid) for oid in some], algorithm), strict=True)
    return found


def _record(output: Output, path: str, revision: Revision, metafile: str) -> Recorded:
    assert output.oid is not None  # the caller has looked
    recorded = Recorded(path, output.oid, output.size, output.nfiles, output.isexec, revision)
    return replace(recorded, metafile=metafile)


class _Texts:
    """The commit that a dataset is from, and its metafiles' bytes; nothing where they are not to be had."""

    def __init__(self, dataset: Dataset, stack: contextlib.ExitStack) -> None:
        self._commit: Commit | None = None
        self._files: GitFiles | WorkingFiles | None = None
        if dataset.origin is None:
            return
        if not dataset.rev:
            self._files = WorkingFiles(Path(dataset.origin.repo))
            return
        with contextlib.suppress(StoreError):
            repository = stack.enter_context(Repository.open(repository_directory(dataset.origin.repo)))
            self._commit = repository.commit(dataset.rev)
            self._files = GitFiles(repository, self._commit)

    def revision(self, name: str) -> Revision:
        commit = self._commit
        if commit is None:
            return Revision()
        return Revision(commit.oid, name, max(commit.time, 0), commit.author, commit.subject)

    def metafile(self, wanted: Wanted) -> str:
        """The `.dvc` file of an output, where it has one that is text."""
        if self._files is None or wanted.output.stage:
            return ""
        path = posixpath.join(wanted.root, wanted.path) + SUFFIX
        try:
            data = self._files.read(path, METAFILE_LIMIT)
            return "" if data is None else data.decode()
        except (StoreError, OSError, UnicodeDecodeError):
            return ""
