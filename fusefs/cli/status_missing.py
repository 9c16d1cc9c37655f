"""`fusefs status --missing MOUNTPOINT|TARGET`: what is not on this machine, of a mount or of any version."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fusefs import mountinfo
from fusefs.cli import print_error
from fusefs.control_socket import ask
from fusefs.dataset import Request, open_dataset
from fusefs.directories import cache_directory
from fusefs.logs import escape
from fusefs.missing import Missing
from fusefs.survey import State, survey_named
from store.errors import InputError, StoreError
from store.tree import UNKNOWN

SHOWN: Final = 20
"""Paths that are printed without --all."""


@dataclass(frozen=True, slots=True)
class Place:
    """A version: its compiled tree, and where its objects are looked for."""

    name: str
    """The mountpoint, or the target."""
    rev: str
    tree: Path
    caches: tuple[Path, ...]


def tell_missing(name: str, *, everything: bool, as_json: bool) -> None:
    """Print what is missing of the mount at `name`, or of the target. Raises `StoreError`."""
    place = find_mounted(name) or find_target(name)
    missing = Missing(place.tree, place.caches, cache_directory())
    try:
        if as_json:
            _print_json(place, missing, everything=everything)
        else:
            for line in _lines(place, missing, everything=everything):
                print(escape(line))
    finally:
        missing.close()


def find_mounted(path: str) -> Place | None:
    """The version that is shown by the mount that `path` is in; None where that is no mount of ours."""
    mounts = mountinfo.read_mounts()
    mount = mountinfo.mount_containing(mountinfo.resolve(path, mounts), mounts)
    if mount is None:
        return None
    found = survey_named(mount)
    if found.state is not State.OK or found.status.control is None:
        raise InputError(
            f"{mount.mountpoint} tells nothing: its daemon does not answer ({found.state.value})"
        )
    try:
        answer = ask(found.status.control, {"shown": True})
    except (OSError, ValueError) as error:
        raise StoreError(f"the daemon of {mount.mountpoint} does not answer: {error}") from None
    if "error" in answer:
        raise InputError(str(answer["error"]))
    caches = tuple(map(Path, answer["caches"]))
    return Place(mount.mountpoint, str(answer["rev"]), Path(answer["tree"]), caches)


def find_target(target: str) -> Place:
    """A version that need not be mounted, as far as it is known here. Raises `StoreError`."""
    dataset = open_dataset(Request(target, offline=True))
    for warning in dataset.warnings:
        print_error(f"warning: {warning}")
    assert dataset.tree is not None  # only revisions side by side have none
    return Place(target, dataset.rev, dataset.tree, dataset.caches)


def _lines(place: Place, missing: Missing, *, everything: bool) -> Iterator[str]:
    yield f"{place.name}  {place.rev}".rstrip()
    for row, size in missing.rows():
        if everything or missing.lack.files <= SHOWN:
            yield f"  {'?' if size == UNKNOWN else size:>14}  {missing.tree.path(row)}"
    lack = missing.lack
    if not everything and lack.files > SHOWN:
        yield f"  {'':>14}  and {lack.files - SHOWN:,} more, with --all"
    if not lack.files:
        yield f"  nothing is missing: all {missing.tree.files:,} files are here"
        return
    unknown = f", and {lack.unknown:,} of unknown size" if lack.unknown else ""
    yield f"  {lack.files:,} of {missing.tree.files:,} files are missing: {lack.bytes:,} bytes{unknown}"


def _print_json(place: Place, missing: Missing, *, everything: bool) -> None:
    """One object; the paths are printed while they are found, and what they come to stands behind."""
    head: dict[str, Any] = {"name": place.name, "rev": place.rev or None, "files": missing.tree.files}
    print(json.dumps(head)[:-1] + ', "paths": [', end="")
    before = ""
    for row, size in missing.rows():
        if everything or missing.lack.files <= SHOWN:
            found = {"path": missing.tree.path(row), "bytes": None if size == UNKNOWN else size}
            print(f"{before}\n{json.dumps(found)}", end="")
            before = ","
    lack = missing.lack
    tail = {
        "missing_files": lack.files,
        "missing_bytes": lack.bytes,
        "unknown_sizes": lack.unknown,
        "complete": everything or lack.files <= SHOWN,
    }
    print("\n], " + json.dumps(tail)[1:])
