"""Who writes a log, and of what: the digits in the names of logs.

A project is named by its history: by its first commit, along the first parents, and its place in the
repository. So clones agree without a file that somebody would have to commit, and nothing is written to a
work tree. `.dvc/fusefs-project`, 32 digits, goes before that: for a fork that is to be another project. Where
there is no history, or only the end of it, a project is what one user has at one place of one machine.

An access is random digits in the user's state directory. Blocking; any thread.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
from pathlib import Path
from typing import Final

from store.errors import InputError, StoreError
from store.git import command
from store.remotes.spec import RemoteSpec

PROJECT_FILE: Final = ".dvc/fusefs-project"
ACCESS_FILE: Final = "access"
_PROJECT: Final = re.compile(r"[0-9a-f]{32}")
_ACCESS: Final = re.compile(r"[0-9a-f]{16}")


def new_transaction() -> str:
    """32 digits that nobody else has."""
    return secrets.token_hex(16)


def remote_key(spec: RemoteSpec) -> str:
    """32 digits for the place that a remote is, whatever it is called; equal on all machines."""
    return _digits("remote", spec.url.rstrip("/"), spec.options.get("endpointurl", ""))


def cache_key(access: str, cache: Path) -> str:
    """32 digits for a user's cache on one machine."""
    return _digits("cache", access, os.path.realpath(cache))


def find_access(state: Path) -> str:
    """The 16 digits of this user on this machine, kept in `state`; new ones where it takes nothing."""
    path = state / ACCESS_FILE
    fresh = secrets.token_hex(8)
    for _ in range(2):
        try:
            kept = path.read_text("ascii").strip()
            if _ACCESS.fullmatch(kept):
                return kept
        except (OSError, UnicodeDecodeError):
            pass
        temporary = path.with_name(f".{fresh}")
        with contextlib.suppress(OSError):
            state.mkdir(mode=0o700, parents=True, exist_ok=True)
            temporary.write_text(fresh + "\n", "ascii")
            try:
                os.link(temporary, path)  # of two processes one is first, and both take its digits
            except FileExistsError:
                if path.stat().st_size != len(fresh) + 1:  # damaged: nobody has taken it for digits
                    temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)
    return fresh


def find_project(root: Path, below: str, access: str) -> str:
    """The 32 digits of the project `below` a directory of the repository at `root`, a work tree or a clone.

    Raises `InputError` where its file has something else.
    """
    place = root / below
    try:
        told = (place / PROJECT_FILE).read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        told = ""
    if told:
        if not _PROJECT.fullmatch(told):
            raise InputError(
                f"{place / PROJECT_FILE} must hold 32 hex digits of lower case, and nothing else"
            )
        return told
    history = _read_history(place if place.is_dir() else root)
    if history is None:
        return _digits("place", access, os.path.realpath(place))
    first, inside = history
    return _digits("project", first, inside if place.is_dir() else below.strip("/"))


def _read_history(directory: Path) -> tuple[str, str] | None:
    """The first commit, and the directory's place below the repository; None where that cannot be told."""
    try:
        about = command.run(["rev-parse", "--is-shallow-repository", "--show-prefix"], directory=directory)
        if about.status or (lines := about.lines())[0] != "false":
            return None
        listing = ["rev-list", "--first-parent", "--max-parents=0"]
        first = command.run(listing, directory=directory, operands=["HEAD"])
    except StoreError:
        return None
    if first.status or not first.output:
        return None
    return first.lines()[-1], (lines[1] if len(lines) > 1 else "").strip("/")


def _digits(*parts: str) -> str:
    text = "\0".join(parts)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:32]
