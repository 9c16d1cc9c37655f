"""`Versions`: every version that a daemon serves, opened when it is asked for and then kept.

A name is resolved by a child (`fusefs.resolvers`), because a daemon neither compiles nor runs git; the
commit that comes of it is one version with one tree, whatever names lead there, and has a space for
each place of the mount that shows it. Lives on the loop.
"""

from __future__ import annotations

import logging
import os
from array import array
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import trio

from fusefs.journal import Journal
from fusefs.kernel_caches import forget_file
from fusefs.plan import MountPlan
from fusefs.resolvers import Resolvers
from fusefs.spaces import FIRST_TREE, first_inode
from fusefs.tree_space import TreeSpace
from store.blobs import BlobSource
from store.engine import Engine
from store.errors import RevisionUnknown, StoreError
from store.learnt_sizes import kept_path
from store.local_cache import LocalCache
from store.oid import Oid
from store.prefetcher import Prefetcher
from store.remotes.spec import RemoteSpec
from store.traces import trace_path
from store.tree import ROOT_ROW, Tree, TreeDamaged
from store.tree_files import TreeFiles

log = logging.getLogger(__name__)

KEPT_SECONDS: Final = 1.0
"""For so long a name is not resolved again: `ls` of a path asks for each of its parts."""
KEPT_NAMES: Final = 1000
MAX_SPACES: Final = 10_000
"""Each version holds a mapped file; the kernel admits 65 530 of them."""

Place = tuple[int, bytes]
"""Where in the mount a version stands: the number of a directory's space, and the name in it."""
ROOT_PLACE: Final[Place] = (0, b"")


@dataclass(slots=True)
class _Version:
    """A commit's dataset; `number` is of the space that its files' inodes are from."""

    files: TreeFiles
    number: int
    oid: str
    rev: str
    places: dict[Place, TreeSpace] = field(default_factory=dict)


@dataclass(slots=True)
class _Resolution:
    """A name that is being resolved, or was. Waiters share it."""

    done: trio.Event
    at: float = 0.0
    version: _Version | None = None
    error: StoreError | None = None


