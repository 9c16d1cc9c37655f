"""`MountPlan`: everything a daemon needs to serve one mount, settled before it starts.

The command that the user typed resolves the target, compiles the tree and mounts; the daemon is
a fresh process that gets this plan (msgpack, through a pipe) and the `/dev/fuse` descriptor, and
only serves. So every mistake of the user's is reported by the command itself.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import msgpack


@dataclass(frozen=True, slots=True)
class MountPlan:
    """A settled mount. All paths are absolute; `umask`, `uid` and `gid` shape what `stat` shows."""

    target: str
    """What the user named, as typed."""
    oid: str
    """The oid that it resolved to, as DVC prints it; empty for several outputs."""
    rev: str
    """The git commit that it was read from; empty where none is known."""
    mountpoint: str
    mode: str
    """`fuse` or `native`: how the mount works, never `auto`."""
    tree: str
    """The compiled tree's file (`store.tree`); empty where `revs` says what is shown."""
    revs: str
    """A glob of revisions to show side by side; empty for one version."""
    caches: tuple[str, ...]
    """The roots of the caches (`store.layouts`) that objects are looked for in, the dataset's own first."""
    git_dirs: tuple[str, ...]
    """Repositories that have the blobs of what git tracks in the tree."""
    repo: str
    """Where other versions come from, a directory or a URL; empty where there are none."""
    path: str
    """The dataset's path in that repository; empty for all of it."""
    uid: int
    gid: int
    umask: int
    log: str
    """The log file; empty for standard error."""
    pin: bool
    """Keep what is shown from being removed from the caches, by hard links."""
    metrics: str
    """Where metrics are served (`fusefs.metrics_address`); empty for nowhere but in the mount."""
    since: float
    """When it was mounted, seconds since the epoch."""

    @property
    def cache(self) -> str:
        """The dataset's own."""
        return self.caches[0]

    def to_bytes(self) -> bytes:
        packed: bytes = msgpack.packb(asdict(self), unicode_errors="surrogateescape")
        return packed

    @classmethod
    def from_bytes(cls, data: bytes) -> MountPlan:
        fields = msgpack.unpackb(data, unicode_errors="surrogateescape")
        return cls(**{**fields, **{name: tuple(fields[name]) for name in ("caches", "git_dirs")}})
