"""How a version is mounted: in native mode, or in fuse mode and why.

Called by the commands that mount, before anything is started. Blocking, for milliseconds: whether the kernel,
the rights and the caches allow native mode is found by doing it (`fusefs.native.layers.try_layers`).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fusefs import mountinfo
from fusefs.dataset import Dataset
from fusefs.kernel_mount import MountFailed
from fusefs.logs import escape
from fusefs.mount_options import MountOptions
from fusefs.native.layers import try_layers
from store.ownership import make_root

NATIVE: Final = "native"
FUSE: Final = "fuse"
_NEW_CACHE_MODE: Final = 0o777


@dataclass(frozen=True, slots=True)
class Choice:
    """A mode; `why_fuse` is why it is not the one that was preferred, `layers` the caches that it opens."""

    mode: str
    why_fuse: str = ""
    layers: tuple[str, ...] = ()


def choose(dataset: Dataset, options: MountOptions, place: str) -> Choice:
    """The mode in which to mount at `place`, from here. Raises as `settle`."""
    return settle(prefer(dataset, options, place), options)


def prefer(dataset: Dataset, options: MountOptions, place: str = "") -> Choice:
    """The mode in which to mount, at `place` or where nobody else looks, if the kernel allows it. Raises as
    `settle`."""
    if options.mode == FUSE:
        return Choice(FUSE)
    try:
        _check_options(options)
        _check_place(place)
        return Choice(NATIVE, layers=find_layers(dataset))
    except MountFailed as error:
        return _give_way(error, options)


def settle(choice: Choice, options: MountOptions) -> Choice:
    """The same, if this process may mount so where it is, or fuse mode.

    Raises `MountFailed` where native mode is demanded and cannot be.
    """
    if choice.mode == NATIVE:
        try:
            try_layers(choice.layers)
        except MountFailed as error:
            return _give_way(_name_cache(choice.layers, error), options)
    return choice


def _name_cache(caches: Sequence[str], error: MountFailed) -> MountFailed:
    """The same error, with the cache that is to blame and what it lies on."""
    try:
        try_layers(())
    except MountFailed:
        return error
    for cache in caches:
        try:
            try_layers((cache,))
        except MountFailed as reason:
            kind = mountinfo.kind_below(cache, mountinfo.read_mounts())
            on = f", on {kind}," if kind else ""
            return MountFailed(f"the cache {escape(cache)}{on} cannot be a layer of an overlay: {reason}")
    return error


def _give_way(error: MountFailed, options: MountOptions) -> Choice:
    if options.mode == NATIVE:
        raise MountFailed(f"native mode is not possible: {error}") from error
    return Choice(FUSE, why_fuse=str(error))


def _check_options(options: MountOptions) -> None:
    """Raises `MountFailed` for what native mode does not have."""
    if options.revs and options.mode != NATIVE:
        raise MountFailed("revisions side by side are directories there, and links in native mode")
    if options.record:
        raise MountFailed("--record sees every open, and native mode does not")
    if options.view:
        raise MountFailed("a view at the root is shown in fuse mode")


def _check_place(place: str) -> None:
    """Raises `MountFailed` where a child of the daemon, which mounts in native mode, would wait for itself:
    an automounter's place is closed to all but its own process group until something is mounted there."""
    mount = mountinfo.mount_at(place, mountinfo.read_mounts())
    if mount is not None and mount.is_automount:
        raise MountFailed("an automounter lets nobody mount there but the command that it has started")


def find_layers(dataset: Dataset) -> tuple[str, ...]:
    """The caches that are there. The version's own is made where it is missing and can be filled."""
    caches: Sequence[Path] = dataset.caches
    if dataset.remotes and not caches[0].exists():
        try:
            make_root(caches[0], _NEW_CACHE_MODE)
        except OSError as error:
            raise MountFailed(f"the cache {caches[0]} cannot be made: {error.strerror}") from error
    return tuple(os.fspath(cache) for cache in caches if cache.is_dir())