class Versions:
    """Opens versions by name. `add` is told of every space, `adopt` of every tree that comes into use."""

    def __init__(
        self,
        plan: MountPlan,
        engine: Engine,
        add: Callable[[int, TreeSpace], None],
        adopt: Callable[[Tree], None],
        journal: Journal,
        make_space: Callable[..., TreeSpace] = TreeSpace,
    ) -> None:
        self._plan = plan
        self._engine = engine
        self._threads = engine.threads
        self._nursery = engine.nursery
        self._caches = engine.caches
        self._add = add
        self._adopt = adopt
        self._make_space = make_space
        self._resolvers = Resolvers(engine.nursery)
        self.journal = journal
        self._versions: dict[tuple[str, str], _Version] = {}
        self._names: OrderedDict[str, _Resolution] = OrderedDict()
        self._last_number = FIRST_TREE - 1
        self.made_of: Callable[[TreeFiles, Sequence[int]], Sequence[int]] = lambda *_: ()
        """Tells the inodes of views that are made of rows of a version."""
        engine.on_corrupt = lambda oid: engine.nursery.start_soon(self.forget_object, oid)

    @property
    def named(self) -> bool:
        """Has the dataset other versions at all?"""
        return bool(self._plan.repo)

    def open_first(self) -> TreeSpace:
        """The version that the plan names, at the root. Raises `TreeDamaged` and OSError."""
        plan = self._plan
        tree = Tree.open(Path(plan.tree))
        question = {"request": dict(plan.request)}
        version = self._keep(tree, plan.tree, plan.oid, plan.rev, plan.git_dirs, plan.remotes, question)
        return self._stand(version, ROOT_PLACE)

    def open_again(self, values: Mapping[str, Any]) -> None:
        """What the journal says of a version that a daemon before us has opened. Raises `TreeDamaged` and
        OSError."""
        number = values["number"]
        self._last_number = number - 1
        try:
            tree = Tree.open(Path(values["tree"]))
            if tree.digest_of(ROOT_ROW) != values["digest"]:
                raise TreeDamaged(f"compiled tree {values['tree']} is another one than it was")
            remotes = tuple(map(RemoteSpec.from_wire, values["remotes"]))
            self._keep(
                tree,
                values["tree"],
                values["oid"],
                values["rev"],
                values["git_dirs"],
                remotes,
                values["question"],
                values["caches"],
            )
        finally:
            self._last_number = number

    def stand_again(self, values: Mapping[str, Any]) -> None:
        """What the journal says of a place where a version stood. Raises KeyError where that one is not
        open."""
        versions = {version.number: version for version in self._versions.values()}
        number, (directory, name) = values["number"], values["place"]
        last, self._last_number = self._last_number, number - 1
        try:
            self._stand(versions[values["version"]], (directory, name))
        finally:
            self._last_number = max(last, number)

    def space(self, number: int) -> TreeSpace:
        """The space of a number. Raises KeyError."""
        spaces = (space for version in self._versions.values() for space in version.places.values())
        found = next((space for space in spaces if space.number == number), None)
        if found is None:
            raise KeyError(number)
        return found

    async def _follow(self, prefetcher: Prefetcher, order: array[int]) -> None:
        await self._engine.await_budget()
        prefetcher.follow(order)

    async def open(self, rev: str, place: Place = ROOT_PLACE) -> TreeSpace:
        """The version that `rev` names now, as it stands at `place`.

        Raises `RevisionUnknown`, and whatever else resolving raises, as a `StoreError` with its line.
        """
        if not self.named:
            raise RevisionUnknown(f"{self._plan.target} lies in no git repository: it has no revisions")
        if not rev:
            raise RevisionUnknown("an empty name is no revision")
        known = self._names.get(rev)
        if known is None or (known.done.is_set() and trio.current_time() - known.at > KEPT_SECONDS):
            known = self._names[rev] = _Resolution(trio.Event())
            self._names.move_to_end(rev)
            while len(self._names) > KEPT_NAMES:
                self._names.popitem(last=False)
            # In the daemon's nursery: who asked first may go, others wait for the same.
            self._nursery.start_soon(self._resolve, rev, known)
        await known.done.wait()
        if known.error is not None:
            raise type(known.error)(*known.error.args)
        assert known.version is not None  # one of the two is set
        return self._stand(known.version, place)

    def stop_prefetching(self) -> None:
        """Bring nothing ahead of readers any more."""
        for version in self._versions.values():
            if version.files.prefetcher is not None:
                version.files.prefetcher.stop()

    def first_spaces(self) -> list[TreeSpace]:
        """A space of every version that was opened."""
        return [next(iter(version.places.values())) for version in self._versions.values() if version.places]

    def stand_at(self, space: TreeSpace, place: Place) -> TreeSpace:
        """The version of a space, at another place. Raises `StoreError` where there are too many."""
        version = next(one for one in self._versions.values() if space in one.places.values())
        return self._stand(version, place)

    def tree_of(self, space: TreeSpace) -> str:
        """The path of the compiled tree that a space shows."""
        return next(path for (_, path), version in self._versions.items() if space in version.places.values())

    def keep_sizes(self) -> None:
        """Keep what was learnt, of sizes and of the order of reading, for the next mount. Blocking, for the
        daemon's end."""
        for version in self._versions.values():
            version.files.keep_sizes()
            if version.files.prefetcher is not None:
                version.files.prefetcher.keep_now()

    async def list_names(self, pattern: str) -> list[str]:
        """Tags and branches that match. Raises `StoreError`."""
        if not self.named:
            return []
        answer = await self._resolvers.ask(
            {"repo": self._plan.repo, "pattern": pattern, "offline": self._plan.offline}
        )
        names = answer["names"]
        return [str(name) for name in names] if isinstance(names, list) else []

    async def _resolve(self, rev: str, resolution: _Resolution) -> None:
        try:
            resolution.version = await self._open(rev)
        except StoreError as error:
            resolution.error = error
        except Exception as error:  # a bug costs this look-up, not the daemon
            log.exception("%s cannot be opened", rev)
            resolution.error = StoreError(f"{rev}: {type(error).__name__}")
        finally:
            resolution.at = trio.current_time()
            resolution.done.set()

    async def _open(self, rev: str) -> _Version:
        plan = self._plan
        question: dict[str, object] = {
            "repo": plan.repo,
            "path": plan.path,
            "rev": rev,
            "cache": plan.cache,
            "remotes": list(plan.remote_names),
            "trust": plan.trust,
            "offline": plan.offline,
        }
        answer = await self._resolvers.ask(question)
        commit, path = str(answer["rev"]), str(answer["tree"])
        if (commit, path) not in self._versions:
            tree = await self._threads.on_disk(Tree.open, Path(path))
            # Meanwhile another name may have led to the same commit.
            if (commit, path) not in self._versions:
                for warning in _texts(answer["warnings"]):
                    log.warning("%s: %s", rev, warning)
                again = {**question, "rev": commit}  # the name may lead elsewhere by then
                oid, git_dirs, remotes = str(answer["oid"]), _texts(answer["git_dirs"]), _remotes(answer)
                self._keep(tree, path, oid, commit, git_dirs, remotes, again, _texts(answer["caches"]))
        return self._versions[commit, path]

    async def refresh(self, question: Mapping[str, object]) -> tuple[RemoteSpec, ...]:
        """A version's remotes as the configuration is now: credentials may have been replaced.

        `question` is what a resolver was asked for the version. Raises `StoreError`, also where it has gone.
        """
        return _remotes(await self._resolvers.ask(question))

    def _keep(
        self,
        tree: Tree,
        path: str,
        oid: str,
        rev: str,
        git_dirs: Sequence[str],
        remotes: tuple[RemoteSpec, ...],
        question: Mapping[str, object],
        caches: Sequence[str] = (),
    ) -> _Version:
        engine = self._engine
        known = {cache.root for cache in self._caches.caches}
        for cache in map(Path, caches):  # where imports of this version came from
            if cache not in known:
                engine.store.pace.distrust()  # wherever that lies
                self._caches.add(LocalCache(cache))
        blobs = engine.settings.blobs
        source = BlobSource([Path(git_dir) for git_dir in git_dirs], blobs) if git_dirs else None
        files = TreeFiles(
            tree,
            engine.store,
            source,
            finder=engine.finder,
            remotes=engine.remote_set(remotes, partial(self.refresh, question)),
            kept=kept_path(Path(path)),
        )
        version = _Version(files, self._new_number(), oid, rev)
        self.journal.append(
            "version",
            number=version.number,
            tree=path,
            digest=tree.digest_of(ROOT_ROW),
            oid=oid,
            rev=rev,
            git_dirs=list(git_dirs),
            remotes=[remote.to_wire() for remote in remotes],
            question=dict(question),
            caches=list(caches),
        )
        self._versions[rev, path] = version
        if self._plan.mode == "fuse":
            self.begin_prefetching(files)
        files.corrected = lambda row: self._forget_rows(version, [row])
        files.correct_all = self._correct_all
        self._adopt(tree)
        return version

    def begin_prefetching(self, files: TreeFiles) -> None:
        """Bring a version's files ahead of their readers from now on, if that is wanted: opens are seen."""
        if not self._plan.prefetch or not files.has_remotes or files.prefetcher is not None:
            return
        path = next(path for (_, path), version in self._versions.items() if version.files is files)
        engine = self._engine
        files.prefetcher = Prefetcher(
            files, engine.window, engine.threads, engine.nursery.start_soon, trace_path(Path(path))
        )
        if path == self._plan.tree and self._plan.order:
            self._nursery.start_soon(self._follow, files.prefetcher, array("I", self._plan.order))

    async def forget_object(self, oid: Oid) -> None:
        """Have the kernel drop what it keeps of an object's bytes: they may have been wrong."""
        for version in list(self._versions.values()):
            try:
                rows = await self._threads.on_disk(version.files.tree.rows_of, oid)
                await self._forget_rows(version, rows)
            except StoreError as error:
                log.warning("wrong bytes of object %s may be remembered: %s", oid, error)

    async def _correct_all(self, oid: Oid, size: int) -> None:
        """An object has this length, whatever was told of it in any version."""
        for version in list(self._versions.values()):
            await version.files.correct(oid, size)

    async def _forget_rows(self, version: _Version, rows: Sequence[int]) -> None:
        made = self.made_of(version.files, rows)
        for inode in made:
            await self._threads.on_disk(partial(forget_file, inode, size_only=True))
        if made:  # the one who waits for us may be reading them
            self._nursery.start_soon(self._forget_pages, made)
        first = first_inode(version.number)
        for row in rows:
            await self._threads.on_disk(forget_file, first + row)

    async def _forget_pages(self, inodes: Sequence[int]) -> None:
        for inode in inodes:
            try:
                await self._threads.on_disk(forget_file, inode)
            except StoreError as error:
                log.warning("wrong bytes of a view may be remembered: %s", error)

    def _stand(self, version: _Version, place: Place) -> TreeSpace:
        """The version's space at `place`. Raises `StoreError` where there are too many."""
        space = version.places.get(place)
        if space is None:
            plan = self._plan
            # The first place has the number that was taken for the files.
            number = self._new_number() if version.places else version.number
            self.journal.append("place", number=number, version=version.number, place=list(place))
            space = version.places[place] = self._make_space(
                version.files,
                number=number,
                files_number=version.number,
                uid=plan.uid,
                gid=plan.gid,
                umask=plan.umask,
                oid=version.oid,
                rev=version.rev,
                private_to=os.geteuid() if plan.mode == "native" and not plan.allow_other else -1,
            )
            self._add(number, space)
        return space

    def _new_number(self) -> int:
        if self._last_number >= MAX_SPACES:
            raise StoreError(f"this mount has shown {MAX_SPACES} versions already; mount it anew")
        self._last_number += 1
        return self._last_number


def _remotes(answer: Mapping[str, object]) -> tuple[RemoteSpec, ...]:
    """The remotes in a resolver's answer."""
    listed = answer.get("remotes")
    return tuple(map(RemoteSpec.from_wire, listed)) if isinstance(listed, list) else ()


def _texts(value: object) -> list[str]:
    return [str(text) for text in value] if isinstance(value, list) else []
