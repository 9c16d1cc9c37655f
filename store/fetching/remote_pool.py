"""`RemotePool`: the remotes that a daemon has, each opened once however many versions name it.

Two specs that open the same storage share it, with its health and what is known of its objects. Opening waits
for the first call and happens in that call's thread: it may read files, import a library and ask for a token.

The pool belongs to the event loop; `LazyStorage` is for any thread.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Final

from store.contents.kept_indexes import INDEXES, KeptIndexes
from store.contents.reading import Contents
from store.errors import InputError, RemoteError
from store.fetching.breaker import Health
from store.fetching.courier_messages import pack_map
from store.fetching.suspicion import Suspicion
from store.metrics import Metrics, RemoteMetrics, label_of
from store.oplog.identities import remote_key
from store.remotes.remote import Remote
from store.remotes.spec import DVC_LAYOUT, RemoteSpec
from store.remotes.storage import Address, Body, Listed, WritableStorage

Opener = Callable[[RemoteSpec], Remote]

MISSING_SECONDS: Final = 5.0
"""For so long a remote is not asked again for what it does not have: a thousand readers may want it."""
REMEMBERED: Final = 10_000
"""Objects that are remembered, a remote: those that are missing, those that were wrong."""
CORRUPT_TIMES: Final = 2
"""How often a remote may send something else for an object before it is not asked for it for a while."""

CUT_TIMES: Final = 8
"""The same for answers that were cut off, which a network may do: some ten seconds of tries."""


class _Counted(AbstractContextManager[Body]):
    """A body whose bytes are counted as they come."""

    def __init__(self, answer: AbstractContextManager[Body], metrics: RemoteMetrics) -> None:
        self._answer = answer
        self._metrics = metrics
        self._body: Body

    def __enter__(self) -> Body:
        self._body = self._answer.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        return self._answer.__exit__(kind, error, traceback)

    @property
    def size(self) -> int:
        return self._body.size

    @property
    def length(self) -> int:
        return self._body.length

    @property
    def validator(self) -> str:
        return self._body.validator

    def __iter__(self) -> Iterator[bytes]:
        for part in self._body:
            self._metrics.received(len(part))
            yield part


class LazyStorage:
    """A `Storage` that is opened when it is needed, and anew when it is told to."""

    def __init__(self, spec: RemoteSpec, opener: Opener, metrics: RemoteMetrics) -> None:
        self._spec = spec
        self._opener = opener
        self._metrics = metrics
        self._lock = threading.Lock()
        self.wire = pack_map(replace(spec, addresses={}, manifests=()).to_wire())
        """What tells another process how to open it."""
        self.generation = 0
        """How often it is to be opened anew."""
        self._storage: WritableStorage | None = None
        self._former: WritableStorage | None = None

    @property
    def can_list(self) -> bool:
        return self._open().can_list

    def size(self, address: Address) -> int:
        return self._open().size(address)

    def read(
        self, address: Address, offset: int = 0, length: int | None = None, validator: str = ""
    ) -> AbstractContextManager[Body]:
        return _Counted(self._open().read(address, offset, length, validator), self._metrics)

    def list(self, prefix: str) -> Iterator[Listed]:
        return self._open().list(prefix)

    def put(self, key: str, parts: Iterable[bytes], size: int, *, if_absent: bool = False) -> bool:
        return self._open().put(key, parts, size, if_absent=if_absent)

    def delete(self, keys: Sequence[str]) -> None:
        self._open().delete(keys)

    def close(self) -> None:
        """Close what is open. Blocking."""
        with self._lock:
            for storage in (self._former, self._storage):
                if storage is not None:
                    storage.close()
            self._former = self._storage = None

    def renew(self) -> None:
        """Open the storage anew at the next call, with what its credentials are then. Blocking.

        Calls that are under way may go on: what they use is closed the next time.
        """
        with self._lock:
            if self._former is not None:
                self._former.close()
            self._former, self._storage = self._storage, None
            self.generation += 1

    def received(self, size: int) -> None:
        """Another process has received so many bytes."""
        self._metrics.received(size)

    def _open(self) -> WritableStorage:
        storage = self._storage
        if storage is None:
            with self._lock:
                storage = self._storage
                if storage is None:
                    try:
                        storage = self._storage = self._opener(self._spec).storage
                    except InputError as error:
                        raise RemoteError(str(error)) from None
        return storage


@dataclass(slots=True, eq=False)
class PooledRemote:
    """What versions share of a remote."""

    storage: LazyStorage
    metrics: RemoteMetrics
    contents: Contents
    health: Health = field(default_factory=Health)
    _missing: dict[Address, float] = field(default_factory=dict)
    _corrupt: dict[Address, Suspicion] = field(default_factory=dict)

    def is_missing(self, address: Address) -> bool:
        """Has the remote said so a moment ago?"""
        at = self._missing.get(address)
        return at is not None and time.monotonic() - at < MISSING_SECONDS

    def remember_missing(self, address: Address) -> None:
        self._missing.pop(address, None)
        self._missing[address] = time.monotonic()
        if len(self._missing) > REMEMBERED:
            del self._missing[next(iter(self._missing))]

    def is_quarantined(self, address: Address) -> bool:
        """Has the remote sent something else too often, and not long ago?"""
        suspicion = self._corrupt.get(address)
        return suspicion is not None and suspicion.lasts()

    def remember_right(self, address: Address) -> None:
        """What it sent was the object."""
        self._corrupt.pop(address, None)

    def remember_corrupt(self, address: Address, *, was_cut: bool = False) -> None:
        self._corrupt.setdefault(address, Suspicion()).note(at_once=CUT_TIMES if was_cut else CORRUPT_TIMES)
        if len(self._corrupt) > REMEMBERED:
            del self._corrupt[next(iter(self._corrupt))]


@dataclass(frozen=True, slots=True, eq=False)
class Member:
    """A remote of one version."""

    remote: Remote
    shared: PooledRemote

    @property
    def name(self) -> str:
        return self.remote.name


_Key = tuple[str, str, tuple[tuple[str, str], ...], bool, bool]


class RemotePool:
    """All remotes of a daemon. `opener` is `store.remotes.opening.open_remote`; what is kept of their content
    directories lies below `own`, a directory of the user's own."""

    def __init__(self, opener: Opener, metrics: Metrics, own: Path | None = None) -> None:
        self._opener = opener
        self._own = own
        self._metrics = metrics
        self._remotes: dict[_Key, PooledRemote] = {}

    def members(self, specs: Sequence[RemoteSpec]) -> tuple[Member, ...]:
        """The remotes that `specs` name, in their order. Opens nothing."""
        return tuple(
            Member(_remote(spec, pooled), pooled) for spec in specs for pooled in (self._pooled(spec),)
        )

    def health(self) -> dict[str, Health]:
        """By the remotes' names, as the metrics have them."""
        return {label_of(key[0]): pooled.health for key, pooled in self._remotes.items()}

    def close(self) -> None:
        """Close every storage. Blocking."""
        for pooled in self._remotes.values():
            with contextlib.suppress(RemoteError):
                pooled.storage.close()
        self._remotes.clear()

    def _pooled(self, spec: RemoteSpec) -> PooledRemote:
        key = (spec.name, spec.url, tuple(sorted(spec.options.items())), spec.ambient, spec.may_run)
        pooled = self._remotes.get(key)
        if pooled is None:
            metrics = self._metrics.remote(spec.name)
            storage = LazyStorage(spec, self._opener, metrics)
            kept = None if self._own is None else KeptIndexes(self._own / INDEXES / remote_key(spec))
            contents = Contents(spec.name, storage, kept)
            pooled = self._remotes[key] = PooledRemote(storage, metrics, contents)
            metrics.breaker = pooled.health.state
        return pooled


def _remote(spec: RemoteSpec, pooled: PooledRemote) -> Remote:
    contents = pooled.contents if spec.layout == DVC_LAYOUT else None
    key = remote_key(spec)
    return Remote(
        spec.name, pooled.storage, spec.layout, spec.addresses, spec.identity, key, contents, spec.manifests
    )
