"""What one daemon leaves to the next: the journal, the handles, and how the session was begun."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterator

import pytest

from fusefs.handles import SLOTS, Handles
from fusefs.journal import Journal
from fusefs.relay import Agreement
from fusefs.supervisor import Supervisor


@pytest.fixture
def memory() -> Iterator[int]:
    descriptor = os.memfd_create("test")
    yield descriptor
    os.close(descriptor)


def test_a_record_that_is_cut_short_was_never_written(memory: int) -> None:
    first = Journal(memory)
    first.append("place", number=1, name=b"\xff")
    whole = os.fstat(memory).st_size
    first.append("place", number=2, name="\udcff")
    size = os.fstat(memory).st_size
    for end in (size, size - 1, whole + 3, whole):
        os.ftruncate(memory, end)
        records = list(Journal(memory).replay())
        assert records == [
            ("place", {"number": 1, "name": b"\xff"}),
            *([("place", {"number": 2, "name": "\udcff"})] if end == size else []),
        ]
    second = Journal(memory)
    for _ in second.replay():
        second.append("place", number=0)  # what is done again is not written again
    second.append("shown", number=3)
    assert [values["number"] for _, values in Journal(memory).replay()] == [1, 3]


def test_a_damaged_record_is_not_believed(memory: int) -> None:
    Journal(memory).append("place", number=1)
    os.pwrite(memory, b"\x02", os.fstat(memory).st_size - 1)
    assert list(Journal(memory).replay()) == []


def test_handles_are_found_again_and_never_given_twice(memory: int) -> None:
    first = Handles(memory)
    files = [first.take(inode) for inode in (5, 6, 7)]
    directory = first.take(1 << 62, directory=True)
    first.give_back(files[1])
    second = Handles(memory)
    assert (second.files, second.find(files[0]), second.find(directory)) == (2, 5, 1 << 62)
    another = second.take(9)
    assert another not in files
    second.give_back(files[1])  # a release that is sent again
    assert second.find(another) == 9
    for unknown in (0, files[1], another + (1 << 24), SLOTS + 1, (1 << 64) - 1):
        with pytest.raises(KeyError):
            second.find(unknown)
        second.give_back(unknown)
    for handle in (files[0], files[2], another):
        second.give_back(handle)
    assert (second.files, Handles(memory).files) == (0, 0)


def dies(supervisor: Supervisor, *, after: float, serving: bool, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether another daemon comes for one that dies so many seconds later."""
    now = time.monotonic() + after
    monkeypatch.setattr(time, "monotonic", lambda: now)
    supervisor._is_serving = serving
    return supervisor._may_go_on()


def test_how_often_another_daemon_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    seldom = Supervisor({"fuse-fd": "-1"}, "/nowhere")
    assert all(dies(seldom, after=25, serving=True, monkeypatch=monkeypatch) for _ in range(20))
    often = Supervisor({"fuse-fd": "-1"}, "/nowhere")
    came = [dies(often, after=15, serving=True, monkeypatch=monkeypatch) for _ in range(4)]
    assert came == [True, True, True, False]
    never = Supervisor({"fuse-fd": "-1"}, "/nowhere")
    came = [dies(never, after=500, serving=not place, monkeypatch=monkeypatch) for place in range(4)]
    assert came == [True, True, True, False]
    unborn = Supervisor({"fuse-fd": "-1"}, "/nowhere")
    assert not dies(unborn, after=0, serving=False, monkeypatch=monkeypatch)


@pytest.mark.parametrize(
    ("flags", "more", "can"), [(1 << 30, 1 << 7, True), (1 << 30, 0, False), (0, 1 << 7, False)]
)
def test_whether_the_kernel_sends_again_is_in_its_request(flags: int, more: int, can: bool) -> None:
    request = bytes(40) + struct.pack("=IIIIII", 7, 45, 0, flags, more, 0)
    assert Agreement(request, b"").can_resend is can
    assert not Agreement(request[:56], b"").can_resend  # of before that was told
