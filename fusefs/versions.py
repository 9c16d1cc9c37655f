"""`Versions`: every version that a daemon serves, opened when it is asked for and then kept.

A name is resolved by a child (`fusefs.resolve`), because a daemon neither compiles nor runs git; the
commit that comes of it has one tree and one space, whatever names lead there. Lives on the loop.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trio

from fusefs.plan import MountPlan
from fusefs.spaces import FIRST_TREE
from fusefs.tree_space import TreeSpace
from store.blobs import BlobSource
from store.content_store import ContentStore
from store.errors import RevisionUnknown, StoreError, StoreTimeout
from store.threads import Threads
from store.tree import Tree
from store.tree_files import TreeFiles

log = logging.getLogger(__name__)

RESOLVE_SECONDS: Final = 300.0
"""A first clone or a manifest of ten million files takes its time."""
RESOLVERS: Final = 2
KEPT_SECONDS: Final = 1.0
"""For so long a name is not resolved again: `ls` of a path asks for each of its parts."""
KEPT_NAMES: Final = 1000
MAX_VERSIONS: Final = 10_000
"""Each holds a mapped file; the kernel admits 65 530 of them."""


@dataclass(slots=True)
class _Resolution:
    """A name that is being resolved, or was. Waiters share it."""

    done: trio.Event
    at: float = 0.0
    space: TreeSpace | None = None
    error: StoreError | None = None


class Versions:
    """Opens versions by name. `add` gives a space its number's place among the mount's spaces."""

    def __init__(
        self,
        plan: MountPlan,
        store: ContentStore,
        threads: Threads,
        blobs: Path,
        nursery: trio.Nursery,
        add: Callable[[int, TreeSpace], None],
    ) -> None:
        self._plan = plan
        self._store = store
        self._threads = threads
        self._blobs = blobs
        self._nursery = nursery
        self._add = add
        self._children = trio.CapacityLimiter(RESOLVERS)
        self._spaces: dict[tuple[str, str], TreeSpace] = {}
        self._names: OrderedDict[str, _Resolution] = OrderedDict()
        self._last_number = FIRST_TREE

    @property
    def named(self) -> bool:
        """Has the dataset other versions at all?"""
        return bool(self._plan.repo)

    def adopt(self, space: TreeSpace, tree: str) -> None:
        """Know the version that the mount began with."""
        self._spaces[space.rev, tree] = space
        self._add(FIRST_TREE, space)

    async def open(self, rev: str) -> TreeSpace:
        """The version that `rev` names now.

        Raises `RevisionUnknown`, and whatever else resolving raises, as a `StoreError` with its line.
        """
        if not self.named:
            raise RevisionUnknown(f"{self._plan.target} lies in no git repository: it has no revisions")
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
        assert known.space is not None  # one of the two is set
        return known.space

    async def list_names(self, pattern: str) -> list[str]:
        """Tags and branches that match. Raises `StoreError`."""
        if not self.named:
            return []
        answer = await self._ask({"repo": self._plan.repo, "pattern": pattern})
        names = answer["names"]
        return [str(name) for name in names] if isinstance(names, list) else []

    async def _resolve(self, rev: str, resolution: _Resolution) -> None:
        try:
            resolution.space = await self._open(rev)
        except StoreError as error:
            resolution.error = error
        except Exception as error:  # a bug costs this look-up, not the daemon
            log.exception("%s cannot be opened", rev)
            resolution.error = StoreError(f"{rev}: {type(error).__name__}")
        finally:
            resolution.at = trio.current_time()
            resolution.done.set()

    async def _open(self, rev: str) -> TreeSpace:
        plan = self._plan
        answer = await self._ask({"repo": plan.repo, "path": plan.path, "rev": rev, "cache": plan.cache})
        commit, path = str(answer["rev"]), str(answer["tree"])
        space = self._spaces.get((commit, path))
        if space is not None:
            return space
        if len(self._spaces) >= MAX_VERSIONS:
            raise StoreError(f"{rev}: this mount shows {MAX_VERSIONS} versions already; mount it anew")
        tree = await self._threads.on_disk(Tree.open, Path(path))
        warnings = answer["warnings"]
        for warning in warnings if isinstance(warnings, list) else []:
            log.warning("%s: %s", rev, warning)
        self._last_number += 1
        space = make_space(
            plan,
            tree,
            self._store,
            self._blobs,
            number=self._last_number,
            oid=str(answer["oid"]),
            rev=commit,
            git_dirs=[str(git_dir) for git_dir in answer["git_dirs"]]
            if isinstance(answer["git_dirs"], list)
            else [],
        )
        self._spaces[commit, path] = space
        self._add(self._last_number, space)
        return space

    async def _ask(self, question: dict[str, str]) -> dict[str, object]:
        """Put a question to a child. Raises `StoreError`."""
        command = [sys.executable, "-P", "-m", "fusefs.resolve"]
        async with self._children:
            with trio.move_on_after(RESOLVE_SECONDS):
                done = await trio.run_process(
                    command,
                    stdin=json.dumps(question).encode(),
                    capture_stdout=True,
                    capture_stderr=True,
                    check=False,
                )
                return _read_answer(done)
        raise StoreTimeout(f"resolving {question.get('rev', 'names')} took more than {RESOLVE_SECONDS:.0f} s")


def _read_answer(done: subprocess.CompletedProcess[bytes]) -> dict[str, object]:
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        last = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise StoreError(f"the resolver failed: {last or done.returncode}") from None
    if "error" in answer:
        raise (RevisionUnknown if answer.get("unknown") else StoreError)(answer["error"])
    return dict(answer)


def make_space(
    plan: MountPlan,
    tree: Tree,
    store: ContentStore,
    blobs: Path,
    *,
    number: int,
    oid: str,
    rev: str,
    git_dirs: list[str],
) -> TreeSpace:
    """A space that shows `tree` as the plan says."""
    source = BlobSource([Path(git_dir) for git_dir in git_dirs], blobs) if git_dirs else None
    files = TreeFiles(tree, store, source)
    return TreeSpace(files, number=number, uid=plan.uid, gid=plan.gid, umask=plan.umask, oid=oid, rev=rev)
