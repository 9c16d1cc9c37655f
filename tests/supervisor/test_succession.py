"""What a daemon says to its supervisor, and what it leaves to the next one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from fusefs.journal import Journal
from fusefs.succession import Succession
from fusefs.supervisor import ENDING, NOTIFY, SERVING, TOLD, Supervision


@pytest.fixture
def told() -> Iterator[tuple[int, int]]:
    """A pipe that the supervisor listens to."""
    ends = os.pipe()
    os.set_blocking(ends[0], False)
    yield ends
    for descriptor in ends:
        os.close(descriptor)


@pytest.fixture
def begin(told: tuple[int, int]) -> Iterator[Callable[[int], Succession]]:
    """The daemon that comes after so many others of the mount."""
    memory = os.memfd_create("test")

    def succeed(restarts: int) -> Succession:
        supervision = Supervision(memory, -1, told[1], -1, os.getppid(), restarts, "died" if restarts else "")
        return Succession(supervision, Journal(memory))

    yield succeed
    os.close(memory)


def said(told: tuple[int, int]) -> list[bytes]:
    try:
        return os.read(told[0], 4096).splitlines()
    except BlockingIOError:
        return []


def test_how_the_session_began_is_kept_by_the_first_daemon(
    told: tuple[int, int], begin: Callable[[int], Succession]
) -> None:
    first = begin(0)
    first.tell_ready()
    first.keep_agreement(True, b"asked", b"answered")
    first.tell_ending()
    assert said(told) == [TOLD, SERVING, ENDING]
    second = begin(1)
    kept = [("agreed", {"request": b"asked", "answer": b"answered"})]
    assert list(second.journal.replay()) == kept
    second.keep_agreement(True, b"asked", b"answered")
    assert said(told) == [SERVING]
    assert list(begin(2).journal.replay()) == kept


def test_nobody_goes_on_where_the_kernel_cannot_send_again(
    told: tuple[int, int], begin: Callable[[int], Succession]
) -> None:
    first = begin(0)
    first.keep_agreement(False, b"asked", b"answered")
    assert said(told) == []
    assert list(begin(1).journal.replay()) == []


def test_the_service_manager_hears_it_from_the_supervisor(
    told: tuple[int, int], begin: Callable[[int], Succession], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one line, whatever the text is."""
    first = begin(0)
    first.notify("READY=1")
    assert said(told) == []
    monkeypatch.setenv("NOTIFY_SOCKET", "@nobody listens")
    first.notify("READY=1", "STATUS=serving a\nb")
    assert said(told) == [NOTIFY + b"READY=1\0STATUS=serving a b"]


def test_a_supervisor_that_is_gone_is_known(begin: Callable[[int], Succession]) -> None:
    supervision = Supervision(-1, -1, -1, -1, os.getpid(), 0, "")
    assert Succession(supervision, Journal()).supervisor is None
    assert begin(0).supervisor == os.getppid()
    Succession(supervision, Journal()).tell_ready()  # costs nothing
