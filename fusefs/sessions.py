"""The sessions of this process: one loop for all of them, each open for as long as somebody has borrowed it.

A forked child begins anew: neither threads nor databases nor locks survive a fork, so it leaves alone what
its parent had open and opens its own at the first use. What it cannot leave alone is closed right after the
fork (`Engine.disown`). All that is open is closed when the process ends.
"""

from __future__ import annotations

import logging
import multiprocessing.util
import os
import sys
import threading
from dataclasses import dataclass, field
from typing import Final

import trio

from fusefs.loop_thread import LoopThread
from fusefs.resolvers import Resolvers
from fusefs.session import Opening, Session, serve_session
from store.errors import StoreError
from store.remotes.apart import Apart
from store.remotes.opening import OBJECT_STORES, open_remote, scheme_of
from store.remotes.remote import Remote
from store.remotes.spec import RemoteSpec

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Shared:
    lent: int = 0
    settled: trio.Event = field(default_factory=trio.Event)
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    session: Session | None = None
    error: StoreError | None = None


class Borrowed:
    """A session in use. It is given back when nothing refers to this any more."""

    def __init__(self, sessions: Sessions, opening: Opening, shared: _Shared, session: Session) -> None:
        self._sessions = sessions
        self._opening = opening
        self._shared = shared
        self.session = session

    @property
    def is_here(self) -> bool:
        """Can it be used, in this process?"""
        return self.session.is_here

    def __del__(self) -> None:
        self._sessions.take_back(self._opening, self._shared)


class Sessions:
    """Those of one process. Methods are for any thread; coroutines and what they call belong to the loop."""

    def __init__(self, *, apart: bool) -> None:
        """With `apart` object stores are read by a helper (`store.remotes.apart`)."""
        self._apart = Apart() if apart else None
        self._loop = LoopThread()
        self._shared: dict[Opening, _Shared] = {}
        self._resolvers: Resolvers | None = None

    def lend(self, opening: Opening) -> Borrowed:
        """An open session. Waits; raises `StoreError`."""
        shared, session = self._loop.call(self._lend, opening)
        return Borrowed(self, opening, shared, session)

    def take_back(self, opening: Opening, shared: _Shared) -> None:
        """For `Borrowed`. Waits for nothing."""
        self._loop.tell(self._drop, opening, shared)

    def close(self) -> None:
        """Close all, and wait for that."""
        self._loop.close()
        if self._apart is not None:
            self._apart.close()

    def disown(self) -> None:
        """In a forked child: leave to the parent what is the parent's."""
        if self._apart is not None:
            self._apart.disown()
        for shared in self._shared.values():
            if shared.session is not None:
                shared.session.engine.disown()

    async def _lend(self, opening: Opening) -> tuple[_Shared, Session]:
        shared = self._shared.get(opening)
        if shared is None:
            shared = self._shared[opening] = _Shared()
            # On its own: who asked first may go, others wait for the same.
            self._loop.nursery.start_soon(self._serve, opening, shared)
        shared.lent += 1
        try:
            await shared.settled.wait()
            if shared.session is None:
                error = shared.error or StoreError(f"{opening.request.target} was closed while it was opened")
                raise type(error)(*error.args)
        except BaseException:
            self._drop(opening, shared)
            raise
        return shared, shared.session

    def _drop(self, opening: Opening, shared: _Shared) -> None:
        shared.lent -= 1
        if not shared.lent:
            self._forget(opening, shared)
            shared.scope.cancel()

    def _forget(self, opening: Opening, shared: _Shared) -> None:
        if self._shared.get(opening) is shared:
            del self._shared[opening]

    async def _serve(self, opening: Opening, shared: _Shared) -> None:
        if self._resolvers is None:
            self._resolvers = Resolvers(self._loop.nursery)

        def ready(session: Session) -> None:
            shared.session = session
            shared.settled.set()

        try:
            with shared.scope:
                await serve_session(opening, self._loop, self._resolvers, self._open_remote, ready)
        except* StoreError as errors:
            shared.error = _first(errors)
        except* Exception as errors:  # a bug costs this session, not all of them
            log.error("%s cannot be read", opening.request.target, exc_info=errors)
            shared.error = StoreError(f"{opening.request.target}: {type(errors.exceptions[0]).__name__}")
        finally:
            self._forget(opening, shared)
            shared.settled.set()

    def _open_remote(self, spec: RemoteSpec) -> Remote:
        if self._apart is not None and scheme_of(spec.url) in OBJECT_STORES:
            return self._apart.open_remote(spec)
        return open_remote(spec)


def _first(errors: BaseExceptionGroup[StoreError]) -> StoreError:
    found = errors.exceptions[0]
    return _first(found) if isinstance(found, BaseExceptionGroup) else found


_guard = threading.Lock()
_process: Sessions | None = None
_is_maimed = False
"""Is this a forked child of a process that had obstore loaded, which therefore does not work here?"""
_inherited: Final[list[Sessions]] = []
"""What the parents of this process had open: kept, because closing it would touch what is theirs."""


def lend(opening: Opening) -> Borrowed:
    """A session of this process. Any thread, waits. Raises `StoreError`."""
    global _process
    with _guard:
        if _process is None:
            _process = Sessions(apart=_is_maimed)
            # Unlike `atexit` it is heeded by processes that `multiprocessing` has forked, too.
            multiprocessing.util.Finalize(None, close_all, exitpriority=10)
        sessions = _process
    return sessions.lend(opening)


def close_all() -> None:
    """Close every session of this process. Whoever uses one afterwards opens it anew."""
    global _process
    with _guard:
        sessions, _process = _process, None
    if sessions is not None:
        sessions.close()


def _after_fork() -> None:
    global _guard, _process, _is_maimed
    _guard = threading.Lock()
    _is_maimed = _is_maimed or "obstore" in sys.modules
    sessions, _process = _process, None
    if sessions is not None:
        _inherited.append(sessions)
        sessions.disown()


os.register_at_fork(after_in_child=_after_fork)
