"""A version's parts → a compiled tree: which outputs and git trees stand where, and what they hold.

A part is an output of DVC's or a tree of git's at a path of the mount. A manifest is read, proved to
be what its oid says, parsed as hostile input and compiled once; the tree is kept by what it was
compiled from, so that the next mount opens a file and reads no manifest.
"""

from __future__ import annotations

import gc
import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import msgpack

from store.errors import NotTracked, ObjectMissing, Offline, RemoteError
from store.git.files import GitEntry
from store.git.trees import Mode
from store.layering import Layer, lay_over
from store.manifest import Entry, check_entries, check_manifest, decode_manifest
from store.oid import DIGEST_BYTES, GIT_SHA1, GIT_SHA256, MD5, Oid
from store.tree import DIRECTORY, UNKNOWN
from store.tree_cache import TreeCache
from store.tree_compiler import Leaf, TreeImage, compile_tree, leaf_flags

SHA1_DIGITS: Final = 2 * DIGEST_BYTES[GIT_SHA1]
MANY: Final = 1 << 16
"""Entries of a manifest that are looked at all at once, and not one by one."""
LARGE_BYTES: Final = 1 << 22
"""A manifest that is hashed and parsed at the same time."""


@dataclass(frozen=True, slots=True)
class Part:
    """An output and its place: `path` from the mount's root, `/`-separated, empty for the root itself."""

    path: str
    oid: Oid
    size: int | None = None
    isexec: bool = False


@dataclass(frozen=True, slots=True)
class GitPart:
    """What git tracks at `path` of a commit, shown at `path` of the mount."""

    path: str
    git_dir: Path
    commit: str
    source: str
    """The path in the commit, a file's or a directory's; empty for its root."""
    oid: str
    """Git's name of the tree or blob there: what the part's content follows from."""


@dataclass(frozen=True, slots=True)
class Version:
    """What is to be mounted. Of two parts that claim a path the earlier one has it.

    `inside` picks a directory or file below them.
    """

    parts: tuple[Part | GitPart, ...]
    inside: str = ""

    @property
    def key(self) -> str:
        """The name under which the compiled tree is kept: the oid where that says everything."""
        match self.parts:
            case (Part(path="", oid=Oid(is_tree=True) as oid),) if not self.inside:
                return oid.digest if oid.algorithm == MD5 else f"{oid.digest}-{oid.algorithm}"
        packed = msgpack.packb(
            ([_identity(part) for part in self.parts], self.inside), unicode_errors="surrogateescape"
        )
        return hashlib.sha256(packed).hexdigest()


def _identity(part: Part | GitPart) -> tuple[object, ...]:
    """What of a part the tree follows from: not where a repository lies on this machine."""
    if isinstance(part, GitPart):
        return (part.path, part.oid)
    return (part.path, str(part.oid), part.oid.algorithm, part.size, part.isexec)


class Materials(Protocol):
    """What a version is compiled from."""

    def read_manifest(self, oid: Oid) -> bytes:
        """A manifest's bytes, unproved. Raises `ObjectMissing`, `Offline`, `RemoteError`."""

    def list_git(self, part: GitPart) -> Iterable[GitEntry]:
        """Everything that git tracks at and below a part's source. Raises `RepositoryUnusable`."""


def obtain_tree(version: Version, materials: Materials, trees: TreeCache, name: str) -> Path:
    """The compiled tree's file, compiled now if it is not kept. `name` is the target, for messages.

    `materials` are not asked when the tree is there. Raises what they raise, `ObjectCorrupt` for a
    manifest of other content than its oid promises, `ManifestInvalid` for what is in it,
    `NotTracked` where nothing is at `inside`, `CacheUnusable` where the tree cannot be kept.
    """
    key = version.key
    if not trees.has(key):
        with _without_collector():
            image = _compile(version, materials, name)
        trees.put(key, image)
    return trees.path(key)


def _compile(version: Version, materials: Materials, name: str) -> TreeImage:
    match version.parts:
        case (Part(path="", oid=Oid(is_tree=True) as oid),) if not version.inside:
            entries = _read_manifest(oid, materials, name)
            image = _compile_many(entries, oid, name)
            if image is None:
                check_entries(entries, str(oid))
                image = compile_tree(_entry_leaves("", entries, oid), name)
            return image
    layers = [Layer(part.path, _leaves(part, materials, name)) for part in version.parts]
    leaves = layers[0].leaves if len(layers) == 1 else lay_over(layers)
    return compile_tree(_select(leaves, version.inside, name), name)


def _compile_many(entries: Sequence[Entry], oid: Oid, name: str) -> TreeImage | None:
    """The tree of a large manifest; None where it is not large, or something is wrong with an entry."""
    if len(entries) < MANY:
        return None
    # Imported here: numpy takes longer to import than a small tree to compile.
    from store.listing import list_files
    from store.listing_compiler import compile_listing

    listing = list_files(entries)
    return compile_listing(listing, name, *_flags_of(oid)) if listing is not None else None


