"""What a server was asked for, held against what there was to ask for. No tests are in here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from tests.mount.mounts import Mount
from tests.servers.access_log import AGAIN


def asked_again(*mounts: Mount) -> int:
    """How many calls were made once more, or beside others. Asked for behind the server's log, it counts all
    that can be in there."""
    return sum(mount.count(*AGAIN) for mount in mounts)


def assert_once(gets: Counter[str], wanted: Iterable[str], again: int) -> None:
    """Each was asked for once and nothing else was, but for so many calls that took long."""
    once = Counter(wanted)
    assert gets.keys() == once.keys()
    more = gets - once
    assert gets >= once and more.total() <= again, (more, again)
