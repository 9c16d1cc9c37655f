"""`Asking`: one question to several remotes, until one of them answers it or the time is up.

A remote that fails is followed by the next at once, one that takes unusually long is joined by the next; the
first answer counts. Who failed in a way that may pass is asked again, after a pause that grows and is not the
same for all. Belongs to the event loop.
"""

from __future__ import annotations

import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Generic, TypeVar

import trio

from store.errors import (
    ObjectMissing,
    RangeRefused,
    RemoteCorrupt,
    RemoteCut,
    RemoteDenied,
    RemoteError,
    RemoteMissing,
    RemoteSlow,
    RemoteUnreachable,
    StoreError,
)
from store.fetching.remote_pool import Member
from store.oid import Oid
from store.remotes.remote import Remote
from store.threads import Job

T = TypeVar("T")
Begin = Callable[[Remote, Callable[[Job[T]], object]], Awaitable[Job[T]]]
"""Begins to ask a remote; what is given is to be called on the loop with the job when that has ended."""

log = logging.getLogger(__name__)

FIRST_BACK_OFF: Final = 0.1
LONGEST_BACK_OFF: Final = 5.0
GONE_SECONDS: Final = 9.0
"""Of a remote that has not answered for so long nobody waits for a size: a listing would, for each file."""
SAID_LENGTH: Final = 300
"""Characters of what a remote said that are repeated."""

_PASSING: Final = (RemoteSlow, RemoteUnreachable, RemoteCut)
"""After these a remote may answer if it is asked again soon."""
_ORDER: Final = (RangeRefused, RemoteSlow, RemoteUnreachable, RemoteDenied, RemoteCorrupt, RemoteError)
"""Of what remotes said, the first of these is what the reader is told."""


class CallLost(Exception):
    """Whoever worked for us has ended: that tells nothing of the remote, which is to be asked once more."""


class NotAsked(Exception):
    """Raised by work that needed no remote after all: `value` is the result, and tells nothing of remotes."""

    def __init__(self, value: Any) -> None:
        super().__init__()
        self.value = value


class Attempt(Generic[T]):
    """One remote, asked once. `listener` is told on the loop when it has ended."""

    __slots__ = ("_call", "began", "has_ended", "hedge_at", "listener", "member")

    def __init__(self, member: Member, listener: Callable[[Attempt[T]], object]) -> None:
        self.member = member
        self.listener = listener
        self.began = trio.current_time()
        self.hedge_at = self.began + member.shared.health.hedge_after
        """When another is to be asked beside this one."""
        self.has_ended = False
        self._call: Job[T]

    def begin(self, call: Job[T]) -> None:
        """It is under way."""
        self._call = call

    def end(self, _: Job[T]) -> None:
        """The call has ended."""
        self.has_ended = True
        self.listener(self)

    def value(self) -> T:
        """What the call brought. Raises what it raised."""
        return self._call.value()

    def forget(self) -> None:
        """Let go of the call, which knows us: a circle would keep what it brought."""
        del self._call

    def abandon(self) -> None:
        """Nobody waits for it any longer."""
        self._call.abandon()
        self.forget()

    def praise(self, oid: Oid, *, question: bool = False, usual: bool = True) -> None:
        """The call brought what was asked for: take note, of its time too where that is the `usual` one."""
        shared, seconds = self.member.shared, trio.current_time() - self.began
        shared.metrics.called(seconds, question=question)
        shared.health.succeed(seconds if usual else None)
        if not question:
            address = self.member.remote.address(oid)
            if address is not None:
                shared.remember_right(address)


