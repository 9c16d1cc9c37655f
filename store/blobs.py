"""`BlobSource`: brings what git tracks into a directory of our own, unpacked and verified.

The source of misses for whole-project mounts. Blocking, for worker threads.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Sequence
from pathlib import Path

from store.errors import CacheUnusable, ObjectMissing
from store.git.repository import Repository
from store.keeping.leases import Lease
from store.layouts import object_path
from store.oid import DVC_ALGORITHMS, Oid


class BlobSource:
    """Blobs of several repositories, asked in order; opened when the first one is needed."""

    def __init__(self, git_dirs: Sequence[Path], directory: Path) -> None:
        self._git_dirs = git_dirs
        self._directory = directory
        # A clone of ours is not aged out while a version needs it.
        self._leases: list[Lease] = []
        for git_dir in git_dirs:
            with contextlib.suppress(OSError):
                self._leases.append(Lease(git_dir))

    def bring(self, oid: Oid) -> None:
        """Publish a blob below the directory, verified by git's reader when it is whole.

        Not synced: what a crash leaves of it has another length than the tree says, and is refused.
        Raises `ObjectMissing`, `ObjectCorrupt`, `CacheUnusable`, and what opening a repository raises.
        """
        if oid.algorithm in DVC_ALGORITHMS:
            raise ObjectMissing(f"object {oid} is not in the cache")
        path = self._directory / object_path(oid)
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".tmp")
            try:
                with open(descriptor, "wb"):
                    self._copy(oid, descriptor)
                Path(temporary).replace(path)
            except BaseException:
                Path(temporary).unlink(missing_ok=True)
                raise
        except OSError as error:
            raise CacheUnusable(
                f"git object {oid} cannot be kept in {self._directory}: {error.strerror}"
            ) from None

    def _copy(self, oid: Oid, descriptor: int) -> None:
        last = ObjectMissing(f"git object {oid} is in no repository that is known here")
        for git_dir in self._git_dirs:
            with Repository.open(git_dir) as repository:
                try:
                    repository.objects.copy(oid.digest, descriptor)
                except ObjectMissing as error:
                    last = error
                else:
                    return
        raise last
