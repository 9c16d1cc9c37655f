"""`RemoteManifests`: brings manifests that no cache has from remotes, so that a dataset can be opened.

Each is proved to be what its oid says, and put into the dataset's cache where that can be written, so that
DVC and the next mount find it; otherwise it is kept in memory. Many are brought at once. A remote that does
not answer is not asked again: of hundreds of manifests each would wait for it.

Callers: `fusefs.dataset_remotes`, in a command or a resolver, never in a daemon. Blocking; one thread, which
waits for others of its own. They end with the process, and all that they wait for has a deadline.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Final, TypeVar

from store.errors import (
    CacheUnusable,
    InputError,
    ObjectCorrupt,
    ObjectMissing,
    Offline,
    RemoteCorrupt,
    RemoteCut,
    RemoteDenied,
    RemoteError,
    RemoteSlow,
    RemoteUnreachable,
    StoreError,
)
from store.fetching.arrivals import Arrivals
from store.manifest import check_manifest
from store.oid import Oid
from store.remotes.remote import Remote
from store.remotes.spec import RemoteSpec

T = TypeVar("T")

AT_ONCE: Final = 8
SIZE_LIMIT: Final = 1 << 32
"""Bytes; a manifest of forty million files."""
DEADLINE: Final = 300.0
"""Seconds for one manifest, of all remotes together."""
LONG_SECONDS: Final = 2.0
"""After so long the user is told what is waited for."""
ATTEMPTS: Final = 3
_PAUSE: Final = 0.3
_LONGEST_PAUSE: Final = 10.0

_WORST: Final = (RemoteSlow, RemoteUnreachable, RemoteDenied, RemoteCorrupt)
"""What is reported where remotes fail for several reasons: the first of these."""


class RemoteManifests:
    """Manifests of one dataset, from whatever remotes its outputs have."""

    def __init__(
        self,
        cache: Path,
        *,
        offline: bool = False,
        tell: Callable[[str], object] | None = None,
        opener: Callable[[RemoteSpec], Remote] | None = None,
    ) -> None:
        """`tell` gets a line when it takes long; `opener` is `open_for_reading` but in tests."""
        self._arrivals = Arrivals(cache)
        self._offline = offline
        self._tell = tell
        self._opener = opener or _open_remote
        self._opened: dict[Hashable, Remote] = {}
        self._failed: dict[Hashable, int] = {}
        """How often in a row a remote did not answer, whoever asked."""
        self._counting = threading.Lock()
        self._lock = threading.Lock()
        self._told = False
        self._publishing: list[threading.Thread] = []

    def close(self) -> None:
        """Wait for what is on its way into the cache, and let go of connections."""
        for thread in self._publishing:
            thread.join(DEADLINE)
        with self._lock:
            for remote in self._opened.values():
                remote.storage.close()
            self._opened.clear()
        self._arrivals.close()

    def bring(self, oids: Sequence[Oid], specs: Sequence[RemoteSpec]) -> Mapping[Oid, bytes | StoreError]:
        """Each manifest's bytes, or why it cannot be had."""
        return self._bring_all(oids, specs, self._bring)

    def _bring_all(
        self,
        oids: Sequence[Oid],
        specs: Sequence[RemoteSpec],
        bring: Callable[[Oid, Sequence[RemoteSpec]], bytes],
    ) -> dict[Oid, bytes | StoreError]:
        results: dict[Oid, bytes | StoreError] = {}
        waiting: SimpleQueue[Oid] = SimpleQueue()
        arrived: SimpleQueue[tuple[Oid, bytes | StoreError]] = SimpleQueue()
        wanted = list(dict.fromkeys(oids))
        for oid in wanted:
            waiting.put(oid)

        def work() -> None:
            while True:
                try:
                    oid = waiting.get_nowait()
                except Empty:
                    return
                try:
                    arrived.put((oid, bring(oid, specs)))
                except StoreError as error:
                    arrived.put((oid, error))
                except BaseException as error:  # whoever waits must not wait for ever
                    arrived.put((oid, StoreError(f"manifest {oid}: {type(error).__name__}")))

        for number in range(min(AT_ONCE, len(wanted))):
            # Daemon threads: an interrupted command does not wait for a server that stalls.
            threading.Thread(target=work, name=f"manifests-{number}", daemon=True).start()
        while len(results) < len(wanted):
            try:
                oid, result = arrived.get(timeout=None if self._told or not self._tell else LONG_SECONDS)
            except Empty:
                self._report(len(wanted) - len(results), specs)
            else:
                results[oid] = result
        return results

    def bring_one(self, oid: Oid, specs: Sequence[RemoteSpec]) -> bytes:
        """One manifest's bytes, before they are in the cache, which they are, if they can be, after `close`.

        Raises `StoreError`.
        """
        result = self._bring_all([oid], specs, self._fetch)[oid]
        if isinstance(result, StoreError):
            raise result
        # To write down a large one takes as long as to fetch it, and to compile it.
        thread = threading.Thread(target=self._publish, args=(oid, result), name="manifest", daemon=True)
        thread.start()
        self._publishing.append(thread)
        return result

    def find(self, candidates: Sequence[Oid], specs: Sequence[RemoteSpec]) -> Oid | None:
        """The first of these objects that a remote has; None where all say that they do not.

        Raises `RemoteError` where one cannot say, `Offline`.
        """
        for oid in candidates:
            try:
                self._ask(oid, specs, lambda remote, oid=oid: remote.size(oid))  # type: ignore[misc]
            except ObjectMissing:
                continue
            return oid
        return None

    def _report(self, left: int, specs: Sequence[RemoteSpec]) -> None:
        self._told = True
        if self._tell is not None:
            what = "a manifest" if left == 1 else f"{left} manifests"
            self._tell(f"waiting for {what} from {', '.join(spec.name for spec in specs)}")

    def _bring(self, oid: Oid, specs: Sequence[RemoteSpec]) -> bytes:
        data = self._fetch(oid, specs)
        self._publish(oid, data)
        return data

    def _fetch(self, oid: Oid, specs: Sequence[RemoteSpec]) -> bytes:
        return self._ask(oid, specs, lambda remote: _download(remote, oid))

    def _ask(self, oid: Oid, specs: Sequence[RemoteSpec], work: Callable[[Remote], T]) -> T:
        """What the first remote says that has the object.

        Who cannot say is asked again when all others were. Raises `ObjectMissing`, `Offline`, `RemoteError`.
        """
        unasked = [spec.name for spec in specs if self._offline and not is_local(spec)]
        left = [spec for spec in specs if not self._offline or is_local(spec)]
        deadline = time.monotonic() + DEADLINE
        failures: dict[str, RemoteError] = {}
        for attempt in range(ATTEMPTS):
            pause = _PAUSE * 4**attempt
            again = []
            for spec in left:
                try:
                    return self._ask_one(spec, work)
                except RemoteError as error:
                    failures[spec.name] = error
                    if isinstance(error, RemoteSlow | RemoteUnreachable | RemoteCut):
                        again.append(spec)
                        pause = max(pause, error.retry_after if isinstance(error, RemoteSlow) else 0.0)
            left = [spec for spec in again if self._failed.get(_key(spec), 0) < ATTEMPTS]
            if not left or pause > _LONGEST_PAUSE or time.monotonic() + pause > deadline:
                break
            if attempt < ATTEMPTS - 1:
                time.sleep(pause)
        if unasked:
            raise Offline(f"{oid} is in no cache, and --offline forbids to ask {', '.join(unasked)}")
        said = "; ".join(map(str, failures.values()))
        for kind in _WORST:
            if any(isinstance(failure, kind) for failure in failures.values()):
                raise kind(f"{oid} is in no cache and cannot be fetched: {said}")
        raise ObjectMissing(f"{oid} is in no cache, and {said}; `dvc push` it where it was made")

    def _ask_one(self, spec: RemoteSpec, work: Callable[[Remote], T]) -> T:
        """Raises `RemoteError`."""
        key = _key(spec)
        if self._failed.get(key, 0) >= ATTEMPTS:
            raise RemoteUnreachable(f"{spec.name} did not answer before")
        try:
            answer = work(self._open(key, spec))
        except InputError as error:
            self._failed[key] = ATTEMPTS
            raise RemoteUnreachable(f"{spec.name}: {error}") from None
        except (RemoteSlow, RemoteUnreachable) as error:
            if not (isinstance(error, RemoteSlow) and error.retry_after):
                with self._counting:
                    self._failed[key] = self._failed.get(key, 0) + 1
            raise
        self._failed.pop(key, None)
        return answer

    def _open(self, key: Hashable, spec: RemoteSpec) -> Remote:
        with self._lock:
            if key not in self._opened:
                self._opened[key] = self._opener(spec)
            return self._opened[key]

    def _publish(self, oid: Oid, data: bytes) -> None:
        """Put a proved manifest into the cache; where that cannot be written it is done without."""
        try:
            descriptor, path = self._arrivals.new_file()
            try:
                left = memoryview(data)
                while left:
                    left = left[os.write(descriptor, left) :]
                self._arrivals.admit(oid, path, descriptor)
            except (OSError, CacheUnusable):
                self._arrivals.discard(path)
            finally:
                os.close(descriptor)
        except CacheUnusable:
            pass


