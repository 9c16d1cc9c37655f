"""What a garbage collection goes by: which projects, which of their revisions, and what these name.

Nothing that could not be read is taken for unnamed. Caller: `fusefs gc`. Blocking.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from fusefs.place import is_in_git
from fusefs.remote_homes import RemoteHomes
from fusefs.remote_logs import writer_of
from store.collecting.claims import Claims, HistoryClaims
from store.collecting.kept import Kept, Manifests, keep
from store.commit.locks import lock_dvc
from store.dvc.files import WorkingFiles, is_directory
from store.dvc.project import Kind, Project, find_project
from store.dvc.remotes import add_remote, settle_remotes
from store.errors import InputError
from store.git.commit import Commit
from store.git.reach import all_commits, first_parents, is_shallow, list_work_trees, tips
from store.git.repository import Repository
from store.remotes.spec import RemoteSpec

LOCK_SECONDS: Final = 30.0
_BRANCHES: Final = ("refs/heads", "refs/remotes")
_TAGS: Final = ("refs/tags",)
_EXPERIMENTS: Final = ("refs/exps",)


@dataclass(frozen=True, slots=True)
class Wish:
    """Which revisions are kept, beside the work trees and what is checked out in them."""

    branches: bool = False
    """The tips of all, those of git's remotes among them."""
    tags: bool = False
    experiments: bool = False
    commits: bool = False
    """All that any reference leads to."""
    revs: tuple[str, ...] = ()
    num: int = 1
    """Of each branch and of `revs`, so many commits, first parents."""
    since: float | None = None
    """All commits from then on, in seconds since the epoch by the committers' clocks."""

    @property
    def needs_history(self) -> bool:
        chosen = self.branches or self.tags or self.experiments or self.commits
        return chosen or self.num > 1 or self.since is not None


