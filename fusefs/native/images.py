"""`Images`: the EROFS images of versions, which take the place of our own layer of names.

An image is used where all it says is known to be right: every size, by more than a remote's word, for what an
image has told cannot be corrected; and that the objects in the caches have these sizes. One that is there is
opened at once. What can be made in a moment is made when a version is mounted; else the mount has our own
layer, and the image is made in the background, for the mounts to come. A child makes it
(`fusefs.native.image_process`). Lives on the event loop.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final, cast

import trio

from fusefs.native.layers import ROOTS_PREFIX, xattr_prefix
from fusefs.plan import MountPlan
from store.erofs.look import Look
from store.erofs.shelf import ImageDamaged, find_unchecked, image_path, open_image
from store.errors import StoreError
from store.learnt_sizes import take_stamps
from store.oid import DVC_ALGORITHMS
from store.threads import Threads
from store.tree import ALGORITHM_SHIFT, SYMLINK, Tree
from store.tree_files import TreeFiles

log = logging.getLogger(__name__)

FEWEST_FILES: Final = 1000
"""Below, our own layer costs less than an image."""
ASKED_FILES: Final = 1 << 16
"""So many sizes are asked of this machine while somebody waits for a mount."""
PATIENCE: Final = 5.0
"""Seconds that a mount waits for its image: to read that of a million files from a slow disk takes three."""
MAKING_SECONDS: Final = 600.0
_COMMAND: Final = (sys.executable, "-P", "-m", "fusefs.native.image_process")


def can_have_image(tree: Tree) -> bool:
    """Whether a tree is large enough, and all its files are objects that the kernel opens."""
    others = [flags for flags in set(bytes(tree.flags)) if flags & SYMLINK or not _is_dvcs(flags)]
    return tree.files >= FEWEST_FILES and not others


def _is_dvcs(flags: int) -> bool:
    return flags >> ALGORITHM_SHIFT < len(DVC_ALGORITHMS)


@dataclass(slots=True, eq=False)
class _Wish:
    """An image that is looked for or made."""

    is_waited_for: bool = True
    done: trio.Event = field(default_factory=trio.Event)
    image: int = -1


class Images:
    """Of one mount, for as long as it lives: the one that is shown is held."""

    def __init__(self, plan: MountPlan, threads: Threads, nursery: trio.Nursery) -> None:
        private = -1 if plan.allow_other else os.geteuid()
        self._look = Look(plan.uid, plan.gid, plan.umask, private_to=private)
        self._caches = plan.layers
        self._threads = threads
        self._nursery = nursery
        self._one_at_a_time = trio.Lock()
        self._awaited: set[Path] = set()
        self._held = -1

    async def obtain(self, files: TreeFiles, tree: Path, oid: str, *, for_good: bool = False) -> int:
        """The descriptor of the image of a version that is to be shown, ours to close when there is another
        one; -1 where there is none as yet. One that is shown `for_good`, whatever becomes of it, has sizes
        that are beyond doubt."""
        if xattr_prefix() != ROOTS_PREFIX or not can_have_image(files.tree):
            return -1
        wish = _Wish()
        is_known = is_begun = False
        with trio.move_on_after(PATIENCE):
            try:
                is_known = await files.learn_here(ASKED_FILES)
                if for_good:
                    await files.confirm_sizes()
            except StoreError as error:
                log.warning("sizes could not be asked for: %s", error)
            if for_good and not files.sizes_are_certain:
                return -1
            self._begin(wish, files, tree, oid)
            is_begun = True
            if is_known:
                await wish.done.wait()
        if not is_begun:
            self._begin(wish, files, tree, oid)
        wish.is_waited_for = False
        if wish.image >= 0:
            self.close()
            self._held = wish.image
        elif not wish.done.is_set() or tree in self._awaited:
            log.info("names are shown without an image, which is made in the background if it can be")
        return wish.image

    def close(self) -> None:
        if self._held >= 0:
            os.close(self._held)
        self._held = -1

    def _begin(self, wish: _Wish, files: TreeFiles, tree: Path, oid: str) -> None:
        if tree in self._awaited:  # who is waited for since the last time will make it
            wish.done.set()
            return
        self._awaited.add(tree)
        self._nursery.start_soon(self._fulfil, wish, files, tree, oid)

    async def _fulfil(self, wish: _Wish, files: TreeFiles, tree: Path, oid: str) -> None:
        try:
            await files.await_sizes()
            await files.confirm_sizes()  # of what was fetched since a remote told of it
            self._awaited.discard(tree)
            if files.sizes_hold:
                async with self._one_at_a_time:
                    wish.image = await self._find(files, tree, oid)
        except (StoreError, OSError, trio.TooSlowError) as error:
            log.info("names are shown without an image: %s", error or "it takes too long")
        except Exception:  # a bug costs the image, not the mount
            log.exception("names are shown without an image")
        finally:
            self._awaited.discard(tree)
            wish.done.set()
            if wish.image >= 0 and not wish.is_waited_for:
                os.close(wish.image)

    async def _find(self, files: TreeFiles, tree: Path, oid: str) -> int:
        """Open the image, made anew where it has to be. Raises `StoreError` and OSError."""
        sizes = bytes(cast(memoryview, files.sizes))
        found = await self._threads.on_disk(self._open_checked, tree, sizes, oid)
        if found < 0:
            image = await self._make(tree, sizes, oid)
            found = await self._threads.on_disk(open_image, image, discard=os.close)
        return found

    def _open_checked(self, tree: Path, sizes: bytes, oid: str) -> int:
        """The image, if it is there and nothing has changed since it was held against the caches, or -1."""
        image = image_path(tree, sizes, self._look, oid)
        try:
            descriptor = open_image(image)
        except FileNotFoundError:
            return -1
        except ImageDamaged as error:
            log.warning("%s: it is made anew", error)
            return -1
        unchecked = find_unchecked(descriptor, take_stamps(map(Path, self._caches)))
        if any(map(any, unchecked.values())):
            os.close(descriptor)
            return -1
        return descriptor

    async def _make(self, tree: Path, sizes: bytes, oid: str) -> Path:
        descriptor = os.memfd_create("fusefs-sizes")
        with open(descriptor, "wb") as file:
            file.write(sizes)
            file.flush()
            question = {
                "tree": str(tree),
                "oid": oid,
                "look": asdict(self._look),
                "caches": self._caches,
                "sizes": descriptor,
            }
            with trio.fail_after(MAKING_SECONDS):
                done = await trio.run_process(
                    _COMMAND,
                    stdin=json.dumps(question).encode() + b"\n",
                    capture_stdout=True,
                    capture_stderr=True,
                    pass_fds=(descriptor,),
                    check=False,
                )
        try:
            answer = json.loads(done.stdout)
        except ValueError:
            last = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
            raise StoreError(f"no image was made: {last or done.returncode}") from None
        if "image" not in answer:
            raise StoreError(str(answer.get("error")))
        return Path(answer["image"])
