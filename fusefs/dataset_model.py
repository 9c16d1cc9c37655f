"""What a user names, and what that turns out to be: `Request` → `Dataset`. Frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fusefs.directories import cache_directory
from store.dvc.versioned import Wanted
from store.remotes.spec import RemoteSpec
from store.tree_cache import TreeCache


@dataclass(frozen=True, slots=True)
class Request:
    """What the user named. Empty is not given."""

    target: str
    """A `.dvc` file, a tracked path, a manifest file or an oid; with `@REV` behind, that at a revision.
    Or a logged run: `run:KEY`, `run:KEY:OUT`."""
    cache: str = ""
    """The cache directory, instead of the project's."""
    rev: str = ""
    repo: str = ""
    """Where `target` is a path: a repository's directory or URL."""
    remotes: tuple[str, ...] = field(default=(), repr=False)
    """Names, URLs and absolute paths of the remotes to ask, in that order; empty for those configured."""
    trust: bool = False
    """The repository's configuration counts like that of one's own."""
    offline: bool = False
    """The network must not be used."""
    push_to: str = field(default="", repr=False)
    """Name, URL or absolute path of the remote that something is to be put on; nobody is asked there."""
    speaks: bool = True
    """Lines may go to standard error: what is waited for, and what of the remotes is not followed where that
    may be why the dataset cannot be opened."""

    def to_wire(self) -> dict[str, Any]:
        """Plain values, for a resolver to open the same from here."""
        return {**asdict(self), "directory": str(Path.cwd())}


@dataclass(frozen=True, slots=True)
class Origin:
    """How other versions of a dataset are named: a repository and a path in it."""

    repo: str
    """Absolute path or URL, without secrets."""
    path: str
    """`/`-separated, from the repository's root; empty for all of it."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """A resolved target."""

    target: str
    """As the user typed it."""
    oid: str
    """What it resolved to, as DVC prints it; empty for several outputs."""
    rev: str
    """The git commit that it was read from; empty where none is known."""
    tree: Path | None
    """The compiled tree; None for revisions side by side."""
    caches: tuple[Path, ...]
    """Where objects are looked for: its own cache, then those that imports came from."""
    git_dirs: tuple[Path, ...] = ()
    """Repositories that have the blobs of what git tracks in it."""
    origin: Origin | None = None
    """None for what lies in no repository."""
    warnings: tuple[str, ...] = ()
    remotes: tuple[RemoteSpec, ...] = field(default=(), repr=False)
    """Who can be asked for what the caches lack, in that order."""

    wanted: tuple[Wanted, ...] = field(default=(), repr=False)
    """The outputs that it is made of; empty where an oid was named."""
    push_remotes: Mapping[str, RemoteSpec] = field(default_factory=dict, repr=False)
    """Where outputs are pushed to, by the remote that they or the user name; empty is the default one."""

    @property
    def cache(self) -> Path:
        """Its own."""
        return self.caches[0]


def compiled_trees() -> TreeCache:
    """Where this user's compiled trees are kept."""
    return TreeCache(cache_directory() / "trees")


def chosen_cache(request: Request) -> Path | None:
    return Path(request.cache).resolve() if request.cache else None
