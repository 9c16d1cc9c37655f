"""Remotes are asked in order, in time, and each answer counts for what it is."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

import pytest
import trio
import trio.testing

from store.errors import (
    InputError,
    ObjectMissing,
    Offline,
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
from store.fetching import asking, breaker, remote_pool, remote_set, suspicion
from store.fetching.asking import NotAsked
from store.fetching.remote_pool import RemotePool
from store.fetching.remote_set import RemoteSet
from store.metrics import CLOSED, Metrics
from store.oid import Oid
from store.remotes.remote import Remote
from store.remotes.spec import VERSIONED_LAYOUT, RemoteSpec
from store.threads import Threads
from tests.patience import until
from tests.store.conftest import LONG, StoppedClock
from tests.store.fetching.scripted import SECONDS, ScriptedStorage

OID = Oid("0" * 32)
OTHER = Oid("1" * 32)

Answer = str | Exception | Callable[[], str]


class Remotes:
    """Remotes `a`, `b`, … that answer what a test says, each answer once and the last for ever."""

    def __init__(self, **scripts: Sequence[Answer]) -> None:
        self._answers = {name: list(script) for name, script in scripts.items()}
        self._lock = threading.Lock()
        self.asked: list[str] = []
        self.opened: list[str] = []
        self.specs = tuple(RemoteSpec(name, f"test://{name}") for name in scripts)
        self.metrics = Metrics()

    def open(self, spec: RemoteSpec) -> Remote:
        self.opened.append(spec.url)
        return Remote(spec.name, ScriptedStorage())

    def work(self, remote: Remote) -> str:
        with self._lock:
            self.asked.append(remote.name)
            answers = self._answers[remote.name]
            answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer() if callable(answer) else answer

    def set(self, **options: Any) -> RemoteSet:
        return RemoteSet(self.specs, RemotePool(self.open, self.metrics), Threads(), **options)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, unhurried: None) -> None:
    """Pauses that are long enough to be pauses."""
    monkeypatch.setattr(asking, "FIRST_BACK_OFF", 0.001)
    monkeypatch.setattr(asking, "LONGEST_BACK_OFF", 0.01)
    monkeypatch.setattr(breaker, "FIRST_PAUSE", 0.01)


def ask(
    remotes: Remotes, *, deadline: float = SECONDS, oid: Oid = OID, question: bool = False, **options: Any
) -> str:
    async def main() -> str:
        with trio.fail_after(SECONDS):
            asked = remotes.set(**options)
            return await asked.run(oid, remotes.work, deadline=deadline, question=question)

    return trio.run(main)


def test_the_first_is_asked_and_the_others_are_not() -> None:
    remotes = Remotes(a=["bytes"], b=["more"])
    assert ask(remotes) == "bytes"
    assert remotes.asked == ["a"]


@pytest.mark.parametrize(
    "failure",
    [
        RemoteMissing("none"),
        RemoteDenied("403"),
        RemoteSlow("busy"),
        RemoteCorrupt("other bytes"),
        RemoteCut("too early"),
        RemoteUnreachable("refused"),
        RangeRefused("whole only"),
        RemoteError("what?"),
        ValueError("a bug in a library"),
    ],
    ids=lambda failure: type(failure).__name__,
)
def test_a_failure_of_any_kind_is_followed_by_the_next_at_once(failure: Exception) -> None:
    remotes = Remotes(a=[failure], b=["bytes"])
    assert ask(remotes) == "bytes"
    assert remotes.asked[-1] == "b"
    assert remotes.asked.count("a") == (2 if isinstance(failure, RemoteDenied) else 1)


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ((RemoteMissing("none"), RemoteMissing("none")), ObjectMissing),
        ((RemoteMissing("none"), RemoteDenied("403")), RemoteDenied),
        ((RemoteDenied("403"), RemoteCorrupt("bytes")), RemoteDenied),
        ((RemoteCorrupt("bytes"), RemoteUnreachable("refused")), RemoteUnreachable),
        ((RemoteUnreachable("refused"), RemoteSlow("busy")), RemoteSlow),
        ((RemoteSlow("busy"), RangeRefused("whole only")), RangeRefused),
        ((RemoteMissing("none"), RemoteError("what?")), RemoteError),
        ((RemoteMissing("none"), RemoteCut("too early")), RemoteCorrupt),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
@pytest.mark.parametrize("turned", [False, True])
def test_the_gravest_is_told_with_what_each_said(
    said: tuple[Exception, Exception],
    error: type[StoreError],
    turned: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(asking, "FIRST_BACK_OFF", LONG)  # there is no time to ask once more
    first, second = reversed(said) if turned else said
    with pytest.raises(error) as caught:
        ask(Remotes(origin=[first], backup=[second]))
    assert type(caught.value) is error
    line = str(caught.value)
    assert str(OID) in line and "origin" in line and "backup" in line
    if error is not ObjectMissing:
        assert str(first) in line or "none" in str(first) or "left alone" in line


def test_what_may_pass_is_asked_again_and_what_may_not_is_not() -> None:
    remotes = Remotes(a=[RemoteMissing("none")], b=[RemoteSlow("503"), RemoteUnreachable("reset"), "bytes"])
    assert ask(remotes) == "bytes"
    assert remotes.asked == ["a", "b", "b", "b"]
    assert remotes.metrics.remote("b").figures().retries == 2
    assert remotes.metrics.remote("a").figures().retries == 0


def test_nobody_waits_for_a_size_from_a_remote_that_has_been_gone_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A directory is listed file by file."""
    monkeypatch.setattr(asking, "GONE_SECONDS", 0.0)
    with monkeypatch.context() as patch:
        patch.setattr(breaker, "FIRST_PAUSE", 300.0)
        remotes = Remotes(a=[RemoteUnreachable("refused")])
        with pytest.raises(RemoteUnreachable):
            ask(remotes, question=True)
        assert len(remotes.asked) == breaker.FAILURES
    monkeypatch.setattr(asking, "GONE_SECONDS", LONG)
    remotes = Remotes(a=[*[RemoteUnreachable("refused")] * (breaker.FAILURES + 1), "bytes"])
    assert ask(remotes, question=True) == "bytes", "one that has just gone is waited for"


