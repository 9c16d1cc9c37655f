"""`read_history`: the versions of a target, newest first, each with what it changed.

A version is a commit at which the target's content is another than at the commit before it; where two
lines of history were merged, than at either. What was added, changed and removed is told where the
manifests are in the cache, and otherwise not at all: nothing is guessed.

Callers: the command `log`. Blocking; one thread.
"""

from __future__ import annotations

import math
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final, NamedTuple

from store.errors import (
    CacheUnusable,
    ManifestInvalid,
    MetafileInvalid,
    NotTracked,
    ObjectCorrupt,
    ObjectMissing,
)
from store.git.commit import Commit
from store.git.files import GitFiles
from store.git.repository import Repository
from store.git.revisions import list_refs, short
from store.git.trees import Mode
from store.git.walk import Step, walk_history
from store.local_cache import LocalCache
from store.tracker import State, Tracker
from store.tree import ROOT_ROW, UNKNOWN, Tree
from store.tree_cache import TreeCache
from store.tree_diff import Kind, diff_trees
from store.tree_shelf import TreeShelf
from store.tree_sizes import Tally, measure

_STATES: Final = 10_000
"""States that are remembered, those asked for last."""
_STEPS: Final = 32
"""Commits whose metafiles are fetched together, where a clone lacks them."""
_TAGS: Final = 2_000
"""Tags that are looked into; of more it counts which commits they name."""

_UNKNOWABLE: Final = (ObjectMissing, ObjectCorrupt, ManifestInvalid, CacheUnusable)
"""Why a version's tree cannot be had; its commit can be told nevertheless."""


_NOTHING_KNOWN: Final = Tally(None, None)
_NONE: Final = Tally(0, 0)


@dataclass(frozen=True, slots=True)
class Delta:
    """What a version changed. Bytes are the new ones; of removed files those they had."""

    added: Tally
    changed: Tally
    removed: Tally


@dataclass(frozen=True, slots=True)
class LoggedVersion:
    """One version of the target."""

    commit: Commit
    tags: tuple[str, ...]
    """Those at which the target is in this version."""
    oid: str
    """As DVC prints it, or git; empty where several make up the version."""
    total: Tally
    delta: Delta | None
    """None where a manifest is missing, and where it was not asked for."""
    problem: str = ""
    """Why nothing can be told of it."""


class _Unreadable(NamedTuple):
    """In place of a state: the metafile cannot be read at that commit."""

    message: str


@dataclass(frozen=True, slots=True)
class Followed:
    """A target and where its versions are."""

    repository: Repository
    tracker: Tracker
    start: Commit
    cache: LocalCache
    trees: TreeCache
    """Compiled trees that are kept anyway."""
    name: str
    """The target, for messages."""


def read_history(followed: Followed, *, counting: bool = True) -> Iterator[LoggedVersion]:
    """The versions of a target from a commit back, found while they are asked for.

    Without `counting` no manifest is read, but where a part of an output is followed. Raises what reading
    the repository raises; a metafile that cannot be read is told in its version.
    """
    return _Reader(followed, counting).read()


