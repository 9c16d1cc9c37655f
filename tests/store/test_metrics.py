"""`store.metrics`: what is counted, how outcomes are named, and that labels stay harmless."""

from __future__ import annotations

import threading

import pytest

from store.errors import (
    ObjectMissing,
    RangeRefused,
    RemoteCorrupt,
    RemoteDenied,
    RemoteMissing,
    RemoteSlow,
    RemoteUnreachable,
    StoreTimeout,
)
from store.metrics import BOUNDS, LABEL_LENGTH, MAX_REMOTES, OTHERS, Histogram, Metrics, label_of, outcome_of


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (None, "ok"),
        (RemoteMissing("x"), "missing"),
        (ObjectMissing("x"), "missing"),
        (RemoteDenied("x"), "denied"),
        (RemoteSlow("x", 3), "slow"),
        (StoreTimeout("x"), "slow"),
        (RemoteCorrupt("x"), "corrupt"),
        (RemoteUnreachable("x"), "unreachable"),
        (RangeRefused("x"), "failed"),
        (ValueError("x"), "failed"),
    ],
)
def test_an_outcome_has_a_name(error: BaseException | None, outcome: str) -> None:
    assert outcome_of(error) == outcome


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("storage", "storage"),
        ("s3://bucket/pre fix", "s3://bucket/pre fix"),
        ("https://me:pa/ss@w@host/data?sig=secret#x", "https://host/data"),
        ('new\nline"\x1b[0m\udcff', 'new?line"?[0m?'),
        ("x" * 1000, "x" * LABEL_LENGTH),
    ],
)
def test_a_label_is_short_printable_and_without_secrets(name: str, label: str) -> None:
    assert label_of(name) == label


def test_there_are_never_more_labels_than_the_bound() -> None:
    metrics = Metrics()
    for number in range(3 * MAX_REMOTES):
        metrics.remote(f"remote-{number}").fetched()
    labels = metrics.remotes()
    assert len(labels) == MAX_REMOTES + 1
    assert labels[OTHERS].figures().objects == 2 * MAX_REMOTES
    assert metrics.remote("remote-0") is labels["remote-0"]


def test_a_time_on_a_bound_belongs_below_it() -> None:
    histogram = Histogram()
    for seconds in (0.0, BOUNDS[0], BOUNDS[0] + 1e-6, BOUNDS[-1], BOUNDS[-1] + 1):
        histogram.add(seconds)
    assert histogram.counts[:2] == [2, 1]
    assert histogram.counts[-2:] == [1, 1]


def test_threads_lose_no_count() -> None:
    remote = Metrics().remote("r")
    start = threading.Barrier(4)

    def call() -> None:
        start.wait()
        for _ in range(2000):
            remote.called(0.02, question=True)
            remote.called(0.02, RemoteSlow("late"))
            remote.received(3)
            remote.fetched()
            remote.retried()
            remote.hedged()

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    figures = remote.figures()
    assert (figures.objects, figures.bytes, figures.retries, figures.hedges) == (8000, 24000, 8000, 8000)
    assert {key: sum(calls.counts) for key, calls in figures.calls.items()} == {
        ("question", "ok"): 8000,
        ("bytes", "slow"): 8000,
    }