def test_an_answer_that_is_cut_off_is_asked_for_again_and_blames_nobody() -> None:
    """Half of an object is no other object; and its remote may well give others."""
    cuts = [RemoteCut("too early") for _ in range(remote_pool.CUT_TIMES - 1)]
    remotes = Remotes(a=[*cuts, lambda: remotes.metrics.remote("a").breaker()])
    assert ask(remotes) == CLOSED
    assert len(remotes.asked) == len(cuts) + 1
    remotes = Remotes(a=cuts[:1])
    with pytest.raises(RemoteCorrupt, match="too early"):
        ask(remotes)
    assert len(remotes.asked) == remote_pool.CUT_TIMES, "not for as long as the deadline lets it"


def test_a_remote_that_says_when_to_come_again_is_asked_then() -> None:
    remotes = Remotes(a=[RemoteSlow("429", retry_after=0.05), "bytes"])

    async def main() -> None:
        began = trio.current_time()
        assert await remotes.set().run(OID, remotes.work, deadline=SECONDS) == "bytes"
        assert trio.current_time() - began >= 0.05

    trio.run(main)
    assert remotes.asked == ["a", "a"]


def test_a_remote_that_wants_more_time_than_there_is_fails_at_once() -> None:
    remotes = Remotes(a=[RemoteSlow("429", retry_after=200)])

    async def main() -> None:
        with trio.fail_after(SECONDS):
            asked = remotes.set()
            for _ in range(2):
                with pytest.raises(RemoteSlow, match="429"):
                    await asked.run(OID, remotes.work, deadline=3 * SECONDS)

    trio.run(main)
    assert remotes.asked == ["a"]


def test_a_dead_remote_is_left_alone_and_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(breaker, "FIRST_PAUSE", 300.0)
    dead = [RemoteUnreachable("refused")] * breaker.FAILURES
    remotes = Remotes(a=[*dead, "back"], b=["bytes"])

    async def main() -> None:
        asked = remotes.set()
        for _ in range(20):
            assert await asked.run(OID, remotes.work, deadline=SECONDS) == "bytes"
        assert remotes.asked.count("a") == breaker.FAILURES
        assert remotes.metrics.remote("a").figures().breaker == "open"
        health = asked._members[0].shared.health
        health._closed_until = 0.0
        assert await asked.run(OID, remotes.work, deadline=SECONDS) == "back"
        assert await asked.run(OID, remotes.work, deadline=SECONDS) == "back"

    trio.run(main)


