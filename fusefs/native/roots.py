"""`Roots`: the versions that a mount in native mode has shown at its root, each with its `.fusefs`.

An overlay does not take it well when a name leads elsewhere, and a switch changes them all. So the next
version is a directory of its own, in a hidden place of what is shown now: `.fusefs/shown/NAME`, with a NAME
that nobody has looked for. A directory has one place, and so every root has a `.fusefs` of its own. How a
root comes to the mountpoint is a matter of `fusefs.native.overlay`. Lives on the event loop.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import pyfuse3

from fusefs.attributes import FOREVER, absent
from fusefs.control import ControlSpace, control_name
from fusefs.native.fetch_layer import FetchLayer
from fusefs.native.layers_space import LayersSpace, beside_inode
from fusefs.native.revision_links import COMMITS, CommitsSpace, RevisionLinks
from fusefs.native.tree_layer import TreeLayer
from fusefs.operations import Operations
from fusefs.plan import MountPlan
from fusefs.spaces import FETCH_SPACE, FIRST_ROOT_SPACE, Space, first_inode
from fusefs.tree_space import TreeSpace
from fusefs.versions import Place, Versions
from fusefs.views.views import Views
from store.tree_files import TreeFiles

SHOWN: Final = b"shown"
_CONTROL, _REVISIONS, _COMMITS, _PLACES, _TOP, _NUMBERS = range(6)


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
class Root:
    """A version that was shown, or is to be, and what its `.fusefs` has; without a version, all that match
    side by side."""

    number: int
    name: bytes
    """The one that it was given in the places of the root before; empty for the first one."""
    tree: TreeLayer | None
    control: bytes
    """The name of its `.fusefs`; empty where the data takes all that there are."""
    views: Views
    places: PlacesSpace


class Roots:
    """Of one mount. `files` are those of every `.fusefs`, and `new_views` makes the views of one."""

    def __init__(
        self,
        plan: MountPlan,
        operations: Operations,
        versions: Versions,
        files: Mapping[bytes, Callable[[], bytes]],
        new_views: Callable[..., Views],
    ) -> None:
        self._plan = plan
        self._owner: dict[str, Any] = {"uid": plan.uid, "gid": plan.gid}
        self._operations = operations
        self._versions = versions
        self._files = files
        self._new_views = new_views
        self._roots: dict[int, Root] = {}
        self._links: dict[int, RevisionLinks] = {}
        self._last = -1

    def show_first(self, tree: TreeLayer | None, fetch: FetchLayer) -> tuple[Root, LayersSpace]:
        """Have `tree` for the layer of names, or else links to the revisions that the plan names."""
        if tree is not None:
            names: Callable[[], pyfuse3.EntryAttributes] = partial(tree.root, FOREVER)
        else:
            names = self._side_by_side().directory
        space = LayersSpace(names, fetch, tree)
        self._operations.add(FETCH_SPACE, fetch)
        self._operations.add(0, space)
        self._operations.show(space, None)
        return self._furnish(tree, b""), space

    async def show_next(
        self, shown: Root, open_at: Callable[[Place], Awaitable[TreeSpace]], before: TreeFiles | None
    ) -> Root | None:
        """Have what `open_at` opens stand at a place in the root that is shown, if it does not have the files
        `before`. Raises `StoreError`."""
        name, places = secrets.token_hex(4).encode(), shown.places
        tree = await open_at((places.number, name))
        assert isinstance(tree, TreeLayer)  # as all are, in native mode
        if tree.files is before:
            return None
        places.roots[name] = tree
        return self._furnish(tree, name, places.number)

    def find(self, number: int) -> Root | None:
        """The root of that number, if it could be made."""
        return self._roots.get(number)

    def find_named(self, name: bytes) -> Root | None:
        """The root that stands under a name in one before."""
        return next((root for root in self._roots.values() if name and root.name == name), None)

    def furnish_again(self, values: Mapping[str, Any], fetch: FetchLayer) -> tuple[Root, LayersSpace] | None:
        """What the journal says of a root that a daemon before us has made; the first one is shown. Raises
        KeyError where its version is not open."""
        number = values["number"]
        try:
            tree = self._versions.space(values["version"]) if values["version"] else None
            assert tree is None or isinstance(tree, TreeLayer)  # as all are, in native mode
            self._operations.numbers.move_to(values["numbers"])
            self._last = number - 1
            if not number:
                return self.show_first(tree, fetch)
            assert tree is not None  # whoever shows revisions side by side shows nothing else
            places = {root.places.number: root.places for root in self._roots.values()}[values["below"]]
            places.roots[values["name"]] = tree
            self._furnish(tree, values["name"], values["below"])
            return None
        finally:
            self._last = number

    def link_again(self, values: Mapping[str, Any]) -> None:
        """What the journal says of the name of a revision. Raises KeyError."""
        self._links[values["directory"]].link_again(values["name"])

    def views_of(self, number: int) -> Views:
        """Those of a root. Raises KeyError."""
        return self._roots[number].views

    def inodes_of(self, files: TreeFiles, rows: Sequence[int]) -> list[int]:
        """As `Views.inodes_of`, of all roots."""
        return [inode for root in self._roots.values() for inode in root.views.inodes_of(files, rows)]

    def _side_by_side(self) -> RevisionLinks:
        """The directory of all revisions that match, for the first root."""
        number = FIRST_ROOT_SPACE + _TOP
        self._operations.put_control(first_inode(number), None, FIRST_ROOT_SPACE + _CONTROL)
        private = -1 if self._plan.allow_other else os.geteuid()
        return self._new_links(number, pattern=self._plan.revs, way=control_name(None), private_to=private)

    def _new_links(self, number: int, **keywords: Any) -> RevisionLinks:
        links = self._links[number] = RevisionLinks(self._versions, number, **self._owner, **keywords)
        self._operations.add(number, links)
        return links

    def _furnish(self, tree: TreeLayer | None, name: bytes, below: int = 0) -> Root:
        """Give a root its `.fusefs`. `below` is the number of the places where it stands, under that name."""
        number = self._last + 1
        self._versions.journal.append(
            "root",
            number=number,
            version=tree.number if tree is not None else 0,
            name=name,
            below=below,
            numbers=self._operations.numbers.following,
        )
        self._last = number
        first = FIRST_ROOT_SPACE + number * _NUMBERS
        views = self._new_views(shown=lambda: tree, place=number)
        revisions = self._new_links(first + _REVISIONS)
        commits = CommitsSpace(self._versions, first + _COMMITS, **self._owner)
        places = PlacesSpace(self._versions, first + _PLACES, **self._owner)
        control = ControlSpace(
            self._files,
            {b"revs": revisions, **(views.directories if tree is not None else {})},
            number=first + _CONTROL,
            hidden={COMMITS: commits, SHOWN: places},
            **self._owner,
        )
        spaces: Mapping[int, Space] = {_CONTROL: control, _COMMITS: commits, _PLACES: places}
        for place, space in spaces.items():
            self._operations.add(first + place, space)
        shown = tree.tree if tree is not None else None
        if tree is not None:
            self._operations.put_control(first_inode(tree.number), shown, first + _CONTROL)
        self._operations.put_control(beside_inode(number), shown, first + _CONTROL)
        root = self._roots[number] = Root(number, name, tree, control_name(shown), views, places)
        return root
