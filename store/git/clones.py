"""Clones of repositories that are elsewhere: made once, without file contents, refreshed on demand.

A clone is bare and ours alone, below `$XDG_CACHE_HOME/fusefs/clones`, 0700. The server is asked to
leave the blobs out; one that cannot sends them. What is read later is fetched when it is read, in one
go where `Objects.prefetch` is told before. Branches, tags and DVC's experiments keep their names.
Submodules are never followed. A repository on this machine is not cloned: `store.git.repository`
opens it where it is.

A clone is made under another name and renamed when it is whole, so that an interrupted one is never
taken for it. A lock, held by git itself as long as it runs, keeps processes from making or refreshing
one clone at once; reading needs none. Secrets go to git by its environment and are never written.

Callers: what opens a project by URL. Blocking; any thread.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from store.errors import LockTimeout, RepositoryUnusable, RevisionUnknown, StoreTimeout
from store.git import command
from store.git.commit import Commit
from store.git.file_lock import lock_file
from store.git.objects import is_oid
from store.git.repository import Repository
from store.git.transfer import Fetcher, ask_hash_name, fetch_refs
from store.git.urls import Location
from store.keeping.leases import Lease

CLONE_SECONDS: Final = 1800.0
"""Deadline for a first clone: all history, without contents."""

REFRESH_SECONDS: Final = 600.0
MAX_AGE: Final = 60.0
"""Seconds for which a branch is taken to be where it was."""

_REFRESHED: Final = "fusefs-refreshed"
_CONFIGURATION: Final = """\
[core]
\tbare = true
\trepositoryformatversion = 1
[extensions]
\tpartialClone = origin
{format}[remote "origin"]
\turl = {url}
\tpromisor = true
\tpartialclonefilter = blob:none
"""


def clones_directory(env: Mapping[str, str]) -> Path:
    """`$XDG_CACHE_HOME/fusefs/clones`; `~/.cache` where that is not set or not absolute."""
    cache = Path(env.get("XDG_CACHE_HOME", ""))
    if not cache.is_absolute():
        cache = Path(env.get("HOME") or "~").expanduser() / ".cache"
    return cache / "fusefs/clones"


def clone_directory(url: str, clones: Path) -> Path:
    """Where the clone of `url` is, if there is one."""
    return clones / _name(url)


@dataclass(frozen=True, slots=True)
class Clone:
    """A clone that is there whole. To be closed, or used in `with`."""

    location: Location
    directory: Path
    repository: Repository
    offline: bool
    _lock: Path = field(repr=False)
    _lease: Lease = field(repr=False)

    @classmethod
    def open(cls, location: Location, clones: Path, *, offline: bool = False) -> Self:
        """The clone of `location`, made if there is none; `clones` is where they all are.

        With `offline` nothing is ever asked of the network. Raises `RepositoryUnusable`,
        `LockTimeout` and `StoreTimeout`.
        """
        _prepare(clones)
        name = _name(location.url)
        directory, lock = clone_directory(location.url, clones), clones / f"{name}.lock"
        while True:
            if not directory.is_dir():
                if offline:
                    raise RepositoryUnusable(f"there is no clone of {location.url} here yet; go online once")
                with lock_file(lock, CLONE_SECONDS) as held:
                    if not directory.is_dir():  # somebody else may have made it in the meantime
                        _make(location, clones, name, held)
            lease = hold_clone(directory)
            if lease is not None:
                break
        fetch = None if offline else Fetcher(location, directory)
        return cls(location, directory, Repository.open(directory, fetch), offline, lock, lease)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the processes that answer for the objects."""
        self.repository.close()
        self._lease.close()

    def resolve(self, rev: str = "HEAD", max_age: float = MAX_AGE) -> tuple[Commit, str | None]:
        """The commit that `rev` names, and a line to show if that may not be the newest.

        The clone is refreshed when the name is not known here, and when it is one that moves and the
        last refresh is older than `max_age` seconds. If that fails what is here is used. Raises as
        `Repository.resolve` does, and `RepositoryUnusable` for what is not here and cannot be asked.
        """
        known = self._known(rev)
        if known is not None and (is_oid(rev) or self.age() <= max_age):
            return known, None
        if self.offline:
            if known is None:
                raise RevisionUnknown(f"no revision {rev!r} in the clone of {self.location.url}; go online")
            return known, f"offline: {self.location.url} as it was {_ago(self.age())}"
        try:
            self.refresh()
        except (LockTimeout, RepositoryUnusable, StoreTimeout) as error:
            if known is None:
                raise
            return known, f"{error}; going on with what was there {_ago(self.age())}"
        if is_oid(rev):
            self._fetch_commit(rev)
        return self.repository.resolve(rev), None

    def fetch_blobs(self, oids: Sequence[str]) -> None:
        """Fetch at once those of `oids` that are not here. Raises as `refresh` does."""
        self.repository.objects.prefetch(oids)

    def age(self) -> float:
        """Seconds since the clone was last refreshed."""
        return max(0.0, time.time() - self._refreshed())

    def refresh(self) -> None:
        """Fetch what is new, unless another process just does.

        Raises `RepositoryUnusable`, `LockTimeout` and `StoreTimeout`.
        """
        before = self._refreshed()
        with lock_file(self._lock, REFRESH_SECONDS) as held:
            if self._refreshed() == before:  # nobody else did while this one waited
                fetch_refs(self.location, self.directory, held, REFRESH_SECONDS)
                (self.directory / _REFRESHED).touch()

    def _refreshed(self) -> float:
        try:
            return (self.directory / _REFRESHED).stat().st_mtime
        except OSError:
            raise RepositoryUnusable(f"the clone {self.directory} is damaged; remove it") from None

    def _fetch_commit(self, oid: str) -> None:
        """Ask for a commit that is on no branch. Raises `RevisionUnknown`."""
        try:
            self.fetch_blobs([oid])
        except RepositoryUnusable as error:
            raise RevisionUnknown(f"no commit {oid} in {self.location.url}: {error}") from None

    def _known(self, rev: str) -> Commit | None:
        # What is not here is not fetched by the way: the refresh may bring it with all that belongs to it.
        if is_oid(rev) and self.repository.objects.sizes([rev]) == [None]:
            return None
        try:
            return self.repository.resolve(rev)
        except RevisionUnknown:
            return None


