"""`RemoteSet`: the remotes of one version, asked in order until one has the answer. On the event loop."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from operator import itemgetter
from typing import Any, Final, TypeVar

import trio

from store.errors import ObjectMissing, Offline, StoreError
from store.fetching.asking import Asking, Attempt, Begin
from store.fetching.courier import Courier
from store.fetching.remote_pool import Member, RemotePool
from store.oid import Oid
from store.oplog.hints import Hints
from store.remotes.remote import Remote, SizeQuestion
from store.remotes.spec import RemoteSpec
from store.threads import Job, Threads

T = TypeVar("T")

log = logging.getLogger(__name__)

WHOLE_SECONDS: Final = 30.0
"""The deadline for a small object, from the reader's request to its bytes."""
RENEWAL_SECONDS: Final = 2.0
"""Credentials are not read again more often than this."""
RENEWAL_DEADLINE: Final = 20.0

Start = Callable[[Remote, Callable[[Job[T]], object]], Job[T] | None]
"""As `Begin`, without a wait; None where it would have to."""
Refresh = Callable[[], Awaitable[Sequence[RemoteSpec]]]
"""Settles the specs of a version anew, for credentials that have changed. Raises `StoreError`."""


class RemoteSet:
    """Made by `store.engine`. True where there is a remote at all."""

    def __init__(
        self,
        specs: Sequence[RemoteSpec],
        pool: RemotePool,
        threads: Threads,
        *,
        offline: bool = False,
        refresh: Refresh | None = None,
        courier: Courier | None = None,
        hints: Hints | None = None,
    ) -> None:
        """`hints` say who has an object: he is asked first."""
        self._pool = pool
        self._hints = hints
        self._threads = threads
        self._offline = offline
        self._refresh = refresh
        self._courier = courier
        self._settle(specs)
        self._renewing = trio.Lock()
        self._renewed_at = -RENEWAL_SECONDS

    @property
    def remotes(self) -> tuple[Remote, ...]:
        """In the order in which they are asked. None of them need be open."""
        return tuple(member.remote for member in self._members)

    @property
    def offline(self) -> bool:
        """Are only directories asked?"""
        return self._offline

    def __bool__(self) -> bool:
        return bool(self._specs)

    def _settle(self, specs: Sequence[RemoteSpec]) -> None:
        self._specs = tuple(specs)
        asked = [spec for spec in specs if not self._offline or _is_directory(spec)]
        self._members = self._pool.members(asked)
        self._near = [_is_directory(spec) for spec in asked]
        self._has_all = len(asked) == len(self._specs)

    def is_ready(self, oid: Oid) -> bool:
        """Would the first remote be asked for the object at once?"""
        return self._first_ready(oid) is not None

    def begin_first(
        self, oid: Oid, start: Start[T], listener: Callable[[Attempt[T]], object]
    ) -> Attempt[T] | None:
        """Ask the remote that comes first, without a wait; None where it, or `start`, cannot be asked now.

        Where `listener` is not told of an answer soon, `run` may go on with the attempt.
        """
        first = self._first_ready(oid)
        if first is None:
            return None
        attempt = Attempt(first, listener)
        call = start(first.remote, attempt.end)
        if call is None:
            return None
        first.shared.health.begin()
        attempt.begin(call)
        return attempt

    def _first_ready(self, oid: Oid) -> Member | None:
        if not self._members:
            return None
        first = self._in_order(oid)[0]
        address, shared = first.remote.address(oid), first.shared
        if address is None or shared.is_missing(address) or shared.is_quarantined(address):
            return None
        return first if shared.health.may_ask() else None

    async def run(
        self,
        oid: Oid,
        work: Callable[[Remote], T],
        *,
        deadline: float = WHOLE_SECONDS,
        question: bool = False,
        hedge: bool = True,
        discard: Callable[[T], object] | None = None,
        begin: Begin[T] | None = None,
        under_way: Attempt[T] | None = None,
    ) -> T:
        """The first result of the blocking `work(remote)`, called in a thread for one remote after another,
        or of the jobs that `begin` begins instead. What is `under_way` already is gone on with.

        `deadline` is in seconds. With `hedge`, for work that usually takes about as long, `work` may run for
        two remotes at once; what the slower one returns goes to `discard`, in any thread. What it raises but
        `RemoteError` is raised to the caller at once.

        Raises `Offline`; `ObjectMissing` where no remote has the object; else the gravest of what they said:
        `RangeRefused`, `RemoteSlow`, `RemoteUnreachable`, `RemoteDenied`, `RemoteCorrupt`.
        """
        if not self._members:
            raise self._offline_error(oid)
        until = trio.current_time() + deadline
        asking = Asking(
            oid,
            begin or self._in_thread(work, discard, question=question),
            until=until,
            question=question,
            hedge=hedge,
            renew=self._renew,
        )
        try:
            return await asking.answer(self._in_order(oid), under_way)
        except ObjectMissing:
            if self._has_all:
                raise
            raise self._offline_error(oid) from None

    def _in_order(self, oid: Oid) -> Sequence[Member]:
        """Who has the object by its logs, then those of whom nobody knows, then who has logs without it.

        A directory without logs keeps its place: to look there costs less than any other remote.
        """
        if self._hints is None or len(self._members) < 2:
            return self._members
        told = [self._hints.has(member.remote.key, oid) for member in self._members]
        if not any(told):
            return self._members
        both = zip(told, self._near, strict=True)
        ranks = [2 if has is False else 0 if has or is_near else 1 for has, is_near in both]
        return [member for _, member in sorted(zip(ranks, self._members, strict=True), key=itemgetter(0))]

    def _in_thread(
        self, work: Callable[[Remote], T], discard: Callable[[T], object] | None, *, question: bool
    ) -> Begin[T]:
        async def begin(remote: Remote, ended: Callable[[Job[T]], object]) -> Job[T]:
            if isinstance(work, SizeQuestion) and self._courier is not None and self._courier.is_there:
                told: Any = ended  # of a size, which is what this work returns
                errand: Job[Any] | None = await self._courier.ask(remote, work.oid, told)
                if errand is not None:
                    return errand
            return await self._threads.call_remote(
                work, remote, ended=ended, discard=discard, question=question
            )

        return begin

    def _offline_error(self, oid: Oid) -> StoreError:
        if self._has_all:
            return ObjectMissing(f"object {oid} is not in the cache, and there is no remote")
        return Offline(f"object {oid} is not here, and no remote may be asked for it while offline")

    async def _renew(self, denied_since: float) -> Sequence[Member]:
        """The members with fresh credentials, for who was denied what it asked at `denied_since`; none where
        they are as fresh as they can be."""
        async with self._renewing:
            if self._renewed_at > denied_since:
                return self._members
            if trio.current_time() - self._renewed_at < RENEWAL_SECONDS:
                return ()
            specs: Sequence[RemoteSpec] = self._specs
            if self._refresh is not None:
                try:
                    with trio.fail_after(RENEWAL_DEADLINE):
                        specs = await self._refresh()
                except (StoreError, trio.TooSlowError) as error:
                    log.warning("the remotes' credentials cannot be read again: %s", error or "it takes long")
            self._settle(specs)
            for member in self._members:
                await self._threads.on_disk(member.shared.storage.renew)
                member.shared.health.reset()
            self._renewed_at = trio.current_time()
            return self._members


def _is_directory(spec: RemoteSpec) -> bool:
    """Is it one of this machine's own, as far as anybody can tell?"""
    return spec.url.startswith("/")