class Asking(Generic[T]):
    """Made for one question, by `RemoteSet`; `renew` makes members anew after a denial."""

    def __init__(
        self,
        oid: Oid,
        begin: Begin[T],
        *,
        until: float,
        question: bool,
        hedge: bool,
        renew: Callable[[float], Awaitable[Sequence[Member]]],
    ) -> None:
        self._oid = oid
        self._begin_call = begin
        self._until = until
        self._question = question
        self._hedge = hedge
        self._renew = renew
        self._running: list[Attempt[T]] = []
        self._ended: deque[Attempt[T]] = deque()
        self._bell = trio.Event()
        self._said: dict[str, RemoteError] = {}
        """By the remote's name, what it said last."""
        self._done: set[str] = set()
        """Who need not be asked again."""
        self._renewed: set[str] = set()
        self._answers: list[T] = []

    async def answer(self, members: Sequence[Member], under_way: Attempt[T] | None = None) -> T:
        """The first answer; one of the members may have been asked already.

        Raises `ObjectMissing`, `RemoteError`, and what `work` raised of itself.
        """
        back_off = FIRST_BACK_OFF
        still_to_ask = members
        if under_way is not None:
            self._take_over(under_way)
            still_to_ask = [member for member in members if member.name != under_way.member.name]
        try:
            while True:
                await self._ask_round(still_to_ask)
                if self._answers:
                    return self._answers.pop()
                left = [member for member in members if member.name not in self._done]
                if not left:
                    raise self._error()
                if self._question and all(member.shared.health.is_gone(GONE_SECONDS) for member in left):
                    raise self._error()
                pause = min(member.shared.health.pause() for member in left)
                pause = max(pause, back_off * random.uniform(0.5, 1.5))
                if trio.current_time() + pause >= self._until:
                    raise self._error()
                await trio.sleep(pause)
                back_off = min(2 * back_off, LONGEST_BACK_OFF)
                for member in left:
                    member.shared.metrics.retried()
                still_to_ask = members = left
        finally:
            for attempt in self._running:
                attempt.abandon()
                attempt.member.shared.health.withdraw()

    def _take_over(self, attempt: Attempt[T]) -> None:
        attempt.listener = self._ring
        self._running.append(attempt)
        if attempt.has_ended:
            self._ended.append(attempt)

    async def _ask_round(self, members: Sequence[Member]) -> None:
        """Ask each once, or until there is an answer."""
        queue = deque(members)
        while True:
            while queue and not self._running:
                await self._begin(queue.popleft())
            if not self._running:
                return
            # The next one is asked whenever the last one takes long, the same once more only if it is alone.
            may_hedge = bool(queue) or len(self._running) == 1
            last = self._running[-1]
            ended = await self._next(min(last.hedge_at, self._until) if may_hedge else self._until)
            if ended is not None:
                renewed = await self._settle(ended)
                if self._answers:
                    return
                if renewed is not None:
                    queue.appendleft(renewed)
            elif trio.current_time() >= self._until:
                self._give_up()
                return
            elif queue:
                asked = len(self._running)
                await self._begin(queue.popleft())
                if len(self._running) > asked:
                    last.member.shared.metrics.hedged()
            elif may_hedge:
                last.hedge_at = self._until
                if last.member.shared.health.take_hedge():
                    last.member.shared.metrics.hedged()
                    await self._begin(last.member, hedge=True)

    async def _begin(self, member: Member, *, hedge: bool = False) -> None:
        shared, name = member.shared, member.name
        address = member.remote.address(self._oid)
        if address is None or shared.is_missing(address):
            self._say(name, RemoteMissing("it has no such object"), final=True)
            return
        if shared.is_quarantined(address):
            self._say(name, RemoteCorrupt("it has sent something else for the object"), final=True)
            return
        if not hedge and not shared.health.may_ask():
            error = shared.health.last_error
            said = type(error)(f"it is left alone for a while after it failed: {error}")
            self._say(name, said, final=not isinstance(error, _PASSING))
            return
        with trio.move_on_at(self._until):
            shared.health.begin()
            attempt = Attempt(member, self._ring)
            attempt.begin(await self._begin_call(member.remote, attempt.end))
            self._running.append(attempt)
            if not attempt.has_ended:  # the wait for a thread's turn was not the remote's
                attempt.began = trio.current_time()
                attempt.hedge_at = attempt.began + shared.health.hedge_after
            if not self._hedge:
                attempt.hedge_at = self._until
            return
        shared.health.withdraw()
        self._say(name, RemoteSlow("every thread for remotes waits for an answer"))

    def _ring(self, attempt: Attempt[T]) -> None:
        self._ended.append(attempt)
        self._bell.set()

    async def _next(self, due: float) -> Attempt[T] | None:
        """The next attempt that has ended; None when it is `due` before."""
        if not self._ended:
            self._bell = trio.Event()
            with trio.move_on_at(due):
                await self._bell.wait()
        return self._ended.popleft() if self._ended else None

    async def _settle(self, attempt: Attempt[T]) -> Member | None:
        """Take what a call brought. Returns a member that is to be asked again at once."""
        self._running.remove(attempt)
        member, shared = attempt.member, attempt.member.shared
        seconds = trio.current_time() - attempt.began
        try:
            value = attempt.value()
        except NotAsked as shortcut:
            shared.health.withdraw()
            self._answers.append(shortcut.value)
            return None
        except CallLost:
            shared.health.withdraw()
            return member
        except RemoteError as error:
            shared.metrics.called(seconds, error, question=self._question)
            return await self._settle_failure(attempt, error, seconds)
        except StoreError:
            shared.health.withdraw()
            raise
        except Exception as bug:  # in a library, for instance: it costs this remote's answer
            failure = RemoteUnreachable(f"{type(bug).__name__} in our own code")
            log.error("%s: %s, asked for %s", member.name, failure, self._oid)
            shared.metrics.called(seconds, failure, question=self._question)
            return await self._settle_failure(attempt, failure, seconds)
        finally:
            attempt.forget()
        attempt.praise(self._oid, question=self._question, usual=self._hedge)
        for other in self._running:
            if other.member is not member and other.began <= attempt.began:
                # It was slow enough for another to be asked, and was not first even so.
                other.member.shared.health.fail(RemoteSlow("it was slower than another remote asked later"))
        self._answers.append(value)
        return None

    async def _settle_failure(self, attempt: Attempt[T], error: RemoteError, seconds: float) -> Member | None:
        member, shared = attempt.member, attempt.member.shared
        address = member.remote.address(self._oid)
        assert address is not None  # it was asked
        if isinstance(error, RemoteMissing):
            shared.health.succeed()
            shared.remember_missing(address)
        elif isinstance(error, RangeRefused):
            shared.health.succeed()
        elif isinstance(error, RemoteCut):
            shared.health.withdraw()  # it may be about the object: a disk of the remote's that cannot read it
            shared.remember_corrupt(address, was_cut=True)
            self._say(member.name, error, final=shared.is_quarantined(address))
            return None
        elif isinstance(error, RemoteCorrupt):
            shared.health.withdraw()
            shared.remember_corrupt(address)
            log.warning("%s: object %s: %s", member.name, self._oid, error)
            self._say(member.name, error, final=shared.is_quarantined(address))
            return None
        elif isinstance(error, RemoteDenied) and (fresh := await self._renewed_member(attempt)) is not None:
            # That its credentials were old tells nothing of the remote: others are not to be kept from it.
            shared.health.withdraw()
            self._done.discard(member.name)
            return fresh
        else:
            shared.health.fail(error, seconds)
        self._say(member.name, error, final=not isinstance(error, _PASSING))
        return None

    async def _renewed_member(self, attempt: Attempt[T]) -> Member | None:
        """The remote that denied something, with fresh credentials; once a question, and None where they are
        as fresh as they can be."""
        name = attempt.member.name
        if name in self._renewed:
            return None
        self._renewed.add(name)
        renewed: Sequence[Member] = ()
        with trio.move_on_at(self._until):
            renewed = await self._renew(attempt.began)
        return next((member for member in renewed if member.name == name), None)

    def _give_up(self) -> None:
        for attempt in self._running:
            health, before = attempt.member.shared.health, self._said.get(attempt.member.name)
            late: RemoteError = RemoteSlow("it did not answer in time")
            seconds = trio.current_time() - attempt.began
            if before is not None and seconds < health.hedge_after:
                health.withdraw()
                late = before  # the last of many tries has had no time to be answered: that tells nothing
            else:
                health.fail(late, seconds)
                if isinstance(before, RemoteCut):
                    late = before  # that the last of many tries was still under way tells less
            attempt.abandon()
            self._say(attempt.member.name, late, final=True)
        self._running.clear()

    def _say(self, name: str, error: RemoteError, *, final: bool = False) -> None:
        self._said[name] = error
        if final:
            self._done.add(name)

    def _error(self) -> StoreError:
        said = self._said
        if all(isinstance(error, RemoteMissing) for error in said.values()):
            return ObjectMissing(f"object {self._oid} is in none of the remotes {', '.join(said)}")
        kind = next(
            kind for kind in _ORDER for error in said.values()
            if isinstance(error, kind) and not isinstance(error, RemoteMissing)
        )  # fmt: skip
        lines = "; ".join(f"{name}: {str(error)[:SAID_LENGTH]}" for name, error in said.items())
        return kind(f"object {self._oid} cannot be had from its remotes: {lines}")
