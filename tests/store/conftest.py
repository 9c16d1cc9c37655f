"""What tests of the store have in common."""

from __future__ import annotations

import pytest

from store import engine
from store.fetching import breaker, publisher, remote_pool, suspicion

LONG = 3600.0


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """No remote is asked once more because this machine is slow, and the disk is waited for: for tests that
    count what is asked, and what is kept."""
    for name in ("UNKNOWN_HEDGE_SECONDS", "HEDGE_SECONDS"):
        monkeypatch.setattr(breaker, name, LONG)
    monkeypatch.setattr(remote_pool, "MISSING_SECONDS", LONG)
    monkeypatch.setattr(publisher, "ROOM_SECONDS", LONG)
    monkeypatch.setattr(engine, "DRAIN_SECONDS", LONG)


class StoppedClock:
    """Goes on when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def suspicion_clock(monkeypatch: pytest.MonkeyPatch) -> StoppedClock:
    """By which remotes that gave wrong bytes are left alone."""
    clock = StoppedClock()
    monkeypatch.setattr(suspicion, "time", clock)
    return clock