def test_what_is_missing_is_asked_for_once_in_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    remotes = Remotes(a=[RemoteMissing("none")], b=[RemoteMissing("none")])

    async def main() -> None:
        asked = remotes.set()
        for _ in range(3):
            with pytest.raises(ObjectMissing):
                await asked.run(OID, remotes.work, deadline=SECONDS)
        assert remotes.asked == ["a", "b"]
        assert not asked.is_ready(OID)
        assert asked.is_ready(OTHER)
        with pytest.raises(ObjectMissing):
            await asked.run(OTHER, remotes.work, deadline=SECONDS)
        assert remotes.asked == ["a", "b"] * 2
        monkeypatch.setattr(remote_pool, "MISSING_SECONDS", 0.0)
        with pytest.raises(ObjectMissing):
            await asked.run(OID, remotes.work, deadline=SECONDS)
        assert remotes.asked == ["a", "b"] * 3

    trio.run(main)


def test_wrong_bytes_are_asked_for_twice_and_then_not_for_a_while(suspicion_clock: StoppedClock) -> None:
    wrong = RemoteCorrupt("other bytes")
    remotes = Remotes(a=[wrong, wrong, wrong, "right", wrong, "right"])

    async def main() -> None:
        asked = remotes.set()
        for _ in range(3):
            with pytest.raises(RemoteCorrupt):
                await asked.run(OID, remotes.work, deadline=SECONDS)
        assert remotes.asked == ["a", "a"]
        assert not asked.is_ready(OID)
        assert asked.is_ready(OTHER)
        suspicion_clock.now += suspicion.FIRST_SECONDS
        with pytest.raises(RemoteCorrupt):
            await asked.run(OID, remotes.work, deadline=SECONDS)
        assert remotes.asked == ["a"] * 3, "once, and then not for twice as long"
        suspicion_clock.now += suspicion.FIRST_SECONDS
        assert not asked.is_ready(OID)
        suspicion_clock.now += suspicion.FIRST_SECONDS
        assert await asked.run(OID, remotes.work, deadline=SECONDS) == "right"
        assert await asked.run(OID, remotes.work, deadline=SECONDS) == "right", "what was is forgiven"

    trio.run(main)


def test_credentials_are_read_again_after_a_denial() -> None:
    remotes = Remotes(a=[RemoteDenied("expired"), "bytes"], b=["more"])

    async def refresh() -> Sequence[RemoteSpec]:
        return [RemoteSpec("a", "test://a", {"token": "new"}), remotes.specs[1]]

    async def main() -> None:
        asked = remotes.set(refresh=refresh)
        assert await asked.run(OID, remotes.work, deadline=SECONDS) == "bytes"
        assert [remote.name for remote in asked.remotes] == ["a", "b"]

    trio.run(main)
    assert remotes.asked == ["a", "a"]


def test_many_that_are_denied_read_the_credentials_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_set, "RENEWAL_SECONDS", LONG)
    remotes = Remotes(a=[RemoteDenied("expired")])
    refreshed = 0

    async def refresh() -> Sequence[RemoteSpec]:
        nonlocal refreshed
        refreshed += 1
        return remotes.specs

    async def main() -> None:
        asked = remotes.set(refresh=refresh)

        async def reader(oid: Oid) -> None:
            with pytest.raises(RemoteDenied):
                await asked.run(oid, remotes.work, deadline=SECONDS)

        for _ in range(2):
            async with trio.open_nursery() as nursery:
                for number in range(10):
                    nursery.start_soon(reader, Oid(f"{number:032x}"))

    trio.run(main)
    assert refreshed == 1


