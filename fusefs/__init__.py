"""Versions of DVC datasets, read-only: as a mount (`fusefs mount`), or in Python by `fusefs.open`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Sequence

    from fusefs.filesystem import FusefsFileSystem
    from fusefs.hints import StrPath

__all__ = ["hint", "open"]


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


def hint(mountpoint: StrPath, paths: Iterable[StrPath]) -> int:
    """Tell a mount which files will be read next, in this order: it fetches them ahead of their readers.

        order = torch.randperm(len(names)).tolist()
        fusefs.hint("/mnt/data", (names[number] for number in order))

    Paths count from the mount's root, or begin with the mountpoint; hints that follow are put behind. Returns
    at once, with the number of paths that the mount took note of: fewer than given where some are not in the
    version, where it has enough for the time being, or where it does not prefetch. The mount's owner and root
    may do this.

    Raises OSError where there is no mount that answers, PermissionError where it is another user's, and
    ValueError where it has no order to follow.
    """
    from fusefs.hints import send_hint

    return send_hint(mountpoint, paths)
