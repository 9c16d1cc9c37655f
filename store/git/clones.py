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
from store.git.urls import Location

CLONE_SECONDS: Final = 1800.0
"""Deadline for a first clone: all history, without contents."""

REFRESH_SECONDS: Final = 600.0
FETCH_SECONDS: Final = 600.0
MAX_AGE: Final = 60.0
"""Seconds for which a branch is taken to be where it was."""

_ASK_SECONDS: Final = 60.0
_REFRESHED: Final = "fusefs-refreshed"
_HEAD: Final = "refs/fusefs/head"
"""Where HEAD goes that is on no branch."""

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
_REFSPECS: Final = tuple(f"+refs/{space}/*:refs/{space}/*" for space in ("heads", "tags", "exps"))


def clones_directory(env: Mapping[str, str]) -> Path:
    """`$XDG_CACHE_HOME/fusefs/clones`; `~/.cache` where that is not set or not absolute."""
    cache = Path(env.get("XDG_CACHE_HOME", ""))
    if not cache.is_absolute():
        cache = Path(env.get("HOME") or "~").expanduser() / ".cache"
    return cache / "fusefs/clones"


@dataclass(frozen=True, slots=True)
class Clone:
    """A clone that is there whole. To be closed, or used in `with`."""

    location: Location
    directory: Path
    repository: Repository
    offline: bool
    _lock: Path = field(repr=False)

    @classmethod
    def open(cls, location: Location, clones: Path, *, offline: bool = False) -> Self:
        """The clone of `location`, made if there is none; `clones` is where they all are.

        With `offline` nothing is ever asked of the network. Raises `RepositoryUnusable`,
        `LockTimeout` and `StoreTimeout`.
        """
        _prepare(clones)
        name = _name(location.url)
        directory, lock = clones / name, clones / f"{name}.lock"
        if not directory.is_dir():
            if offline:
                raise RepositoryUnusable(f"there is no clone of {location.url} here yet; go online once")
            with lock_file(lock, CLONE_SECONDS) as held:
                if not directory.is_dir():  # somebody else may have made it in the meantime
                    _make(location, clones, name, held)
        fetch = None if offline else _Fetcher(location, directory)
        return cls(location, directory, Repository.open(directory, fetch), offline, lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the processes that answer for the objects."""
        self.repository.close()

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
                _fetch_refs(self.location, self.directory, held, REFRESH_SECONDS)

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


@dataclass(frozen=True, slots=True)
class _Fetcher:
    """Brings objects that a clone lacks; as `Fetch` of `store.git.objects`."""

    location: Location
    directory: Path

    def __call__(self, oids: Sequence[str]) -> None:
        # As git itself fetches what a partial clone lacks: no negotiation, no refs, nothing but these.
        arguments = [
            *("-c", "fetch.negotiationAlgorithm=noop"),
            *("fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--no-auto-maintenance"),
            *("--no-recurse-submodules", "--filter=blob:none", "--refmap=", "--stdin", "origin"),
        ]
        wanted = "".join(f"{oid}\n" for oid in oids).encode()
        done = _ask(self.location, arguments, self.directory, stdin=wanted, seconds=FETCH_SECONDS)
        if done.status != 0:
            raise _unreachable(self.location, done)


def _ask(
    location: Location,
    arguments: Sequence[str],
    directory: Path,
    *,
    operands: Sequence[str] = (),
    stdin: bytes = b"",
    held: Sequence[int] = (),
    seconds: float,
) -> command.Done:
    try:
        return command.run(
            arguments,
            directory=directory,
            git_dir=directory,
            operands=operands,
            stdin=stdin,
            network=True,
            secret=location.secret(),
            held=held,
            seconds=seconds,
        )
    except StoreTimeout:
        raise StoreTimeout(f"{location.url} did not send everything within {seconds:g} s") from None


def _make(location: Location, clones: Path, name: str, held: int) -> None:
    """Make the clone under another name and rename it. The caller holds its lock."""
    prefix = f".{name}."
    for left in clones.glob(f"{prefix}*"):  # by one that was interrupted: whoever makes one has the lock
        shutil.rmtree(left, ignore_errors=True)
    new = Path(tempfile.mkdtemp(prefix=prefix, dir=clones))
    try:
        _initialize(new, "sha1")
        hash_name = _ask_hash_name(location, new, held)
        if hash_name != "sha1":
            shutil.rmtree(new)
            new.mkdir(mode=0o700)
            _initialize(new, hash_name)
        extension = "" if hash_name == "sha1" else f"\tobjectFormat = {hash_name}\n"
        # A quoted value: anything printable may stand in a URL.
        quoted = '"' + location.url.replace("\\", "\\\\").replace('"', '\\"') + '"'
        (new / "config").write_text(_CONFIGURATION.format(format=extension, url=quoted))
        _fetch_refs(location, new, held, CLONE_SECONDS)
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


def _fetch_refs(location: Location, directory: Path, held: int, seconds: float) -> None:
    lines = _ask_refs(location, directory, held, "HEAD")
    refspecs = [*_REFSPECS, f"+HEAD:{_HEAD}"] if lines else _REFSPECS  # asked for in vain it is an error
    arguments = [
        *("fetch", "--quiet", "--prune", "--force", "--no-tags", "--no-write-fetch-head"),
        *("--no-auto-maintenance", "--no-recurse-submodules", "--no-show-forced-updates"),
    ]
    done = _ask(location, arguments, directory, operands=["origin", *refspecs], held=[held], seconds=seconds)
    if done.status != 0:
        raise _unreachable(location, done)
    branches = [what.removeprefix("ref: ") for what, _ in lines if what.startswith("ref: refs/heads/")]
    pointed = command.run(
        ["symbolic-ref", "HEAD", branches[0] if branches else _HEAD],
        directory=directory,
        git_dir=directory,
        held=[held],
    )
    if pointed.status != 0:
        raise RepositoryUnusable(f"the clone {directory} cannot be written: {pointed.complaint}")
    (directory / _REFRESHED).touch(mode=0o600)


def _ask_hash_name(location: Location, directory: Path, held: int) -> str:
    """What the server hashes with, told by the length of an oid."""
    lines = _ask_refs(location, directory, held, "HEAD") or _ask_refs(location, directory, held)
    for what, _ in lines:
        if is_oid(what):
            return "sha1" if len(what) == 40 else "sha256"
    raise RepositoryUnusable(f"{location.url} has no commits yet")


def _ask_refs(location: Location, directory: Path, held: int, *names: str) -> list[tuple[str, str]]:
    """The server's references by those names, or all: (oid, or where it points as `ref: …`; name)."""
    done = _ask(
        location,
        ["ls-remote", "--quiet", "--symref"],
        directory,
        operands=[location.url, *names],
        held=[held],
        seconds=_ASK_SECONDS,
    )
    if done.status != 0:
        raise _unreachable(location, done)
    fields = (line.partition("\t") for line in done.lines())
    return [(what, name) for what, _, name in fields if not names or name in names]


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


def _unreachable(location: Location, done: command.Done) -> RepositoryUnusable:
    return RepositoryUnusable(f"{location.url} cannot be read: {location.conceal(done.complaint)}")


def _ago(seconds: float) -> str:
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{int(seconds // length)} {unit} ago"
    return f"{int(seconds)} seconds ago"
