"""`Mount`: what a daemon shows, and how that changes: the first version, switches, and after a restart all
that stood there before.

Made and served by `fusefs.serving`; lives on the event loop.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from functools import partial
from typing import Any, Final

import pyfuse3
import trio

from fusefs.control import NAMES, ControlSpace
from fusefs.control_socket import new_name
from fusefs.handles import Handles
from fusefs.kernel_caches import forget_names
from fusefs.metrics_endpoint import MetricsEndpoint
from fusefs.metrics_text import MetricsText
from fusefs.native.fresh import Fresh
from fusefs.native.held_files import HeldFiles
from fusefs.native.overlay import Overlay
from fusefs.native.roots import Roots
from fusefs.native.seen_opens import SeenOpens
from fusefs.native.stream import Stream
from fusefs.native.tree_layer import TreeLayer
from fusefs.operations import Operations
from fusefs.pinning import Pinner
from fusefs.plan import MountPlan
from fusefs.relay import Agreement
from fusefs.revisions import RevisionsSpace
from fusefs.spaces import CONTROL_SPACE, REVISIONS_SPACE
from fusefs.status_reporter import StatusReporter
from fusefs.succession import Succession
from fusefs.tree_space import TreeSpace
from fusefs.versions import Versions
from fusefs.views.view import ViewSpace
from fusefs.views.views import Views
from store.engine import Engine
from store.errors import StoreError

log = logging.getLogger(__name__)

FOUND_AT_ONCE: Final = 64
"""Paths of a hint. Between two such batches readers get their turn."""

SETTLE_SECONDS: Final = 1.0
"""After a switch: an answer that was on its way then may have put an old name into the kernel's cache."""


