"""`MountPlan`: everything a daemon needs to serve one mount, settled before it starts.

The command that the user typed resolves the target, compiles the tree and mounts; the daemon is
a fresh process that gets this plan (msgpack, through a pipe) and the `/dev/fuse` descriptor, and
only serves. So every mistake of the user's is reported by the command itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import msgpack

from store.remotes.spec import RemoteSpec

Verify = Literal["whole", "blocks", "off"]


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
    remotes: tuple[RemoteSpec, ...] = field(default=(), repr=False)
    """Who is asked for what no cache has, in that order."""
    offline: bool = False
    """The network must not be used: of the remotes only directories are asked."""
    verify: Verify = "blocks"
    """What is proved of an object before its bytes are served: `whole`, `blocks` or `off`."""
    remote_names: tuple[str, ...] = field(default=(), repr=False)
    """The remotes that the user chose, by name or URL; empty for those that are configured."""
    trust: bool = False
    """The user said that the repository's configuration counts like that of his own."""
    request: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """What a resolver is to open (`fusefs.resolve`) to settle the first version's remotes anew."""
    cache_size: int = 0
    """Bytes that we keep at most; 0: no bound."""
    cache_free: int = 0
    """Bytes that we leave free on the cache's disk at least."""
    prefetch: bool = True
    """Bring files ahead of their readers, and remember in which order they read."""
    order: bytes = field(default=b"", repr=False)
    """The rows of the first version in the order in which they will be read, 4 bytes each; or empty."""
    order_unknown: int = 0
    """How many paths of that order are not in the version."""
    layers: tuple[str, ...] = ()
    """In native mode: those of `caches` that are there, which the kernel opens objects in by itself."""
    allow_other: bool = False
    """Other users may enter."""
    noexec: bool = False
    why_fuse: str = ""
    """Why it is not in native mode, which was preferred; empty where nothing is to be said."""
    view: str = ""
    """How the version is shown, `KIND:RECIPE` (`fusefs.views.kinds`); empty for as it is."""

    @property
    def cache(self) -> str:
        """The dataset's own."""
        return self.caches[0]

    def to_bytes(self) -> bytes:
        plain = {one.name: getattr(self, one.name) for one in fields(self)}
        plain["remotes"] = [remote.to_wire() for remote in self.remotes]
        packed: bytes = msgpack.packb(plain, unicode_errors="surrogateescape")
        return packed

    @classmethod
    def from_bytes(cls, data: bytes) -> MountPlan:
        plain = msgpack.unpackb(data, unicode_errors="surrogateescape")
        plain.update({name: tuple(plain[name]) for name in ("caches", "git_dirs", "remote_names", "layers")})
        plain["remotes"] = tuple(map(RemoteSpec.from_wire, plain["remotes"]))
        return cls(**plain)
