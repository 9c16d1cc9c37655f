"""`Roots`: the versions that a mount in native mode has shown at its root, each with its `.fusefs`.

An overlay does not take it well when a name leads elsewhere, and a switch changes them all. So the next
version is a directory of the same overlay, in a hidden place of what is shown now, and comes to the
mountpoint as a mount of its own (`fusefs.native.layers.switch_root`): `.fusefs/shown/NAME`, with a NAME that
nobody has looked for. A directory has one place, and so every root has a `.fusefs` of its own. Lives on the
event loop.
"""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyfuse3
import trio

from fusefs import mountinfo
from fusefs.attributes import FOREVER, absent
from fusefs.control import ControlSpace, control_name
from fusefs.native.attacher import Attacher
from fusefs.native.fetch_layer import FetchLayer
from fusefs.native.held_files import HeldFiles
from fusefs.native.images import Images
from fusefs.native.layers_space import BESIDE_ROW, LayersSpace
from fusefs.native.revision_links import COMMITS, CommitsSpace, RevisionLinks
from fusefs.native.seen_opens import SeenOpens
from fusefs.native.tree_layer import TreeLayer
from fusefs.operations import Operations
from fusefs.plan import MountPlan
from fusefs.spaces import FETCH_SPACE, FIRST_ROOT_SPACE, Space, first_inode
from fusefs.tree_space import TreeSpace
from fusefs.versions import Place, Versions
from fusefs.views.views import Views
from store.cache_layers import CacheLayers
from store.engine import Engine
from store.errors import StoreError
from store.tree_files import TreeFiles

log = logging.getLogger(__name__)

SHOWN: Final = b"shown"
IDLE_SECONDS: Final = 2.0
REST_SECONDS: Final = 60.0
"""What the kernel forgot, it asks us for again."""
_CONTROL, _REVISIONS, _COMMITS, _PLACES, _NUMBERS = range(5)


class PlacesSpace(CommitsSpace):
    """The hidden directory in which the next roots stand."""

    def __init__(self, versions: Versions, number: int, *, uid: int, gid: int) -> None:
        super().__init__(versions, number, uid=uid, gid=gid)
        self.number = number
        self.roots: dict[bytes, TreeLayer] = {}

    async def lookup(self, row: int, name: bytes) -> pyfuse3.EntryAttributes:
        root = self.roots.get(name)
        return absent() if root is None else root.root(FOREVER)


@dataclass(frozen=True, slots=True)
class _Root:
    """A version that was shown, or is to be, and what its `.fusefs` has; `name` is the one that it was given
    in the places of the root before, empty for the first one."""

    tree: TreeLayer
    name: bytes
    views: Views
    links: RevisionLinks
    places: PlacesSpace