class Mount:
    """What a daemon serves: the version at the root, and everything that hangs in `.fusefs`."""

    def __init__(
        self,
        plan: MountPlan,
        fuse_fd: int,
        engine: Engine,
        pinner: Pinner,
        succession: Succession,
        fresh: Fresh | None,
    ) -> None:
        self._plan = plan
        self._journal = succession.journal
        self._pinner = pinner
        self._fuse_fd = fuse_fd
        self._threads = engine.threads
        self._nursery = engine.nursery
        self._caches = engine.caches
        self._switching = trio.Lock()
        self.control_name = new_name()
        counters, metrics = engine.store.counters, engine.metrics
        self.operations = Operations(counters, metrics.requests, Handles(succession.handles))
        held = HeldFiles(engine.nursery)
        seen = SeenOpens(engine, lambda files: self._versions.begin_prefetching(files))
        make_space: type[TreeSpace] | partial[TreeLayer] = TreeSpace
        stream = Stream(self._can_look_anew)
        if plan.mode == "native":
            make_space = partial(
                TreeLayer, held=held, asked=seen.asked, find_anew=self._find_anew, stream=stream
            )
        self._versions = Versions(
            plan, engine, self.operations.add, pinner.add, succession.journal, make_space
        )
        self._reporter = StatusReporter(
            plan, counters, metrics, engine.pool, pinner, self.control_name, engine.nursery, succession
        )
        owner: dict[str, Any] = {"uid": plan.uid, "gid": plan.gid}
        self.metrics_text = MetricsText(metrics, self._reporter.status)
        files = {b"status": self._reporter.report, b"metrics": self.metrics_text.render}
        self._shown: TreeSpace | None = None
        self._root: TreeSpace | ViewSpace | None = None
        self._outdated: set[tuple[int, bytes]] = set()
        self._revisions: dict[int, RevisionsSpace] = {}
        self.native: Overlay | None = None
        new_views = partial(
            Views,
            engine,
            self.operations.numbers,
            succession.journal,
            **owner,
            umask=plan.umask,
        )
        if plan.mode == "native":
            roots = Roots(plan, self.operations, self._versions, files, new_views)
            self.native = Overlay(
                plan, engine, self.operations, self._versions, held, seen, roots, stream, fresh
            )
            self._reporter.sees_hits = lambda: seen.are_seen
            self._versions.made_of = roots.inodes_of
            return
        self._views = new_views(shown=lambda: self._shown)
        self._versions.made_of = self._views.inodes_of
        revisions = RevisionsSpace(self._versions, "", number=REVISIONS_SPACE, **owner)
        self._revisions[REVISIONS_SPACE] = revisions
        views = {} if plan.revs else self._views.directories  # those of one version
        control = ControlSpace(files, {b"revs": revisions, **views}, **owner)
        self.operations.add(CONTROL_SPACE, control)
        self.operations.add(REVISIONS_SPACE, revisions)
        if plan.revs:
            root = self._revisions[0] = RevisionsSpace(self._versions, plan.revs, number=0, **owner)
            self.operations.add(0, root)
            self.operations.show(root, None)

    def _can_look_anew(self) -> bool:
        return self.native is not None and self.native.attacher is not None

    def _find_anew(self) -> None:
        if self.native is not None:
            self.native.find_anew()

    async def show_first(self) -> None:
        """Show the version that the plan names, if it names one. Raises `StoreError` and OSError."""
        first = None if self._plan.revs else self._versions.open_first()
        if self.native is not None:
            self.native.show_first(first)
            if first is not None:
                self._tell(first)
        elif first is not None:
            self._show(first, await self._view(first))

    async def show_again(self) -> Agreement:
        """Have everything stand where it stood with the daemon before us, under the same inodes; how its
        session began. Raises `StoreError` where that cannot be."""
        agreement: Agreement | None = None
        for kind, values in self._journal.replay():
            if kind == "agreed":
                agreement = Agreement(values["request"], values["answer"])
            else:
                try:
                    await self._do_again(kind, values)
                except (StoreError, OSError, LookupError) as error:
                    log.warning("a %s of before is not shown again (ESTALE): %s", kind, error)
        if agreement is None:
            raise StoreError("the journal of the mount does not say how it began")
        if self.native is not None:
            shown = self.native.find_shown()
            if shown is not None:
                self._tell(shown)
        elif self._shown is None and not self._plan.revs:
            raise StoreError("the version that the mount showed cannot be opened any more")
        return agreement

    async def _do_again(self, kind: str, values: Mapping[str, Any]) -> None:
        """What the journal tells of. Raises `StoreError`, OSError and LookupError."""
        if kind == "pins":
            self._pinner.note_former(values)
        elif kind == "version":
            self._versions.open_again(values)
        elif kind == "place":
            self._versions.stand_again(values)
        elif kind == "found":
            self._revisions[values["directory"]].find_again(values)
        elif kind == "view":
            views = self._views if self.native is None else self.native.roots.views_of(values["place"])
            await views.open_again(self._versions.space(values["version"]), values)
        elif kind == "shown":
            before, space = self._root, self._versions.space(values["number"])
            root = await self._view(space)
            self._show(space, root)
            self._outdated = self._names_of(before, root) if before is not None else set()
        elif self.native is not None and kind == "root":
            self.native.furnish_again(values)
        elif self.native is not None and kind == "link":
            self.native.roots.link_again(values)
        elif self.native is not None and kind == "attached":
            self.native.attach_again(values)

    def forget_outdated(self) -> None:
        """Have the kernel forget the names of the version that was shown before: the daemon before us may not
        have come so far."""
        if self._outdated:
            self._nursery.start_soon(self._forget_again, self._outdated)

    async def _view(self, version: TreeSpace) -> TreeSpace | ViewSpace:
        """A version as it stands at the root. Raises `StoreError`."""
        kind, _, recipe = self._plan.view.partition(":")
        return await self._views.open(version, kind, recipe, at_root=True) if kind else version

    def listen(self, address: str) -> MetricsEndpoint:
        """Take the address where metrics are served. Raises `InputError`."""
        endpoint = MetricsEndpoint(address, self.metrics_text.render)
        self._reporter.metrics_address = endpoint.address
        return endpoint

    def _show(self, space: TreeSpace, root: TreeSpace | ViewSpace) -> None:
        self._journal.append("shown", number=space.number)
        if self._root is not None:
            self._root.supersede()
        root.restore()
        self._root = root
        self.operations.show(root, space.tree, root.number)
        self._tell(space)

    def _tell(self, space: TreeSpace) -> None:
        """Have everybody know which version is shown now."""
        if self._shown is not None:
            self._shown.files.stop_learning()
            if self._shown.files.prefetcher is not None:
                self._shown.files.prefetcher.rest()
        self._shown = space
        self._reporter.show(space)
        space.files.start_learning()

    def stop_prefetching(self) -> None:
        """Bring nothing ahead of readers any more."""
        self._versions.stop_prefetching()

    def keep_sizes(self) -> None:
        """Keep what was learnt for the next mount. Blocking, for the daemon's end."""
        self._versions.keep_sizes()

    async def handle(self, request: dict[str, Any]) -> dict[str, Any]:
        """Answer a request of the control socket: `{"switch": REV}`, `{"hint": [PATH, …]}` or
        `{"shown": true}`."""
        if "shown" in request:
            return self._describe_shown()
        if "hint" in request:
            return await self.hint(request["hint"])
        rev = request.get("switch")
        if not isinstance(rev, str):
            return {"error": "an unknown request; the command is of another version than the daemon"}
        try:
            async with self._switching:
                space = await self.switch(rev)
        except StoreError as error:
            return {"error": str(error)}
        return {"rev": space.rev, "oid": space.oid, "files": space.tree.files}

    async def hint(self, paths: object) -> dict[str, Any]:
        """Take note of the paths that will be read next. `taken` of them are, `unknown` ones are in no tree;
        the rest is more than is taken note of."""
        shown = self._shown
        if shown is None or not isinstance(paths, list):
            return {"error": "this mount shows revisions side by side; there is no order to follow"}
        prefetcher = shown.files.prefetcher
        if prefetcher is None:
            return {"taken": 0, "unknown": 0}  # all is here, or nothing is to be fetched ahead
        rows: list[int] = []
        for place, path in enumerate(paths):
            row = shown.tree.find(os.fsencode(path)) if isinstance(path, str) else None
            if row is not None and not shown.tree.is_directory(row):
                rows.append(row)
            if place % FOUND_AT_ONCE == 0:
                await trio.lowlevel.checkpoint()
        return {"taken": prefetcher.hint(rows), "unknown": len(paths) - len(rows)}

    def _describe_shown(self) -> dict[str, Any]:
        """Where the version lies that is shown: for who looks at it without us."""
        if self._shown is None:
            return {"error": "this mount shows revisions side by side, and no version of its own"}
        caches = [str(cache.root) for cache in self._caches.caches]
        return {"tree": self._versions.tree_of(self._shown), "caches": caches, "rev": self._shown.rev}

    async def switch(self, rev: str) -> TreeSpace:
        """Show another version at the root. What is open keeps the old one. Raises `StoreError`."""
        if self._shown is None:
            raise StoreError("this mount shows revisions side by side; there is nothing to switch")
        if self.native is not None:
            return await self._switch_natively(rev, self.native, self._shown)
        before = self._root
        assert before is not None  # it shows the version
        space = await self._versions.open(rev)
        if space is not self._shown:
            root = await self._view(space)
            self._show(space, root)
            names = self._names_of(before, root)
            await self._threads.on_disk(forget_names, self._fuse_fd, names)
            self._nursery.start_soon(self._forget_again, names)
            log.info("switched to %s, commit %s", rev, space.rev)
        return space

    def _names_of(self, *roots: TreeSpace | ViewSpace) -> set[tuple[int, bytes]]:
        """The names that lead elsewhere when one root comes in another's place, with their directories'
        inodes."""
        names = {(pyfuse3.ROOT_INODE, name) for root in roots for name in root.root_names()}
        # The data of one version may leave another of them free.
        names.update((pyfuse3.ROOT_INODE, name) for name in NAMES)
        return names.union(self._views.names())

    async def _switch_natively(self, rev: str, native: Overlay, shown: TreeSpace) -> TreeSpace:
        space = await native.switch(rev, shown.files)
        if space is None:
            return shown
        self._tell(space)
        log.info("switched to %s, commit %s", rev, space.rev)
        return space

    async def _forget_again(self, names: set[tuple[int, bytes]]) -> None:
        await trio.sleep(SETTLE_SECONDS)
        try:
            await self._threads.on_disk(forget_names, self._fuse_fd, names)
        except (StoreError, OSError) as error:
            log.warning("names of the former version may be remembered: %s", error)
