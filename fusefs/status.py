"""What a mount says of itself: the one shape of `.fusefs/status`, `fusefs status` and `fusefs list`."""

from __future__ import annotations

import builtins
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from store.metrics import Making

_PAGE: Final = os.sysconf("SC_PAGESIZE")


@dataclass(frozen=True, slots=True)
class PinStatus:
    """What a `dvc gc` cannot take away from a mount: the objects that it holds links to."""

    state: str
    """`off`, `making`, `complete`, `partial` (some links are refused) or `refused` (all are)."""
    objects: int
    """How many are held."""
    reason: str | None
    """Why links are refused."""


@dataclass(frozen=True, slots=True)
class LimitsStatus:
    """What a mount keeps of what it fetches. Bytes; `None`: no such limit."""

    cache: str
    """The cache that it fetches into."""
    size: int | None
    free: int | None


@dataclass(frozen=True, slots=True)
class PrefetchStatus:
    """What a mount fetches ahead of the readers of the version at its root."""

    order: str
    """Where the order is from that they are expected to read in: `file`, `hint`, `trace` or `none`."""
    ahead: int
    """Files that were fetched and wait to be read."""
    fetching: int
    """Files that are on their way."""
    fetched: int
    """Files that were fetched ahead so far."""
    hits: int
    """Opens that found theirs fetched ahead."""


@dataclass(frozen=True, slots=True)
class RemoteStatus:
    """How a remote is doing, as far as this mount has asked it."""

    name: str
    state: str
    """`ok`, `failing` (the last call failed), `denied`, `resting` (left alone for a while), `not asked`
    (offline)."""
    reason: str
    """What it said last; empty where it is well."""
    objects: int
    """Small objects that came whole."""
    bytes: int
    """Of objects, large ones too."""


@dataclass(frozen=True, slots=True)
class Status:
    """A mount's state at one moment. `None` is not known (yet)."""

    mountpoint: str
    target: str | None
    oid: str | None
    rev: str | None
    mode: str | None
    pid: int | None
    since: float | None
    """Seconds since the epoch."""
    files: int | None
    bytes: int | None
    """What the version's files have together; `None` until every size is known."""
    hits: int | None
    """Opens answered from the cache; `None` where the kernel answers them by itself and nobody sees it."""
    misses: int | None
    """Opens and sizes that the cache could not answer."""
    errors: int | None
    """Requests that ended with an error of ours."""
    bytes_cache: int | None
    """Bytes read from the cache for readers; `None` in native mode."""
    bytes_remote: int | None
    cache_bytes: int | None
    """What the objects of this version that are in the cache have together."""
    rss_bytes: int | None
    log: str | None
    control: str | None = None
    """The name of the daemon's control socket, `@` for a zero byte."""
    pins: PinStatus | None = None
    remotes: tuple[RemoteStatus, ...] | None = None
    """In the order in which they are asked."""
    offline: bool | None = None
    """Is the network not to be used?"""
    verify: str | None = None
    """What is proved of an object before its bytes are served."""
    metrics: str | None = None
    """The address where Prometheus' text is served, too."""
    limits: LimitsStatus | None = None
    prefetch: PrefetchStatus | None = None
    making: Making | None = None
    """`None` until a view is looked into that has something to be made."""
    why_fuse: str | None = None
    """Why it is not in native mode, which was preferred; `None` where nothing is to be said."""
    supervisor: int | None = None
    """The process that puts another daemon in the place of one that dies, and ends after it; `None` if it is
    gone."""
    restarts: int | None = None
    """How many daemons died so far, and others went on."""
    view: str | None = None
    """How the version is shown, `KIND:RECIPE`; `None` for as it is."""

    def to_json(self) -> builtins.bytes:
        return json.dumps(asdict(self), indent=2).encode() + b"\n"


def resident_bytes() -> int:
    """This process's resident memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE
