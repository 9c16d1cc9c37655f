"""`Claims`: the objects that metafiles name, of working trees and of commits, for whoever may keep no others.

More is named than DVC would keep: a lock's stages that are no more, imports, and whatever stands in DVC
repositories within the repository. What cannot be read is told, and never taken for nothing.

Of many commits each metafile is read once, and trees without one are passed over. Blocking; one thread.
"""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from store.dvc.discovery import Broken, Metafile, discover, is_metafile
from store.dvc.files import Files, Item, SubFiles, join
from store.dvc.ignore import DVCIGNORE
from store.dvc.import_source import RepositoryImport
from store.dvc.index import find_dvc_roots
from store.dvc.metafile import Output
from store.dvc.pipeline import LOCK, PIPELINE, read_locked
from store.errors import MetafileInvalid
from store.git.commit import Commit
from store.git.files import GitFiles
from store.git.repository import Repository
from store.git.trees import Mode, TreeEntry
from store.oid import Oid

_DVC: Final = ".dvc"


@dataclass(frozen=True, slots=True)
class Claim:
    """An object that a metafile names."""

    oid: Oid
    where: str
    """The metafile that was first seen to name it, for messages."""
    needed: bool
    """Is it DVC's view, too, that it is kept here: neither an import nor what is left of an old stage?"""
    told: bool = False
    """Of a manifest: are all that it names claims, too?"""


@dataclass(slots=True)
class Claims:
    """What was read."""

    found: dict[Oid, Claim] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)
    """A line for each metafile that may name anything."""

    def read(self, files: Files, metafiles: Iterable[Metafile | Broken], where: str) -> None:
        """Read what a walk through `files` found; `where` says of which tree, for messages."""
        pipelines: dict[str, bool] = {}
        for found in metafiles:
            is_pipeline = posixpath.basename(found.path) == PIPELINE
            if is_pipeline:
                pipelines[found.path] = pipelines.get(found.path, False) or isinstance(found, Broken)
            if isinstance(found, Metafile):
                for output in found.outputs:
                    self._add(output, f"{found.path} {where}", needed=True)
            elif not is_pipeline:
                self.unreadable.append(f"{found.message} ({where})")
        for path, is_doubtful in pipelines.items():
            # What was not understood of a pipeline has its hashes in the lock all the same.
            lock = join(posixpath.dirname(path), LOCK)
            try:
                for output in read_locked(files, lock, lock):
                    self._add(output, f"{lock} {where}", needed=is_doubtful)
            except MetafileInvalid as error:
                self.unreadable.append(f"{error} ({where})")

    def _add(self, output: Output, where: str, *, needed: bool) -> None:
        if not output.cached or output.external:
            return
        needed = needed and not isinstance(output.source, RepositoryImport)
        for file in output.files:
            if file.oid is not None:
                self._claim(file.oid, where, needed)
        if output.oid is not None:
            self._claim(output.oid, where, needed, told=bool(output.entries))

    def _claim(self, oid: Oid, where: str, needed: bool, *, told: bool = False) -> None:
        known = self.found.get(oid)
        told = told or (known is not None and known.told)
        if known is None or (needed, told) > (known.needed, known.told):
            self.found[oid] = Claim(oid, where, needed or (known is not None and known.needed), told)


class _Interest(NamedTuple):
    """What in a tree of git's matters, as hashes; empty for nothing."""

    all: bytes
    rules: bytes
    """Of what says which of the metafiles count."""


_NOTHING: Final = _Interest(b"", b"")


