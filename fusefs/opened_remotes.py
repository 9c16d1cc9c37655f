"""The remotes of a project, opened for a command that asks them by itself.

Those that keep files by path and version cannot be asked by oid alone and are left out. Callers: `fusefs
cache`. Blocking.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from store.dvc.config import load_config
from store.dvc.project import Project, shares_local
from store.dvc.remotes import RemoteHome, named_destinations, settle_remotes
from store.dvc.trust import Standing
from store.errors import InputError, RemoteError
from store.keeping.confirmation import is_elsewhere
from store.remotes.opening import open_for_reading
from store.remotes.remote import Remote
from store.remotes.spec import DVC_LAYOUT


@contextmanager
def open_remotes(
    project: Project, cache: Path, chosen: Sequence[str], warn: Callable[[str], object], *, trust: bool
) -> Iterator[Mapping[str, Remote]]:
    """The remotes of a project that may know better than its `cache`, by identity, in their order.

    What cannot be used is a line for `warn`.
    Raises `InputError` for one of the `chosen` that cannot be used.
    """
    own = load_config(None, os.environ)
    shared = shares_local(project.root, [project.config])
    root, named = os.path.realpath(project.root), named_destinations(own)
    standing = Standing(project.is_own, trust, root, named, shared)
    settled = settle_remotes(RemoteHome((project.config,), standing), (), own, chosen)
    for warning in settled.warnings:
        warn(f"warning: {warning}")
    remotes: dict[str, Remote] = {}
    try:
        for spec in settled.remotes:
            usable = spec.layout == DVC_LAYOUT and is_elsewhere(spec, cache)
            if usable and spec.identity not in remotes:
                try:
                    remotes[spec.identity] = open_for_reading(spec)
                except (InputError, RemoteError) as error:
                    warn(f"warning: {error}")
        yield remotes
    finally:
        for remote in remotes.values():
            remote.storage.close()