def keep_tree(oid: Oid, entries: Sequence[Entry], trees: TreeCache) -> Path:
    """Compile and keep the tree of a manifest whose entries are known with their sizes (a commit's).

    Only sizes are taken beyond what the manifest says: a tree is kept by its oid, so everything in
    it must follow from the oid, and the manifest forgets which files were executable.
    """
    version = Version((Part("", oid),))
    with _without_collector():
        known = [Entry(entry.relpath, entry.md5, entry.size) for entry in entries]
        image = _compile_many(known, oid, str(oid)) or compile_tree(_entry_leaves("", known, oid), str(oid))
    return trees.put(version.key, image)


def _leaves(part: Part | GitPart, materials: Materials, name: str) -> list[Leaf]:
    if isinstance(part, GitPart):
        return _git_leaves(part, materials.list_git(part))
    if part.oid.is_tree:
        entries = _read_manifest(part.oid, materials, name)
        check_entries(entries, str(part.oid))
        return _entry_leaves(part.path, entries, part.oid)
    flags = leaf_flags(executable=part.isexec, algorithm=part.oid.algorithm)
    size = UNKNOWN if part.size is None else part.size
    return [Leaf(os.fsencode(part.path), part.oid.raw, size, flags)]


def _read_manifest(oid: Oid, materials: Materials, name: str) -> list[Entry]:
    """The manifest's entries, which are yet to be checked."""
    try:
        data = materials.read_manifest(oid)
    except (ObjectMissing, Offline, RemoteError) as error:
        raise type(error)(f"{name}: its manifest is missing: {error}") from None
    if len(data) < LARGE_BYTES:
        check_manifest(data, oid)
        return decode_manifest(data, str(oid))
    from concurrent.futures import ThreadPoolExecutor  # here, for few need it

    with ThreadPoolExecutor(1) as beside:  # hashing and parsing take the same time, and a core each
        proof = beside.submit(check_manifest, data, oid)
        try:
            return decode_manifest(data, str(oid))
        finally:
            proof.result()  # what is not what it should be is not blamed for what is in it


def _entry_leaves(place: str, entries: Sequence[Entry], oid: Oid) -> list[Leaf]:
    """The leaves of a directory; entries are hashed with the algorithm of their manifest."""
    prefix = os.fsencode(place) + b"/" if place else b""
    plain, executable = _flags_of(oid)
    leaves = [
        Leaf(
            prefix + entry.relpath.encode("utf-8", "surrogateescape"),
            bytes.fromhex(entry.md5),
            UNKNOWN if entry.size is None else entry.size,
            executable if entry.isexec else plain,
        )
        for entry in entries
    ]
    if not leaves and prefix:
        leaves.append(Leaf(prefix[:-1], flags=DIRECTORY))
    return leaves


def _flags_of(oid: Oid) -> tuple[int, int]:
    """The flags of a manifest's plain files, and of its executable ones."""
    return leaf_flags(algorithm=oid.algorithm), leaf_flags(executable=True, algorithm=oid.algorithm)


def _git_leaves(part: GitPart, entries: Iterable[GitEntry]) -> list[Leaf]:
    """The leaves of what git tracks: submodules are empty directories, as in a plain checkout."""
    above = len(os.fsencode(part.source)) + 1 if part.source else 0
    prefix = os.fsencode(part.path)
    leaves = []
    for entry in entries:
        below = entry.path[above:]
        path = b"/".join(piece for piece in (prefix, below) if piece)
        if entry.mode is Mode.SUBMODULE:
            leaves.append(Leaf(path, flags=DIRECTORY))
            continue
        flags = leaf_flags(
            executable=entry.mode is Mode.EXECUTABLE,
            symlink=entry.mode is Mode.SYMLINK,
            algorithm=GIT_SHA1 if len(entry.oid) == SHA1_DIGITS else GIT_SHA256,
        )
        size = UNKNOWN if entry.size is None else entry.size
        leaves.append(Leaf(path, bytes.fromhex(entry.oid), size, flags))
    return leaves


def _select(leaves: list[Leaf], inside: str, name: str) -> list[Leaf]:
    """The leaves at or below `inside`, with what is left of their paths."""
    if not inside:
        return leaves
    wanted = os.fsencode(inside)
    below = wanted + b"/"
    chosen = [leaf._replace(path=leaf.path[len(below) :]) for leaf in leaves if leaf.path.startswith(below)]
    if not chosen:
        label = wanted.rpartition(b"/")[2]
        chosen = [leaf._replace(path=label) for leaf in leaves if leaf.path == wanted]
    if not chosen:
        raise NotTracked(f"{name}: nothing is called {inside!r} in this version")
    return chosen


@contextmanager
def _without_collector() -> Iterator[None]:
    """No cycle can come of a million leaves, and looking for one takes longer than compiling them."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
