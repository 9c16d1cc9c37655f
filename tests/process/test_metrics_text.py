"""The text and the address of the metrics, without a mount."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from fusefs.metrics_address import parse_metrics, split_host
from fusefs.metrics_text import MetricsText
from fusefs.status import Status
from store.errors import RemoteDenied
from store.metrics import BOUNDS, OPEN, Metrics, Queue


def blank(**fields: object) -> Status:
    """A status that knows nothing but `fields`."""
    unknown: dict[str, object] = dict.fromkeys(Status.__dataclass_fields__)
    return Status(**{**unknown, "mountpoint": "/mnt", **fields})  # type: ignore[arg-type]


def test_figures_of_remotes_become_samples() -> None:
    metrics = Metrics()
    metrics.queues = lambda: {"remote": Queue(limit=72, busy=3, waiting=2)}
    metrics.flights = lambda: 5
    metrics.publications = lambda: 6
    remote = metrics.remote('a"b\\c\nd')
    remote.breaker = lambda: OPEN
    remote.called(0.02)
    remote.called(0.3)
    remote.called(1000)
    remote.called(0.02, RemoteDenied("no"), question=True)
    remote.received(20_000)
    remote.fetched()
    text = MetricsText(metrics, blank).render().decode()
    samples = [s for family in text_string_to_metric_families(text) for s in family.samples]

    def value(name: str, **labels: str) -> float:
        (found,) = [s.value for s in samples if s.name == name and labels.items() <= s.labels.items()]
        return found

    assert value("fusefs_fetched_bytes_total", remote='a"b\\c?d') == 20_000
    assert value("fusefs_fetched_objects_total") == 1
    buckets = [s for s in samples if s.name.endswith("_bucket") and s.labels["outcome"] == "ok"]
    assert [s.labels["le"] for s in buckets] == [*map(str, BOUNDS), "+Inf"]
    counts = {s.labels["le"]: s.value for s in buckets}
    assert (counts["0.01"], counts["0.025"], counts["0.5"], counts["60.0"], counts["+Inf"]) == (0, 1, 2, 2, 3)
    assert value("fusefs_remote_call_seconds_sum", outcome="ok", kind="bytes") == pytest.approx(1000.32)
    assert value("fusefs_remote_call_seconds_count", outcome="denied", kind="question") == 1
    states = {s.labels["state"]: s.value for s in samples if s.name == "fusefs_remote_breaker"}
    assert states == {"closed": 0, "half-open": 0, "open": 1}
    assert value("fusefs_threads_waiting", kind="remote") == 2
    assert value("fusefs_flights") == 5
    assert value("fusefs_publications") == 6


def test_what_is_not_known_has_no_sample() -> None:
    text = MetricsText(Metrics(), lambda: blank(files=7)).render().decode()
    assert "fusefs_version_files 7.0" in text
    assert "fusefs_version_bytes" not in text


def test_a_mountpoint_that_is_no_text_is_shown_all_the_same() -> None:
    text = MetricsText(Metrics(), lambda: blank(mountpoint="/mnt/\udcff")).render().decode()
    (line,) = [line for line in text.splitlines() if line.startswith("fusefs_mount_info{")]
    assert r'mountpoint="/mnt/\\udcff"' in line


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("9100", "127.0.0.1:9100"),
        ("localhost:0", "127.0.0.1:0"),
        ("0.0.0.0:9100", "0.0.0.0:9100"),
        ("[::1]:9100", "[::1]:9100"),
        ("unix:/run/x.sock", "unix:/run/x.sock"),
        ("unix:x.sock", f"unix:{Path.cwd()}/x.sock"),
    ],
)
def test_an_address_is_settled(text: str, address: str) -> None:
    assert parse_metrics(text) == address


def test_host_and_port_come_apart_again() -> None:
    assert split_host("[::1]:9100") == ("::1", 9100)
    assert split_host("127.0.0.1:1") == ("127.0.0.1", 1)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":9100",
        "host.example:9100",
        "65536",
        "::1:9100",
        "http://x:1",
        "unix:",
        "unix:/" + "x" * 200,
        "1 ",
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_metrics(text)