@dataclass(slots=True)
class Scope:
    """The projects that count, opened."""

    projects: list[Project] = field(default_factory=list)
    """The working tree of each, and those of its repository's other work trees."""
    identities: set[str] = field(default_factory=set)
    claims: Claims = field(default_factory=Claims)
    commits: int = 0
    """That were read."""
    shallow: list[Path] = field(default_factory=list)
    """Repositories of which only the end of the history is here."""
    notes: list[str] = field(default_factory=list)
    _homes: list[tuple[Project, Repository | None, tuple[str, ...]]] = field(default_factory=list)

    def read(self, wish: Wish) -> None:
        """Read what is named. Raises `StoreError`."""
        for project in self.projects:
            where = f"in {project.root}"
            self.claims.read(WorkingFiles(project.root), project.metafiles(), where)
        # A revision is one of the first project: of the others all are kept then.
        of_others = replace(wish, revs=(), commits=wish.commits or bool(wish.revs))
        for number, (project, repository, heads) in enumerate(self._homes):
            if repository is None:
                if wish.revs or wish.needs_history:
                    raise InputError(f"{project.root} is in no git repository, so it has no revisions")
                continue
            history = HistoryClaims(repository, self.claims)
            for commit in _commits(repository, heads, of_others if number else wish):
                history.read(commit)
                self.commits += 1

    def remotes(self, *, trust: bool) -> list[RemoteSpec]:
        """The remotes that the projects configure, for manifests that no cache has."""
        specs: list[RemoteSpec] = []
        homes = RemoteHomes(trust=trust)
        for project in self.projects:
            for spec in settle_remotes(homes.of_project(project), (), homes.own, ()).remotes:
                add_remote(specs, spec)
        return specs

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Within, nobody commits to one of the projects, nor does DVC. Raises `LockTimeout`,
        `CacheUnusable`."""
        with ExitStack() as stack:
            for project in self.projects:
                if project.kind is Kind.DVC:
                    hardlink = project.config.hardlink_lock
                    stack.enter_context(lock_dvc(project.root / ".dvc", LOCK_SECONDS, hardlink=hardlink))
            yield


@contextmanager
def open_scope(places: Sequence[Path]) -> Iterator[Scope]:
    """The projects that directories lie in. Raises `StoreError`."""
    scope = Scope()
    with ExitStack() as stack:
        for place in places:
            if not is_directory(place):
                raise InputError(f"{place} is no directory of a project")
            project = find_project(place)
            if project.kind is Kind.NONE:
                raise InputError(f"{place} lies in no project of DVC's or git's: nothing tells what is kept")
            scope.identities.add(writer_of(project.root).project)
            repository = None
            if not project.config.no_scm and is_in_git(project.root):
                repository = stack.enter_context(Repository.open(project.root))
            _add(scope, project, repository)
        yield scope


def _add(scope: Scope, project: Project, repository: Repository | None) -> None:
    """Add a project, and the same one in other work trees."""
    known = {one.root for one in scope.projects}
    if project.root not in known:
        scope.projects.append(project)
    if repository is None:
        scope._homes.append((project, None, ()))
        return
    if is_shallow(repository):
        scope.shallow.append(project.root)
    heads = []
    top = Path(os.path.realpath(repository.work_tree or project.root))
    inside = Path(os.path.realpath(project.root)).relative_to(top)
    for tree in list_work_trees(repository):
        if tree.head:
            heads.append(tree.head)
        if not is_directory(tree.path):
            scope.notes.append(f"the work tree {tree.path} is not there: only its last commit is kept")
        elif Path(os.path.realpath(tree.path)) != top and is_directory(tree.path / inside):
            other = find_project(tree.path / inside)
            if other.root == tree.path / inside and other.root not in known:
                scope.projects.append(other)
    scope._homes.append((project, repository, tuple(dict.fromkeys(heads))))


def _commits(repository: Repository, heads: Sequence[str], wish: Wish) -> Iterator[Commit]:
    """The commits that are kept, each once."""
    seen: set[str] = set()

    def new(oids: Sequence[str]) -> Iterator[Commit]:
        for oid in oids:
            if oid not in seen:
                seen.add(oid)
                yield repository.commit(oid)

    yield from new(heads)
    roots = [repository.resolve(rev).oid for rev in wish.revs]
    if wish.branches:
        roots += [commit.oid for commit in tips(repository, _BRANCHES)]
    for root in dict.fromkeys(roots):
        yield from new([root] if wish.num == 1 else first_parents(repository, root, wish.num))
    chosen = (*_TAGS * wish.tags, *_EXPERIMENTS * wish.experiments)
    if chosen:
        yield from new([commit.oid for commit in tips(repository, chosen)])
    if wish.commits:
        yield from new(all_commits(repository, heads))
    elif wish.since is not None:
        for oid in all_commits(repository, heads):
            if repository.commit(oid).time >= wish.since:
                yield from new([oid])


def check_whose(cache: Path, scope: Scope) -> None:
    """Is it a cache of these projects, so that what they do not name is nobody's? Notes where others may use
    it, too.

    Raises `InputError` for a cache of others, or of all who have none of their own."""
    owners = [one for one in scope.projects if one.kind is Kind.DVC]
    place = os.path.realpath(cache)
    if place not in {os.path.realpath(one.cache_dir) for one in owners}:
        raise InputError(
            f"{cache} is not the cache of a project that was named: what only it has may be anybody's, so "
            "--unpushed deletes nothing there"
        )
    if place not in {os.path.realpath(one.home_cache) for one in owners}:
        scope.notes.append(f"the cache {cache} may have other users: name their projects with --project")


def keep_claimed(
    claims: Claims, manifests: Manifests, without: frozenset[str], *, strictly: bool
) -> tuple[Kept, list[str]]:
    """All objects that are named, and a line for what is left out: with `strictly` nothing is, else what DVC
    does not expect to be here (imports, and what locks still tell of stages that are no more).

    Raises `InputError` where it is not known what is named.
    """
    if claims.unreadable:
        first, more = claims.unreadable[0], _more(len(claims.unreadable))
        raise InputError(f"no garbage is collected, for what cannot be read may name anything: {first}{more}")
    kept, unknown = keep(claims.found.values(), manifests, without)
    needed = [(claim, one) for claim, one in unknown if strictly or claim.needed]
    if needed:
        claim, one = needed[0]
        raise InputError(
            f"no garbage is collected, for what {claim.where} names is not known: {one.error}"
            f"{_more(len(needed))}; `fusefs fetch` brings it, --without {claim.oid} goes without it"
        )
    if not unknown:
        return kept, []
    claim, one = unknown[0]
    return kept, [f"what {claim.where} names is not known and not kept: {one.error}{_more(len(unknown))}"]


def _more(count: int) -> str:
    return f" (and {count - 1} more)" if count > 1 else ""