def test_a_configuration_that_cannot_be_read_again_changes_nothing() -> None:
    remotes = Remotes(a=[RemoteDenied("expired"), "bytes"])

    async def refresh() -> Sequence[RemoteSpec]:
        raise StoreError("the repository is gone")

    assert ask(remotes, refresh=refresh) == "bytes"


class Slow:
    """An answer that waits until the test lets it go."""

    def __init__(self, answer: str) -> None:
        self.answer = answer
        self.asked = threading.Event()
        self.go = threading.Event()

    def __call__(self) -> str:
        self.asked.set()
        assert self.go.wait(SECONDS)
        return self.answer


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(breaker, "UNKNOWN_HEDGE_SECONDS", 0.02)


@contextlib.contextmanager
def going(*answers: Slow) -> Iterator[None]:
    try:
        yield
    finally:
        for answer in answers:
            answer.go.set()


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("others", [{"b": ["quick"]}, {}], ids=["the next one", "the same once more"])
def test_a_slow_answer_is_joined_by_another_call_and_the_loser_is_discarded(
    others: dict[str, list[Answer]],
) -> None:
    slow = Slow("slow")
    first: list[Answer] = [slow] if others else [slow, "quick"]
    remotes = Remotes(a=first, **others)
    discarded: list[str] = []
    done = threading.Event()

    def discard(value: str) -> None:
        discarded.append(value)
        done.set()

    async def main() -> None:
        with going(slow):
            result = await remotes.set().run(OID, remotes.work, deadline=SECONDS, discard=discard)
            assert result == "quick"
            assert discarded == []
        await trio.to_thread.run_sync(done.wait, SECONDS)

    trio.run(main)
    assert discarded == ["slow"]
    assert remotes.metrics.remote("a").figures().hedges == 1


@pytest.mark.usefixtures("hasty")
def test_however_many_are_slow_the_next_is_asked() -> None:
    """Neither does it matter how many have been slow before: others are not asked more for it."""
    slow = [Slow(f"slow {number}") for number in range(3)]

    def quick() -> str:
        for other in slow:  # whose threads may be later than ours
            assert other.asked.wait(SECONDS)
        return "quick"

    remotes = Remotes(a=[slow[0]], b=[slow[1]], c=[slow[2]], d=[quick])

    async def main() -> None:
        asked = remotes.set()
        for member in asked._members:
            while member.shared.health.take_hedge():
                pass
        with going(*slow):
            assert await asked.run(OID, remotes.work, deadline=SECONDS) == "quick"

    trio.run(main)
    assert sorted(remotes.asked) == ["a", "b", "c", "d"]


@pytest.mark.usefixtures("hasty")
def test_who_is_asked_beside_another_is_not_blamed_when_that_answers_first() -> None:
    slow, slower = Slow("slow"), Slow("slower")
    remotes = Remotes(a=[slow], b=[slower])

    async def main() -> None:
        asked = remotes.set()
        with going(slower):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_let_go_when, lambda: slower.asked.is_set(), slow)
                assert await asked.run(OID, remotes.work, deadline=SECONDS) == "slow"
            assert [member.shared.health.trouble() for member in asked._members] == [None, None]

    trio.run(main)


@pytest.mark.parametrize("last", ["usual", "long"])
def test_the_last_of_many_tries_that_had_no_time_tells_nothing(
    monkeypatch: pytest.MonkeyPatch, last: str
) -> None:
    monkeypatch.setattr(breaker, "UNKNOWN_HEDGE_SECONDS", {"usual": 1e9, "long": 1e3}[last])
    slow = Slow("slow")
    remotes = Remotes(a=[RemoteUnreachable("refused"), slow])
    clock = trio.testing.MockClock()

    async def let_time_pass() -> None:
        while len(remotes.asked) < 2:
            clock.jump(0.001)
            await trio.lowlevel.checkpoint()
        clock.jump(2e6)

    async def main() -> None:
        with going(slow):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(let_time_pass)
                asked = remotes.set()
                with pytest.raises(RemoteUnreachable if last == "usual" else RemoteSlow):
                    await asked.run(OID, remotes.work, deadline=1e6)
            (member,) = asked._members
            assert isinstance(member.shared.health.trouble(), RemoteSlow) == (last == "long")

    trio.run(main, clock=clock)