def hold_clone(directory: Path) -> Lease | None:
    """Keep a clone from being aged out, and note that it is used; None where it was removed just now."""
    try:
        lease = Lease(directory)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RepositoryUnusable(f"the clone {directory} cannot be opened: {error.strerror}") from None
    if not lease.is_at(directory):
        lease.close()
        return None
    with contextlib.suppress(OSError):
        os.utime(directory)
    return lease


def _make(location: Location, clones: Path, name: str, held: int) -> None:
    """Make the clone under another name and rename it. The caller holds its lock."""
    prefix = f".{name}."
    for left in clones.glob(f"{prefix}*"):  # by one that was interrupted: whoever makes one has the lock
        shutil.rmtree(left, ignore_errors=True)
    new = Path(tempfile.mkdtemp(prefix=prefix, dir=clones))
    try:
        _initialize(new, "sha1")
        hash_name = ask_hash_name(location, new, held)
        if hash_name != "sha1":
            shutil.rmtree(new)
            new.mkdir(mode=0o700)
            _initialize(new, hash_name)
        extension = "" if hash_name == "sha1" else f"\tobjectFormat = {hash_name}\n"
        # A quoted value: anything printable may stand in a URL.
        quoted = '"' + location.url.replace("\\", "\\\\").replace('"', '\\"') + '"'
        (new / "config").write_text(_CONFIGURATION.format(format=extension, url=quoted))
        fetch_refs(location, new, held, CLONE_SECONDS)
        (new / _REFRESHED).touch(mode=0o600)
        new.rename(clones / name)
    except OSError as error:
        raise RepositoryUnusable(f"no clone can be made in {clones}: {error.strerror}") from None
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _initialize(directory: Path, hash_name: str) -> None:
    arguments = ["init", "--quiet", "--bare", "--template=", f"--object-format={hash_name}"]
    made = command.run(arguments, directory=directory, git_dir=directory)
    if made.status != 0:
        raise RepositoryUnusable(f"no clone can be made in {directory.parent}: {made.complaint}")


def _name(url: str) -> str:
    """A directory's name: what people know the repository by, and a hash of where it is."""
    last = re.split(r"[/:]", url.rstrip("/"))[-1].removesuffix(".git")
    readable = re.sub(r"[^A-Za-z0-9_-]+", "-", last)[:40].strip("-") or "repository"
    return f"{readable}-{hashlib.sha256(url.encode('utf-8', 'surrogateescape')).hexdigest()[:16]}"


def _prepare(clones: Path) -> None:
    """Make the directory of all clones, and be sure that it is ours alone."""
    try:
        clones.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = clones.stat()
    except OSError as error:
        raise RepositoryUnusable(f"no clones can be kept in {clones}: {error.strerror}") from None
    if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o022:
        raise RepositoryUnusable(
            f"no clones are kept in {clones}: others can write there; set XDG_CACHE_HOME to a place of yours"
        )


def _ago(seconds: float) -> str:
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{int(seconds // length)} {unit} ago"
    return f"{int(seconds)} seconds ago"
