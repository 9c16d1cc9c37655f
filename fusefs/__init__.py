"""Versions of DVC datasets, read-only: as a mount (`fusefs mount`), or in Python by `fusefs.open`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from fusefs.filesystem import FusefsFileSystem

__all__ = ["open"]


def open(
    target: str | os.PathLike[str],
    *,
    rev: str = "",
    repo: str = "",
    cache: str | os.PathLike[str] = "",
    remote: str | Sequence[str] = (),
    trust: bool = False,
    offline: bool = False,
    verify: str = "blocks",
    cache_size: int | str = 0,
    cache_free: int | str = 0,
) -> FusefsFileSystem:
    """A version of a dataset as an fsspec file system; needs neither `/dev/fuse` nor a mount.

        with fusefs.open("data", rev="v1.0") as files:
            names = files.find("images")
            data = files.cat_file(names[0])
            with files.open("labels.csv", "rt") as labels: ...

    `target` and the options are those of `fusefs mount`: a `.dvc` file, a tracked path, `PATH@REV`, an oid.
    What the cache lacks is fetched into it from the remotes, as a mount would do it.

    Raises FileNotFoundError where there is no such thing or revision, ValueError for what cannot be used,
    and OSError with the errno and the line that a mount would give.
    """
    from fusefs.filesystem import open_file_system  # so that `import fusefs` costs nothing

    return open_file_system(
        target,
        {
            "rev": rev,
            "repo": repo,
            "cache": cache,
            "remote": remote,
            "trust": trust,
            "offline": offline,
            "verify": verify,
            "cache_size": cache_size,
            "cache_free": cache_free,
        },
    )