class _Reader:
    def __init__(self, followed: Followed, counting: bool) -> None:
        self._followed = followed
        self._repository = followed.repository
        self._tracker = followed.tracker
        self._counting = counting
        self._shelf = TreeShelf(followed.repository, followed.cache, followed.trees, followed.name)
        self._states: OrderedDict[str, State | _Unreadable | None] = OrderedDict()
        self._tags = _Tags(followed.repository)

    def read(self) -> Iterator[LoggedVersion]:
        if self._tracker.is_cheap:
            self._tags.look_into(self._state)
        steps = walk_history(self._repository, self._followed.start.oid, self._tracker.paths)
        while some := list(islice(steps, _STEPS)):
            self._prefetch(some)
            for step in some:
                version = self._log(step)
                if version is not None:
                    yield version

    def _log(self, step: Step) -> LoggedVersion | None:
        """The version that a commit made, if it made one."""
        new = self._state(step.oid)
        olds = [self._state(parent) for parent in step.parents]
        if new is None or any(_is_same(old, new) for old in olds):
            return None
        commit = self._repository.commit(step.oid)
        if isinstance(new, _Unreadable):
            return LoggedVersion(commit, self._tags.of(commit, None), "", _NOTHING_KNOWN, None, new.message)
        old = olds[0] if olds else None
        wanted = self._counting or bool(new.version.inside)
        try:
            tree = self._open(new) if wanted else None
        except NotTracked:
            return None  # the part that is followed is not in this version of its output
        if new.version.inside and tree is not None and self._is_equal(tree, olds):
            return None
        total = Tally(new.files, new.size)
        if tree is not None and None in total:
            total = self._complete(total, tree)
        delta = self._compare(old, tree, total) if self._counting else None
        return LoggedVersion(commit, self._tags.of(commit, new), new.oid, total, delta)

    def _state(self, oid: str) -> State | _Unreadable | None:
        if oid in self._states:
            self._states.move_to_end(oid)
            return self._states[oid]
        state: State | _Unreadable | None
        try:
            state = self._tracker.state(self._repository.commit(oid))
        except MetafileInvalid as error:
            state = _Unreadable(str(error))
        self._states[oid] = state
        if len(self._states) > _STATES:
            self._states.popitem(last=False)
        return state

    def _open(self, state: State) -> Tree | None:
        """The state's tree; None where it cannot be had. Raises `NotTracked` for a part that is not in it."""
        try:
            return self._shelf.open(state.version, state.manifests)
        except _UNKNOWABLE:
            return None

    def _is_equal(self, tree: Tree, olds: Iterable[State | _Unreadable | None]) -> bool:
        """Whether the part that is followed is the same in a version before, although its output is not."""
        for old in olds:
            try:
                other = self._open(old) if isinstance(old, State) else None
            except NotTracked:
                continue
            if other is not None and other.digest_of(ROOT_ROW) == tree.digest_of(ROOT_ROW):
                return True
        return False

    def _complete(self, total: Tally, tree: Tree) -> Tally:
        """What the metafile does not tell, told by the tree."""
        size = total.size
        if size is None:
            unknown = (row for row in range(tree.rows) if tree.size[row] == UNKNOWN)
            rest = measure(tree, unknown, self._followed.cache)
            size = None if rest is None else tree.bytes_known + rest
        return Tally(tree.files if total.files is None else total.files, size)

    def _compare(self, old: State | _Unreadable | None, tree: Tree | None, total: Tally) -> Delta | None:
        if isinstance(old, _Unreadable):
            return None
        try:
            other = None if old is None else self._open(old)
        except NotTracked:
            old = other = None
        if old is None:
            return None if total.files is None else Delta(total, _NONE, _NONE)
        if other is None or tree is None:
            return None
        found = diff_trees(other, tree, renames=False).tally(self._followed.cache)
        return Delta(found[Kind.ADDED], found[Kind.CHANGED], found[Kind.REMOVED])

    def _prefetch(self, steps: Iterable[Step]) -> None:
        """Have the metafiles of some commits fetched in one go, where the repository is a partial clone."""
        if not self._tracker.is_cheap:
            return
        blobs = []
        for oid in dict.fromkeys(oid for step in steps for oid in (step.oid, *step.parents)):
            files = GitFiles(self._repository, self._repository.commit(oid))
            entries = (files.find(path) for path in self._tracker.paths)
            blobs += [entry.oid for entry in entries if entry and entry.mode in (Mode.FILE, Mode.EXECUTABLE)]
        self._repository.objects.prefetch(blobs)


class _Tags:
    """Which tags name a version: those of its commit, and later ones while the target stays as it is."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._by_commit: defaultdict[str, list[str]] = defaultdict(list)
        self._by_content: defaultdict[tuple[object, ...], list[tuple[float, str]]] = defaultdict(list)
        self._reached: dict[tuple[object, ...], float] = {}
        for ref, oid in list_refs(repository.git_dir, "refs/tags"):
            self._by_commit[oid].append(short(ref))

    def look_into(self, state: Callable[[str], State | _Unreadable | None]) -> None:
        """Learn what the target is at the tags."""
        for oid, names in islice(self._by_commit.items(), _TAGS):
            try:
                time = self._repository.commit(oid).time
                found = state(oid)
            except (ObjectMissing, ObjectCorrupt):
                continue  # of a tree or a blob, or not here
            if isinstance(found, State):
                self._by_content[found.identity] += [(time, name) for name in names]

    def of(self, commit: Commit, state: State | None) -> tuple[str, ...]:
        """The tags of a version. To be asked for the newest first."""
        names = self._by_commit.get(commit.oid, [])
        if state is None:
            return tuple(names)
        # A version that came back has the tags that were made since it did, the older one those before.
        until = self._reached.get(state.identity, math.inf)
        self._reached[state.identity] = commit.time
        since = [name for time, name in self._by_content[state.identity] if commit.time <= time < until]
        return tuple(sorted({*names, *since}))


def _is_same(old: State | _Unreadable | None, new: State | _Unreadable | None) -> bool:
    if isinstance(old, State) and isinstance(new, State):
        return old.identity == new.identity
    return old == new
