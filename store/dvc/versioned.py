"""Where remotes that keep versions (`version_aware`, `worktree`) have the files of outputs.

Such a remote has no objects by their hash but the files by their paths; a metafile tells the storage's
own version of each.

Callers: `store.dvc.remotes`. Pure functions, any thread.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from store.dvc.metafile import CloudVersion, Output
from store.oid import Oid


@dataclass(frozen=True, slots=True)
class Wanted:
    """An output whose content is wanted."""

    root: str
    """The DVC repository that it is of, from the git repository's root."""
    path: str
    """The output's, from the DVC root."""
    output: Output


def find_versions(
    wanted: Iterable[Wanted], defaults: Sequence[str] = ()
) -> dict[str, dict[str, tuple[str, str]]]:
    """Remote's name in lower case → oid as DVC prints it → path below the remote's URL, and version.

    Where the metafile (of DVC 2) names no remote it means one of the `defaults`.
    """
    found: dict[str, dict[str, tuple[str, str]]] = {}

    def add(oid: Oid | None, cloud: CloudVersion | None, path: str) -> None:
        if oid is not None and not oid.is_tree and cloud is not None and cloud.version_id:
            for remote in [cloud.remote.lower()] if cloud.remote else defaults:
                found.setdefault(remote, {}).setdefault(str(oid), (path, cloud.version_id))

    for one in wanted:
        add(one.output.oid, one.output.cloud, one.path)
        for file in one.output.files:
            path = posixpath.join(one.path, file.relpath)
            if posixpath.normpath(path) == path and not path.startswith(("/", "../")):
                add(file.oid, file.cloud, path)
    return found
