"""A remote that fails is left alone for longer and longer, one call at a time sees whether it is back."""

from __future__ import annotations

from store.errors import RemoteCorrupt, RemoteDenied, RemoteMissing, RemoteSlow, RemoteUnreachable
from store.fetching import breaker
from store.fetching.breaker import Health
from store.metrics import CLOSED, HALF_OPEN, OPEN


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def fail(health: Health, times: int = 1) -> None:
    for _ in range(times):
        health.begin()
        health.fail(RemoteUnreachable("no route"))


def test_failures_in_a_row_open_the_circuit_and_an_answer_in_between_does_not_let_them() -> None:
    clock = Clock()
    health = Health(clock)
    fail(health, breaker.FAILURES - 1)
    health.begin()
    health.succeed(0.01)
    fail(health, breaker.FAILURES - 1)
    assert health.state() == CLOSED
    assert health.may_ask()
    clock.now += breaker.DENIED_SECONDS
    health.begin()
    health.fail(RemoteDenied("no such key"))
    assert health.state() == OPEN
    assert not health.may_ask()
    assert isinstance(health.last_error, RemoteDenied)


def test_what_is_wrong_with_an_object_is_no_failure_of_the_remote() -> None:
    health = Health(Clock())
    for error in (RemoteMissing("none"), RemoteCorrupt("other bytes")):
        for _ in range(10):
            health.begin()
            health.fail(error)
    assert health.state() == CLOSED


def test_denials_close_to_an_answer_are_about_objects() -> None:
    clock = Clock()
    health = Health(clock)
    health.begin()
    health.succeed(0.01)
    for _ in range(10 * breaker.FAILURES):
        health.begin()
        health.fail(RemoteDenied("no such key"))
    assert health.state() == CLOSED
    assert isinstance(health.trouble(), RemoteDenied)
    clock.now += breaker.DENIED_SECONDS
    health.begin()
    health.fail(RemoteDenied("the token has expired"))
    assert health.state() == OPEN
    clock.now += health.pause()
    health.reset()  # that it was opened anew is no answer
    for _ in range(breaker.FAILURES):
        health.begin()
        health.fail(RemoteDenied("nor has it another one"))
    assert health.state() == OPEN


def test_pauses_double_and_are_bounded_and_one_call_probes() -> None:
    clock = Clock()
    health = Health(clock)
    fail(health, breaker.FAILURES)
    pauses = []
    for _ in range(10):
        pauses.append(health.pause())
        clock.now += health.pause()
        assert health.state() == HALF_OPEN
        assert health.may_ask()
        health.begin()
        assert not health.may_ask()
        health.fail(RemoteSlow("no answer"))
    assert pauses[:4] == [1.0, 2.0, 4.0, 8.0]
    assert pauses[-1] == breaker.LONGEST_PAUSE
    clock.now += breaker.LONGEST_PAUSE
    health.begin()
    health.succeed(0.01)
    assert health.state() == CLOSED
    fail(health, breaker.FAILURES)
    assert health.pause() == breaker.FIRST_PAUSE


def test_since_when_a_remote_is_gone() -> None:
    clock = Clock()
    health = Health(clock)
    health.begin()
    health.fail(RemoteSlow("no answer"), 10.0)
    assert not health.is_gone(10.0), "it is asked again"
    fail(health, breaker.FAILURES)
    assert health.is_gone(10.0) and not health.is_gone(10.5)
    clock.now += 0.5
    assert health.is_gone(10.5)
    clock.now += health.pause()
    assert not health.is_gone(10.0), "somebody is to see whether it is back"
    health.begin()
    health.succeed()
    fail(health, breaker.FAILURES)
    assert not health.is_gone(1.0)


def test_a_probe_that_never_comes_back_is_followed_by_another() -> None:
    clock = Clock()
    health = Health(clock)
    fail(health, breaker.FAILURES)
    clock.now += health.pause()
    health.begin()
    clock.now += breaker.PROBE_SECONDS + 1
    assert health.may_ask()


def test_calls_that_began_before_the_circuit_opened_do_not_lengthen_the_pause() -> None:
    health = Health(Clock())
    for _ in range(64):
        health.begin()
    for _ in range(64):
        health.fail(RemoteUnreachable("reset"))
    assert health.pause() == breaker.FIRST_PAUSE


def test_a_remote_that_wants_to_be_left_alone_is_and_not_for_ever() -> None:
    clock = Clock()
    health = Health(clock)
    health.begin()
    health.fail(RemoteSlow("too many requests", retry_after=7.0))
    assert health.pause() == 7.0
    clock.now += 7
    health.begin()
    health.fail(RemoteSlow("too many requests", retry_after=1e9))
    assert health.pause() == breaker.LONGEST_RETRY_AFTER


def test_what_is_unusually_long_follows_what_is_usual() -> None:
    health = Health(Clock())
    assert health.hedge_after == breaker.UNKNOWN_HEDGE_SECONDS
    for _ in range(1000):
        health.succeed(0.01)
    assert health.hedge_after == breaker.HEDGE_SECONDS
    for _ in range(1000):
        health.succeed(1.0)
    assert 2.9 < health.hedge_after < 3.1
    for _ in range(1000):
        health.succeed(0.01)
    assert health.hedge_after < 0.6


def test_hedges_are_few_of_many() -> None:
    health = Health(Clock())
    hedges = 0
    for _ in range(1000):
        health.begin()
        hedges += health.take_hedge()
    assert 100 <= hedges <= 110