class HistoryClaims:
    """Reads the commits of one repository into `claims`."""

    def __init__(self, repository: Repository, claims: Claims) -> None:
        self._repository = repository
        self._claims = claims
        self._interests: dict[str, _Interest] = {}
        self._done: set[tuple[bytes, str, bytes]] = set()
        """Subtrees that were read, with the rules that counted."""
        self._blobs: set[str] = set()
        """Metafiles that were read and say the same wherever they stand."""

    def read(self, commit: Commit) -> None:
        """Raises `RepositoryUnusable`, `ObjectMissing`, `ObjectCorrupt`, `StoreTimeout`."""
        interest = self.interest(commit.tree)
        if not interest.all or (interest.rules, "", interest.all) in self._done:
            return
        files = _UnreadFiles(self, commit, interest.rules)
        where = f"in commit {commit.oid[:10]}"
        outputs: set[str] = set()

        def walk(root: str, below: Files) -> Iterator[Metafile | Broken]:
            for found in discover(below):
                if isinstance(found, Metafile):
                    outputs.update(join(root, found.output_path(output)) for output in found.outputs)
                yield found

        for root in find_dvc_roots(files) or ("",):
            below: Files = SubFiles(files, root) if root else files
            self._claims.read(below, walk(root, below), f"below {root!r} {where}" if root else where)
        # A walk does not go into outputs: what git tracks in one was not read.
        closed = [path for path in outputs if files.is_directory(path)]
        trees = {*files.trees, (interest.rules, "", interest.all)}
        self._done |= {tree for tree in trees if not any(_overlap(tree[1], path) for path in closed)}
        self._blobs |= files.blobs

    def is_done(self, rules: bytes, path: str, tree: str) -> bool:
        """Is there nothing in a subtree that was not read?"""
        interest = self.interest(tree).all
        return not interest or (rules, path, interest) in self._done

    def is_read(self, blob: str) -> bool:
        return blob in self._blobs

    def interest(self, tree: str) -> _Interest:
        """What matters in a tree and below. Raises as `read`."""
        waiting = [tree]
        while waiting:
            oid = waiting[-1]
            if oid in self._interests:
                waiting.pop()
                continue
            entries = self._repository.trees.read(oid).values()
            below = [one.oid for one in entries if one.mode is Mode.TREE and one.name != _DVC.encode()]
            unknown = [one for one in below if one not in self._interests]
            if unknown:
                waiting += unknown
                continue
            self._interests[oid] = self._sum(entries)
            waiting.pop()
        return self._interests[tree]

    def _sum(self, entries: Iterable[TreeEntry]) -> _Interest:
        everything, rules = hashlib.blake2b(digest_size=16), hashlib.blake2b(digest_size=16)
        found = _NOTHING
        for entry in entries:
            name = entry.name.decode("utf-8", "surrogateescape")
            interest = _NOTHING
            if entry.mode is Mode.TREE:
                interest = _Interest(b".", b".") if name == _DVC else self._interests[entry.oid]
            elif entry.mode is not Mode.SUBMODULE and name == DVCIGNORE:
                interest = _Interest(entry.oid.encode(), entry.oid.encode())
            elif entry.mode is not Mode.SUBMODULE and (is_metafile(name) or name == LOCK):
                interest = _Interest(b"%o %s" % (entry.mode, entry.oid.encode()), b"")
            for part, digest in zip(interest, (everything, rules), strict=True):
                if part:
                    digest.update(b"%s\0%s\0" % (entry.name, part))
            found = _Interest(found.all or interest.all, found.rules or interest.rules)
        return _Interest(
            everything.digest() if found.all else b"",
            rules.digest() if found.rules else b"",
        )


class _UnreadFiles:
    """`Files` of a commit without what was read of others."""

    def __init__(self, history: HistoryClaims, commit: Commit, rules: bytes) -> None:
        self._history = history
        self._files = GitFiles(history._repository, commit)
        self._rules = rules
        self.trees: set[tuple[bytes, str, bytes]] = set()
        self.blobs: set[str] = set()

    def read(self, path: str, limit: int) -> bytes | None:
        name = posixpath.basename(path)
        if is_metafile(name) and name != PIPELINE:
            entry = self._find(path)
            if entry is not None:
                self.blobs.add(entry.oid)
        return self._files.read(path, limit)

    def exists(self, path: str) -> bool:
        return self._files.exists(path)

    def list(self, path: str) -> list[Item]:
        return [item for item in self._files.list(path) if self._is_of_interest(path, item)]

    def _is_of_interest(self, directory: str, item: Item) -> bool:
        path = join(directory, item.name)
        if item.name == _DVC:
            return item.is_dir
        if not item.is_dir and not is_metafile(item.name):
            return item.name == DVCIGNORE
        entry = self._files.find(path)
        if entry is None or entry.mode is Mode.SUBMODULE:
            return False
        if item.is_dir:
            interest = self._history.interest(entry.oid)
            if self._history.is_done(self._rules, path, entry.oid):
                return False
            self.trees.add((self._rules, path, interest.all))
            return True
        if item.name == PIPELINE:
            return True
        return not self._history.is_read(entry.oid)

    def is_directory(self, path: str) -> bool:
        entry = self._find(path)
        return entry is not None and entry.mode is Mode.TREE

    def _find(self, path: str) -> TreeEntry | None:
        return None if path == ".." or path.startswith(("../", "/")) else self._files.find(path)


def _overlap(one: str, other: str) -> bool:
    """Is one of two directories the other, or in it?"""
    return not one or not other or f"{one}/".startswith(f"{other}/") or f"{other}/".startswith(f"{one}/")