async def _let_go_when(is_so: Callable[[], bool], slow: Slow) -> None:
    while not is_so():
        await trio.sleep(0.001)
    slow.go.set()


class Sent:
    """A call whose end a test decides upon."""

    def __init__(self) -> None:
        self.answer: str | Exception = ""
        self.is_abandoned = False
        self.end: Callable[[Any], object] = lambda _: None

    def start(self, _: Remote, ended: Callable[[Any], object]) -> Sent:
        self.end = ended
        return self

    def value(self) -> str:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def abandon(self) -> None:
        self.is_abandoned = True


@pytest.mark.parametrize("failure", [None, RemoteMissing("none"), RemoteUnreachable("refused")])
@pytest.mark.parametrize("is_late", [False, True])
def test_a_call_that_was_begun_before_is_gone_on_with(
    failure: Exception | None, is_late: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if failure is None:
        monkeypatch.setattr(breaker, "UNKNOWN_HEDGE_SECONDS", 0.02)
    remotes = Remotes(a=["again"], b=["bytes"])
    sent, told = Sent(), []

    async def main() -> str:
        asked = remotes.set()
        attempt = asked.begin_first(OID, sent.start, told.append)
        assert attempt is not None
        if failure is not None:
            sent.answer = failure
            if not is_late:
                sent.end(sent)
                assert told == [attempt]
        async with trio.open_nursery() as nursery:
            if failure is not None and is_late:
                nursery.start_soon(_end_soon, sent)
            return await asked.run(OID, remotes.work, deadline=SECONDS, under_way=attempt)

    assert trio.run(main) == "bytes"
    assert remotes.asked == ["b"]
    assert sent.is_abandoned is (failure is None)


def test_a_call_begins_at_once_or_not_at_all() -> None:
    remotes = Remotes(a=[RemoteMissing("none")])

    async def main() -> None:
        asked = remotes.set()
        assert asked.begin_first(OID, lambda *_: None, _never) is None
        with pytest.raises(ObjectMissing):
            await asked.run(OID, remotes.work, deadline=SECONDS)
        assert asked.begin_first(OID, Sent().start, _never) is None
        assert asked.begin_first(OTHER, Sent().start, _never) is not None

    trio.run(main)


async def _end_soon(sent: Sent) -> None:
    await trio.lowlevel.checkpoint()
    sent.end(sent)


def _never(_: object) -> None:
    raise AssertionError("nothing has ended")


@pytest.mark.usefixtures("hasty")
def test_a_slow_answer_still_counts_when_the_other_fails() -> None:
    slow = Slow("slow")

    def missing() -> str:
        slow.go.set()
        raise RemoteMissing("none")

    assert ask(Remotes(a=[slow], b=[missing])) == "slow"


@pytest.mark.usefixtures("hasty")
def test_a_remote_that_loses_again_and_again_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(breaker, "FIRST_PAUSE", 300.0)
    slow = Slow("slow")
    remotes = Remotes(a=[slow], b=["quick"])

    async def main() -> None:
        asked = remotes.set()
        with going(slow):
            for _ in range(10):
                assert await asked.run(OID, remotes.work, deadline=SECONDS) == "quick"

    trio.run(main)
    assert remotes.metrics.remote("a").figures().hedges == breaker.FAILURES
    until(lambda: remotes.asked.count("a") == breaker.FAILURES)  # a thread may begin late


def test_the_deadline_holds_whatever_a_thread_does() -> None:
    slow = Slow("late")

    async def main() -> None:
        with going(slow), trio.fail_after(SECONDS), pytest.raises(RemoteSlow, match="in time"):
            await Remotes.set(remotes).run(OID, remotes.work, deadline=0.05)

    remotes = Remotes(a=[slow])
    trio.run(main)


def test_an_error_that_is_not_a_remotes_is_raised_as_it_is() -> None:
    remotes = Remotes(a=[StoreError("the disk is full")], b=["bytes"])
    with pytest.raises(StoreError, match="the disk is full"):
        ask(remotes)
    assert remotes.asked == ["a"]


def test_work_that_needed_no_remote_tells_nothing_of_it() -> None:
    remotes = Remotes(a=[NotAsked("found here")])
    assert ask(remotes) == "found here"
    assert remotes.metrics.remote("a").figures().calls == {}


def test_a_remote_that_cannot_be_opened_is_passed_over() -> None:
    remotes = Remotes(a=["never"], b=["bytes"])

    def refuse(spec: RemoteSpec) -> Remote:
        if spec.name == "a":
            raise InputError("remote a: no region is set")
        return remotes.open(spec)

    def work(remote: Remote) -> str:
        remote.storage.list("")
        return remotes.work(remote)

    async def main() -> None:
        pool = RemotePool(refuse, remotes.metrics)
        asked = RemoteSet(remotes.specs, pool, Threads())
        with pytest.raises(RemoteError, match=r"no region is set.*cannot list"):
            await asked.run(OID, work, deadline=SECONDS)

    trio.run(main)


def test_versions_that_name_one_remote_share_it() -> None:
    remotes = Remotes(a=["bytes"])

    async def main() -> None:
        pool, threads = RemotePool(remotes.open, remotes.metrics), Threads()
        versioned = RemoteSpec("a", "test://a", layout=VERSIONED_LAYOUT, addresses={str(OID): ("x", "1")})
        for specs in (remotes.specs, remotes.specs, (versioned,)):
            asked = RemoteSet(specs, pool, threads)
            await asked.run(OID, lambda remote: list(_try_list(remote)), deadline=SECONDS)
        with pytest.raises(ObjectMissing):
            await asked.run(OTHER, remotes.work, deadline=SECONDS)

    trio.run(main)
    assert remotes.opened == ["test://a"]
    assert remotes.asked == []


def _try_list(remote: Remote) -> Iterator[object]:
    with contextlib.suppress(RemoteError):
        yield from remote.storage.list("")


@contextlib.asynccontextmanager
async def offline_set(*urls: str) -> AsyncIterator[tuple[RemoteSet, Remotes]]:
    remotes = Remotes(a=["bytes"])
    specs = [RemoteSpec("a", url) for url in urls]
    yield RemoteSet(specs, RemotePool(remotes.open, remotes.metrics), Threads(), offline=True), remotes


def test_offline_only_directories_are_asked() -> None:
    async def main() -> None:
        async with offline_set("s3://bucket") as (asked, remotes):
            assert asked
            with pytest.raises(Offline, match=str(OID)):
                await asked.run(OID, remotes.work, deadline=SECONDS)
            assert remotes.asked == []
        async with offline_set("s3://bucket", "/data/remote") as (asked, remotes):
            assert await asked.run(OID, remotes.work, deadline=SECONDS) == "bytes"
            remotes._answers["a"] = [RemoteMissing("none")]
            with pytest.raises(Offline, match=str(OID)):
                await asked.run(OID, remotes.work, deadline=SECONDS)

    trio.run(main)


def test_a_reader_that_leaves_leaves_its_thread_and_nothing_else() -> None:
    slow = Slow("late")
    remotes = Remotes(a=[slow, "bytes"])
    discarded = threading.Event()

    async def main() -> None:
        asked = remotes.set()
        with going(slow):
            async with trio.open_nursery() as nursery:

                async def leave() -> None:
                    await trio.to_thread.run_sync(slow.asked.wait, SECONDS)
                    nursery.cancel_scope.cancel()

                nursery.start_soon(leave)
                await asked.run(OID, remotes.work, deadline=SECONDS, discard=lambda _: discarded.set())
            assert await asked.run(OID, remotes.work, deadline=SECONDS) == "bytes"
        assert await trio.to_thread.run_sync(discarded.wait, SECONDS)

    trio.run(main)


def test_renewals_are_not_more_often_than_they_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_set, "RENEWAL_SECONDS", 0.0)
    remotes = Remotes(a=[RemoteDenied("expired"), RemoteDenied("still"), RemoteDenied("and"), "bytes"])

    async def main() -> None:
        asked = remotes.set()
        with pytest.raises(RemoteDenied, match="still"):
            await asked.run(OID, remotes.work, deadline=SECONDS)
        assert await asked.run(OID, remotes.work, deadline=SECONDS) == "bytes"

    trio.run(main)
