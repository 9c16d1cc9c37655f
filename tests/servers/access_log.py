"""What a web server was asked for: its log, which it writes behind its answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from tests.mount.mounts import Mount
from tests.patience import until

AGAIN = ("fusefs_remote_hedges_total", "fusefs_remote_retries_total")
"""What is asked once more because its answer takes long: as often as a busy machine is slow."""


def objects_asked(log: Path) -> Counter[str]:
    """The objects of a DVC remote that were asked for, and how often each was."""
    found = (line.partition('"GET /files/md5/')[2] for line in log.read_text().splitlines())
    return Counter(line.partition(" ")[0].replace("/", "") for line in found if line)


def assert_asked(log: Path, expected: Iterable[str], mount: Mount) -> None:
    """These objects were asked for, by one mount, and none more often than they are named here."""
    wanted = Counter(expected)
    until(lambda: not wanted - objects_asked(log), lambda: str(wanted - objects_asked(log)))
    more = objects_asked(log) - wanted
    assert more.keys() <= wanted.keys() and more.total() <= mount.count(*AGAIN), more