class Roots:
    """Of one mount. `files` are those of every `.fusefs`, and `new_views` makes the views of one."""

    def __init__(
        self,
        plan: MountPlan,
        engine: Engine,
        operations: Operations,
        versions: Versions,
        held: HeldFiles,
        seen: SeenOpens,
        files: Mapping[bytes, Callable[[], bytes]],
        new_views: Callable[..., Views],
    ) -> None:
        self._owner = {"uid": plan.uid, "gid": plan.gid}
        self._operations = operations
        self._versions = versions
        self._files = files
        self._new_views = new_views
        self._roots: dict[int, _Root] = {}
        self._last = -1
        self._shown: _Root | None = None
        self._held = held
        self._engine = engine
        self._large_came = trio.Event()
        engine.on_large = lambda _: self._large_came.set()
        engine.after_sweep = self.forget_unused
        self._layers = CacheLayers([Path(layer) for layer in plan.layers])
        self._space: LayersSpace | None = None
        self.seen = seen
        self._images = Images(plan, engine.threads, engine.nursery)
        self._showing = trio.Lock()
        self.attacher: Attacher | None = None
        """None where the mount is in a namespace that we cannot reach."""

    def show_first(self, tree: TreeSpace) -> None:
        """Have `tree` for the layer of names."""
        assert isinstance(tree, TreeLayer)  # as all are, in native mode
        fetch = FetchLayer(self._trees, self._layers, self._held, self.seen, self._engine.threads)
        self._space = LayersSpace(tree, fetch)
        self._operations.add(FETCH_SPACE, fetch)
        self._operations.add(0, self._space)
        self._operations.show(self._space, None)
        self._shown = self._furnish(tree, b"")
        self._operations.put_control(
            pyfuse3.InodeT(pyfuse3.ROOT_INODE + BESIDE_ROW), tree.tree, FIRST_ROOT_SPACE + _CONTROL
        )

    def furnish_again(self, values: Mapping[str, Any]) -> None:
        """What the journal says of a root that a daemon before us has made. Raises KeyError where its version
        is not open."""
        number = values["number"]
        try:
            tree = self._versions.space(values["version"])
            self._operations.numbers.move_to(values["numbers"])
            self._last = number - 1
            if not number:
                self.show_first(tree)
                return
            assert isinstance(tree, TreeLayer)  # as all are, in native mode
            places = {root.places.number: root.places for root in self._roots.values()}[values["below"]]
            places.roots[values["name"]] = tree
            self._furnish(tree, values["name"], values["below"])
        finally:
            self._last = number

    def link_again(self, values: Mapping[str, Any]) -> None:
        """What the journal says of the name of a revision. Raises KeyError."""
        links = {root.links.number: root.links for root in self._roots.values()}
        links[values["directory"]].link_again(values["name"])

    def views_of(self, number: int) -> Views:
        """Those of a root. Raises KeyError."""
        return self._roots[number].views

    def find_shown(self, mountpoint: str, device: str, *, has_image: bool) -> TreeLayer:
        """The version that the overlay `device` shows, as the kernel knows it, after all roots were made
        again; `has_image` tells of the first one. Raises `StoreError` where that could not be made."""
        if self._shown is None or self._space is None:
            raise StoreError("the version that the mount showed cannot be opened any more")
        if self.attacher is not None:
            self.attacher.device = device
        mount = mountinfo.mount_at(mountpoint, mountinfo.read_mounts())
        if mount is not None and mount.device == device:
            name = os.fsencode(mount.root).rpartition(b"/")[2]
            self._shown = next((root for root in self._roots.values() if root.name == name), self._shown)
        if has_image and not self._shown.name:
            self._guard(self._shown.tree)
        self._space.shown = self._shown.tree
        return self._shown.tree

    async def switch(self, rev: str, before: TreeFiles) -> TreeLayer | None:
        """Show another version at the mountpoint; None where it is the one that is shown (`before`).

        Raises `StoreError`.
        """
        async with self._showing:
            return await self._show_next(lambda place: self._versions.open(rev, place), before)

    async def _show_next(
        self, open_at: Callable[[Place], Awaitable[TreeSpace]], before: TreeFiles | None
    ) -> TreeLayer | None:
        """Show what `open_at` opens at a place, if that is not what is shown. Raises `StoreError`."""
        shown, space = self._shown, self._space
        if self.attacher is None or shown is None or space is None:
            raise StoreError(
                "this mount belongs to one command, and is in native mode: it cannot be switched"
            )
        control = control_name(space.shown.tree)
        if not control:
            raise StoreError(
                "the data takes every name for the control directory: this mount cannot be switched"
            )
        name, places = secrets.token_hex(4).encode(), shown.places
        tree = await open_at((places.number, name))
        assert isinstance(tree, TreeLayer)  # as all are, in native mode
        if tree.files is before:
            return None
        places.roots[name] = tree
        following = self._furnish(tree, name, places.number)
        watched = self.seen.prepare(tree)
        try:
            came = await self.attacher.switch(os.fsdecode(b"/".join((control, SHOWN, name))), watched)
        except BaseException:
            del places.roots[name]
            self.seen.drop(watched)
            raise
        self.seen.watch(tree, watched, came)
        self._shown, space.shown = following, tree
        return tree

    async def attach(self, attacher: Attacher) -> None:
        """Have the overlay mounted over the version that is shown first. Raises `MountFailed`."""
        assert self._space is not None  # show_first() made it
        self.attacher = attacher
        shown = self._space.shown
        image = await self._images.obtain(shown.files, Path(self._versions.tree_of(shown)), shown.oid)
        if image >= 0:
            self._guard(shown)
        watched = self.seen.prepare(shown)
        try:
            came = await attacher.attach(watched, image)
        except BaseException:
            self.seen.drop(watched)
            raise
        self.seen.watch(shown, watched, came)
        self._versions.journal.append("attached", device=attacher.device, has_image=image >= 0)

    async def see_from_afar(self, descriptor: int) -> None:
        """Have what readers open seen by us in a mount that we do not see."""
        if self._space is not None:
            await self.seen.watch_from_afar(self._space.shown, descriptor)

    async def see_again(self) -> None:
        """Have what readers open seen by us, as it was by the daemon before us."""
        if self.attacher is None or self._space is None:
            return
        shown = self._space.shown
        watched = self.seen.prepare(shown)
        if watched is not None:
            try:
                came = await self.attacher.watch(watched)
            except StoreError as error:
                self.seen.drop(watched)
                log.warning("%s", error)
                return
            self.seen.watch(shown, watched, came)

    def _guard(self, shown: TreeLayer) -> None:
        """Have a size that proves to be wrong end the image that has told it: it cannot be corrected."""
        forget = shown.files.corrected

        async def corrected(row: int) -> None:
            if forget is not None:
                await forget(row)
            shown.wrong_sizes.add(row)
            self._engine.nursery.start_soon(self._leave_image, shown)

        shown.files.corrected = corrected

    async def _leave_image(self, shown: TreeLayer) -> None:
        """Show the same version by our own layer of names."""

        async def open_again(place: Place) -> TreeSpace:
            return self._versions.stand_at(shown, place)

        try:
            async with self._showing:
                if self._space is not None and self._space.shown is shown:
                    await self._show_next(open_again, None)
                    shown.wrong_sizes.clear()
                    log.warning("a size was wrong that the image tells: names come from the daemon now")
        except StoreError as error:
            log.error("a size is told wrong, mount it anew: %s", error)

    def inodes_of(self, files: TreeFiles, rows: Sequence[int]) -> list[int]:
        """As `Views.inodes_of`, of all roots."""
        return [inode for root in self._roots.values() for inode in root.views.inodes_of(files, rows)]

    async def forget_unused(self) -> None:
        """Have the kernel let go of what was deleted, and look anew for what it was not to find."""
        if self.attacher is not None:
            try:
                await self.attacher.forget_unused()
            except (StoreError, OSError) as error:
                log.warning("%s", error)

    async def settle(self) -> None:
        """When large objects have come whole, have the kernel find them once nobody reads through us."""
        while True:
            await self._large_came.wait()
            await trio.sleep(IDLE_SECONDS)
            if not self._operations.open_files:
                self._large_came = trio.Event()
                await self.forget_unused()
                await trio.sleep(REST_SECONDS)

    def close(self) -> None:
        """When nobody is served any more."""
        self._images.close()
        self.seen.close()
        self._held.close_all()
        self._layers.close()

    def _trees(self) -> list[TreeLayer]:
        return [tree for tree in self._versions.first_spaces() if isinstance(tree, TreeLayer)]

    def _furnish(self, tree: TreeLayer, name: bytes, below: int = 0) -> _Root:
        """Give a root its `.fusefs`. `below` is the number of the places where it stands, under that name."""
        number = self._last + 1
        self._versions.journal.append(
            "root",
            number=number,
            version=tree.number,
            name=name,
            below=below,
            numbers=self._operations.numbers.following,
        )
        self._last = number
        first = FIRST_ROOT_SPACE + number * _NUMBERS
        views = self._new_views(shown=lambda: tree, place=number)
        revisions = RevisionLinks(self._versions, first + _REVISIONS, **self._owner)
        commits = CommitsSpace(self._versions, first + _COMMITS, **self._owner)
        places = PlacesSpace(self._versions, first + _PLACES, **self._owner)
        control = ControlSpace(
            self._files,
            {b"revs": revisions, **views.directories},
            number=first + _CONTROL,
            hidden={COMMITS: commits, SHOWN: places},
            **self._owner,
        )
        spaces: tuple[Space, ...] = (control, revisions, commits, places)
        for place, space in enumerate(spaces, first):
            self._operations.add(place, space)
        self._operations.put_control(first_inode(tree.number), tree.tree, first + _CONTROL)
        root = self._roots[number] = _Root(tree, name, views, revisions, places)
        return root
