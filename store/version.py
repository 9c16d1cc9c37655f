"""A version's parts → a compiled tree: which outputs stand where, and what they hold.

A part is an output at a path of the mount. A directory's manifest is read, proved to
be what its oid says, parsed as hostile input and compiled once; the tree is kept by what it was
compiled from, so that the next mount opens a file and reads no manifest.
"""

from __future__ import annotations

import gc
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgpack

from store.errors import NotTracked, ObjectMissing
from store.manifest import Entry, check_manifest, parse_manifest
from store.oid import MD5, Oid
from store.tree import UNKNOWN
from store.tree_cache import TreeCache
from store.tree_compiler import Leaf, compile_tree, leaf_flags


@dataclass(frozen=True, slots=True)
class Part:
    """An output and its place: `path` from the mount's root, `/`-separated, empty for the root itself."""

    path: str
    oid: Oid
    size: int | None = None
    isexec: bool = False


@dataclass(frozen=True, slots=True)
class Version:
    """What is to be mounted. `inside` picks a directory or file below the only part, a directory."""

    parts: tuple[Part, ...]
    inside: str = ""

    @property
    def key(self) -> str:
        """The name under which the compiled tree is kept: the oid where that says everything."""
        (first, *others) = self.parts
        if not others and not self.inside and not first.path and first.oid.is_tree:
            suffix = "" if first.oid.algorithm == MD5 else f"-{first.oid.algorithm}"
            return first.oid.digest + suffix
        parts = [(p.path, str(p.oid), p.oid.algorithm, p.size, p.isexec) for p in self.parts]
        packed = msgpack.packb((parts, self.inside), unicode_errors="surrogateescape")
        return hashlib.sha256(packed).hexdigest()


def obtain_tree(version: Version, read: Callable[[Oid], bytes], trees: TreeCache, name: str) -> Path:
    """The compiled tree's file, compiled now if it is not kept. `name` is the target, for messages.

    `read` brings a manifest's bytes; it is not called when the tree is there. Raises what it raises
    (`ObjectMissing`, …), `ObjectCorrupt` for a manifest of other content than its oid promises,
    `ManifestInvalid` for what is in it, `NotTracked` where nothing is at `inside`, `CacheUnusable`
    where the tree cannot be kept.
    """
    if not trees.has(version.key):
        with _without_collector():
            leaves = _select(_leaves(version, read, name), version.inside, name)
            image = compile_tree(leaves, name)
        trees.put(version.key, image)
    return trees.path(version.key)


def keep_tree(oid: Oid, entries: Sequence[Entry], trees: TreeCache) -> Path:
    """Compile and keep the tree of a manifest whose entries are known with their sizes (a commit's).

    Only sizes are taken beyond what the manifest says: a tree is kept by its oid, so everything in
    it must follow from the oid, and the manifest forgets which files were executable.
    """
    version = Version((Part("", oid),))
    with _without_collector():
        known = [Entry(entry.relpath, entry.md5, entry.size) for entry in entries]
        image = compile_tree(_entry_leaves("", known, oid), str(oid))
    return trees.put(version.key, image)


def _leaves(version: Version, read: Callable[[Oid], bytes], name: str) -> list[Leaf]:
    leaves: list[Leaf] = []
    for part in version.parts:
        if part.oid.is_tree:
            leaves += _entry_leaves(part.path, _read_manifest(part.oid, read, name), part.oid)
        else:
            flags = leaf_flags(executable=part.isexec, algorithm=part.oid.algorithm)
            size = UNKNOWN if part.size is None else part.size
            leaves.append(Leaf(os.fsencode(part.path), part.oid.raw, size, flags))
    return leaves


def _read_manifest(oid: Oid, read: Callable[[Oid], bytes], name: str) -> list[Entry]:
    try:
        data = read(oid)
    except ObjectMissing as error:
        raise ObjectMissing(f"{name}: its manifest is missing: {error}; `dvc fetch` would bring it") from None
    check_manifest(data, oid)
    return parse_manifest(data, str(oid))


def _entry_leaves(place: str, entries: Sequence[Entry], oid: Oid) -> list[Leaf]:
    """The leaves of a directory; entries are hashed with the algorithm of their manifest."""
    prefix = os.fsencode(place) + b"/" if place else b""
    plain = leaf_flags(algorithm=oid.algorithm)
    executable = leaf_flags(executable=True, algorithm=oid.algorithm)
    return [
        Leaf(
            prefix + entry.relpath.encode("utf-8", "surrogateescape"),
            bytes.fromhex(entry.md5),
            UNKNOWN if entry.size is None else entry.size,
            executable if entry.isexec else plain,
        )
        for entry in entries
    ]


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
