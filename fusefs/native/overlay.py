"""`Overlay`: what a mount in native mode shows at its mountpoint, from the daemon's side.

A switch brings another directory of the same overlay to the mountpoint, or, where the kernel gets the names
of the version from an image, another overlay over the same session (`fusefs.native.switching`). Which one it
is stands in the journal before the kernel is told, for the daemon after us. Lives on the event loop.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import trio

from fusefs import mountinfo
from fusefs.native.attacher import Attacher
from fusefs.native.fetch_layer import FetchLayer
from fusefs.native.forgetting import Forgetting
from fusefs.native.fresh import Fresh
from fusefs.native.held_files import HeldFiles
from fusefs.native.images import Images
from fusefs.native.layers import IMAGE
from fusefs.native.layers_space import LayersSpace
from fusefs.native.roots import SHOWN, Root, Roots
from fusefs.native.seen_opens import SeenOpens
from fusefs.native.stream import Stream
from fusefs.native.tree_layer import TreeLayer
from fusefs.operations import Operations
from fusefs.plan import MountPlan
from fusefs.tree_space import TreeSpace
from fusefs.versions import Place, Versions
from store.cache_layers import CacheLayers
from store.engine import Engine
from store.errors import StoreError
from store.tree_files import TreeFiles

log = logging.getLogger(__name__)


class Overlay:
    """Of one mount. `roots` are the versions that it shows, one after the other."""

    def __init__(
        self,
        plan: MountPlan,
        engine: Engine,
        operations: Operations,
        versions: Versions,
        held: HeldFiles,
        seen: SeenOpens,
        roots: Roots,
        stream: Stream,
        fresh: Fresh | None,
    ) -> None:
        self._mountpoint = plan.mountpoint
        self._engine = engine
        self._versions = versions
        self._held = held
        self._seen = seen
        self.roots = roots
        memory = fresh.descriptor if fresh is not None else -1
        self._layers = CacheLayers([Path(layer) for layer in plan.layers], memory)
        self._forgetting = Forgetting(self.forget_unused, lambda: operations.open_files > 0, stream, fresh)
        self._fetch = FetchLayer(
            self._trees, self._layers, held, seen, engine.threads, stream, self._forgetting, fresh
        )
        self._images = Images(plan, engine.threads, engine.nursery)
        engine.on_large = lambda _: self.find_anew()
        engine.on_settled = self._fetch.note_settled
        engine.after_sweep = self.forget_unused
        self._showing = trio.Lock()
        self._space: LayersSpace | None = None
        self._shown: Root | None = None
        self._own: Root | None = None
        """The root of the overlay itself, in which others are directories."""
        self._has_image = False
        self._next: Root | None = None
        """As the daemon before us left it: the root of an overlay that may have come to the mountpoint."""
        self._guarded: set[TreeFiles] = set()
        self.attacher: Attacher | None = None
        """None where the mount is in a namespace that we cannot reach."""

    def show_first(self, tree: TreeSpace | None) -> None:
        """Have `tree` for the layer of names, or revisions side by side."""
        assert tree is None or isinstance(tree, TreeLayer)  # as all are, in native mode
        self._own, self._space = self.roots.show_first(tree, self._fetch)
        self._shown = self._own

    def furnish_again(self, values: Mapping[str, Any]) -> None:
        """As `Roots.furnish_again`."""
        first = self.roots.furnish_again(values, self._fetch)
        if first is not None:
            self._own, self._space = first
            self._shown = self._own

    def attach_again(self, values: Mapping[str, Any]) -> None:
        """What the journal says of an overlay that was mounted, or that was about to be."""
        root = self.roots.find(values["root"])
        if values["device"] is None:
            self._next = root
            return
        self._next, self._own, self._has_image = None, root, values["has_image"]
        if self.attacher is not None:
            self.attacher.device = values["device"]

    def find_shown(self) -> TreeLayer | None:
        """The version that is shown, as the kernel knows it, after all roots were made again; None where
        revisions are. Raises `StoreError` where it could not be made."""
        mount = mountinfo.mount_at(self._mountpoint, mountinfo.read_mounts())
        if self.attacher is not None and mount is not None:
            if self._next is not None and mount.is_native and mount.device != self.attacher.device:
                self._own, self._has_image, self.attacher.device = self._next, True, mount.device
            if mount.device == self.attacher.device:
                name = os.fsencode(mount.root).rpartition(b"/")[2]
                self._shown = (self.roots.find_named(name) if name else self._own) or self._shown
        if self._shown is None or self._own is None or self._space is None:
            raise StoreError("the version that the mount showed cannot be opened any more")
        if self._has_image and self._own.tree is not None:
            self._guard(self._own.tree.files)
        self._space.shown = self._shown.tree
        return self._shown.tree

    async def attach(self, attacher: Attacher) -> None:
        """Have the overlay mounted over what is shown first. Raises `MountFailed`."""
        assert self._shown is not None  # show_first() made it
        self.attacher = attacher
        shown = self._shown.tree
        if shown is None:
            await attacher.attach(None)
        else:
            image = await self._find_image(shown)
            watched = self._seen.prepare(shown)
            try:
                came = await attacher.attach(watched, image)
            except BaseException:
                self._seen.drop(watched)
                raise
            self._seen.watch(shown, watched, came)
            self._note_image(shown, image)
        self._note_attached(self._shown, attacher.device)

    async def offer_image(self, channel: int) -> None:
        """Hand the image of the version that is shown first, if there is one, to whoever mounts the overlay
        where we cannot reach it: by the socket `channel`, which is used up."""
        assert self._shown is not None  # show_first() made it
        shown = self._shown.tree
        with socket.socket(fileno=channel) as theirs:
            image = await self._find_image(shown, for_good=True) if shown is not None else -1
            if image >= 0:
                socket.send_fds(theirs, [IMAGE], [image])

    async def switch(self, rev: str, before: TreeFiles) -> TreeLayer | None:
        """Show another version at the mountpoint; None where it is the one that is shown (`before`).

        Raises `StoreError`.
        """
        async with self._showing:
            return await self._show_next(lambda place: self._versions.open(rev, place), before)

    async def _show_next(
        self,
        open_at: Callable[[Place], Awaitable[TreeSpace]],
        before: TreeFiles | None,
        *,
        by_image: bool = True,
    ) -> TreeLayer | None:
        """Show what `open_at` opens at a place, if that is not what is shown. Raises `StoreError`."""
        shown, space = self._shown, self._space
        if self.attacher is None or shown is None or space is None:
            raise StoreError(
                "this mount belongs to one command, and is in native mode: it cannot be switched"
            )
        if not shown.control:
            raise StoreError(
                "the data takes every name for the control directory: this mount cannot be switched"
            )
        following = await self.roots.show_next(shown, open_at, before)
        if following is None:
            return None
        tree = following.tree
        assert tree is not None  # what is switched to is a version
        image = await self._find_image(tree) if by_image else -1
        watched = self._seen.prepare(tree)
        former, path = self.attacher.device, os.fsdecode(b"/".join((shown.control, SHOWN, following.name)))
        try:
            if image >= 0:
                self._note_attached(following, None)
            came = await self.attacher.switch(path, watched, image, following.number)
        except BaseException:
            del shown.places.roots[following.name]
            self._seen.drop(watched)
            raise
        self._seen.watch(tree, watched, came)
        self._shown, space.shown = following, tree
        if self.attacher.device != former:
            self._own = following
            self._note_image(tree, image)
            self._note_attached(following, self.attacher.device)
        return tree

    async def see_from_afar(self, descriptor: int) -> None:
        """Have what readers open seen by us in a mount that we do not see."""
        if self._shown is not None and self._shown.tree is not None:
            await self._seen.watch_from_afar(self._shown.tree, descriptor)

    async def see_again(self) -> None:
        """Have what readers open seen by us, as it was by the daemon before us."""
        if self.attacher is None or self._shown is None or self._shown.tree is None:
            return
        shown = self._shown.tree
        watched = self._seen.prepare(shown)
        if watched is not None:
            try:
                came = await self.attacher.watch(watched)
            except StoreError as error:
                self._seen.drop(watched)
                log.warning("%s", error)
                return
            self._seen.watch(shown, watched, came)

    async def forget_unused(self) -> None:
        """Have the kernel let go of what was deleted, and look anew for what it was not to find."""
        if self.attacher is not None:
            try:
                await self.attacher.forget_unused()
            except (StoreError, OSError) as error:
                log.warning("%s", error)

    def find_anew(self) -> None:
        """Something is in the caches that the kernel has us read, because it was not when it looked."""
        self._forgetting.find_anew()

    async def settle(self) -> None:
        """Have the kernel look again for what it did not find at first. Until cancelled."""
        await self._forgetting.run()

    def close(self) -> None:
        """When nobody is served any more."""
        self._images.close()
        self._seen.close()
        self._held.close_all()
        self._layers.close()

    def _trees(self) -> list[TreeLayer]:
        return [tree for tree in self._versions.first_spaces() if isinstance(tree, TreeLayer)]

    async def _find_image(self, tree: TreeLayer, *, for_good: bool = False) -> int:
        path = Path(self._versions.tree_of(tree))
        return await self._images.obtain(tree.files, path, tree.oid, for_good=for_good)

    def _note_image(self, tree: TreeLayer, image: int) -> None:
        """Take note of whether the overlay that shows a version has the names from an image."""
        self._has_image = image >= 0
        if self._has_image:
            self._guard(tree.files)

    def _note_attached(self, root: Root, device: str | None) -> None:
        self._versions.journal.append("attached", root=root.number, device=device, has_image=self._has_image)

    def _guard(self, files: TreeFiles) -> None:
        """Have a size that proves to be wrong end the image that has told it: it cannot be corrected."""
        if files in self._guarded:
            return
        self._guarded.add(files)
        forget = files.corrected

        async def corrected(row: int) -> None:
            if forget is not None:
                await forget(row)
            if self._is_told_by_image(files):
                next(tree for tree in self._trees() if tree.files is files).wrong_sizes.add(row)
                self._engine.nursery.start_soon(self._leave_image, files)

        files.corrected = corrected

    def _is_told_by_image(self, files: TreeFiles) -> bool:
        """Does the kernel have what is shown from an image, and is that the version of these files?"""
        shown = self._shown.tree if self._shown is not None else None
        return self._has_image and self._shown is self._own and shown is not None and shown.files is files

    async def _leave_image(self, files: TreeFiles) -> None:
        """Show the same version by our own layer of names."""
        first = next(tree for tree in self._trees() if tree.files is files)

        async def open_again(place: Place) -> TreeSpace:
            return self._versions.stand_at(first, place)

        try:
            async with self._showing:
                if self._is_told_by_image(files):
                    await self._show_next(open_again, None, by_image=False)
                    first.wrong_sizes.clear()
                    log.warning("a size was wrong that the image tells: names come from the daemon now")
        except StoreError as error:
            log.error("a size is told wrong, mount it anew: %s", error)