def is_local(spec: RemoteSpec) -> bool:
    """Whether a remote is a directory of this machine: no network is needed to ask it."""
    return "://" not in spec.url


def _open_remote(spec: RemoteSpec) -> Remote:
    # Imported here: most datasets are opened without asking a remote.
    from store.remotes.opening import open_for_reading

    return open_for_reading(spec)


def _key(spec: RemoteSpec) -> Hashable:
    """Equal for specs that are opened alike."""
    options = frozenset(spec.options.items())
    return (spec.name, spec.url, options, spec.ambient, spec.may_run, spec.layout, len(spec.addresses))


def _download(remote: Remote, oid: Oid) -> bytes:
    """The manifest's bytes, proved. Raises `RemoteError`."""
    deadline = time.monotonic() + DEADLINE
    parts: list[bytes] = []
    total = 0
    hashed = hashlib.md5(usedforsecurity=False)  # while more of it comes
    with remote.read(oid) as body:
        for part in body:
            parts.append(part)
            hashed.update(part)
            total += len(part)
            if total > SIZE_LIMIT:
                raise RemoteCorrupt(f"{remote.name}: the manifest {oid} has more than {SIZE_LIMIT >> 30} GiB")
            if time.monotonic() > deadline:
                raise RemoteSlow(f"{remote.name}: the manifest {oid} did not arrive within {DEADLINE:.0f} s")
    data = b"".join(parts)
    if hashed.hexdigest() == oid.digest:
        return data
    try:
        check_manifest(data, oid)
    except ObjectCorrupt:
        raise RemoteCorrupt(f"{remote.name}: what it has for the manifest {oid} is something else") from None
    return data
