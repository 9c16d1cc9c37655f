"""What goes over the network: references and objects from a server into a clone of ours.

The protocols are git's own, with the user's proxies, keys and helpers; secrets from an address go by
the environment of the one command. A message of git's is shown without them.

Callers: `store.git.clones`. Blocking, with deadlines; any thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from store.errors import RepositoryUnusable, StoreTimeout
from store.git import command
from store.git.objects import is_oid
from store.git.urls import Location

FETCH_SECONDS: Final = 600.0
"""Deadline for objects that are read."""

_ASK_SECONDS: Final = 60.0
_HEAD: Final = "refs/fusefs/head"
"""Where HEAD goes that is on no branch."""

_REFSPECS: Final = tuple(f"+refs/{space}/*:refs/{space}/*" for space in ("heads", "tags", "exps"))


@dataclass(frozen=True, slots=True)
class Fetcher:
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


def fetch_refs(location: Location, directory: Path, held: int, seconds: float) -> None:
    """Bring branches, tags, experiments and HEAD to where the server has them, with history and trees.

    `held` is the lock's descriptor. Raises `RepositoryUnusable` and `StoreTimeout`.
    """
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


def ask_hash_name(location: Location, directory: Path, held: int) -> str:
    """What the server hashes with, told by the length of an oid. Raises as `fetch_refs` does."""
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


def _unreachable(location: Location, done: command.Done) -> RepositoryUnusable:
    return RepositoryUnusable(f"{location.url} cannot be read: {location.conceal(done.complaint)}")
