"""Calls in children: results, errors, deadlines; and a child holds nothing that anybody waits for."""

from __future__ import annotations

import errno
import fcntl
import os
import select
from pathlib import Path

import pytest

from fusefs.bounded import call_all_bounded, call_bounded
from tests.conftest import SECONDS


def fail() -> bytes:
    raise PermissionError(errno.EACCES, "no")


def hang() -> bytes:
    select.select([], [], [])
    return b""


def crash() -> bytes:
    os._exit(3)


def test_results_and_errors_come_in_order() -> None:
    first, second, third, fourth = call_all_bounded(
        [lambda: b"", lambda: b"x" * 200_000, fail, crash], SECONDS
    )
    assert (first, second) == (b"", b"x" * 200_000)
    assert isinstance(third, PermissionError) and third.errno == errno.EACCES
    assert isinstance(fourth, OSError) and fourth.errno == errno.EIO


def test_one_that_hangs_does_not_spoil_the_others() -> None:
    for seconds in (0.5, 20):  # a busy machine may not even have started the other one after the first
        hung, fine = call_all_bounded([hang, lambda: b"fine"], seconds)
        assert isinstance(hung, TimeoutError)
        if fine == b"fine":
            break
    assert fine == b"fine"


def test_one_that_is_given_up_holds_nothing_any_more(tmp_path: Path) -> None:
    """Or a mount that hangs could not be unmounted by who has just asked how it is."""

    def hold() -> bytes:
        fcntl.flock(os.open(tmp_path, os.O_RDONLY), fcntl.LOCK_EX)
        return hang()

    for _ in range(10):
        with pytest.raises(TimeoutError):
            call_bounded(hold, 0.05)
        held = os.open(tmp_path, os.O_RDONLY)
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(held)


def test_an_answer_has_a_limit() -> None:
    with pytest.raises(TimeoutError):
        call_bounded(lambda: b"x" * (1 << 22), SECONDS)


def test_a_child_lets_go_of_our_descriptors() -> None:
    reader, writer = os.pipe()

    def look() -> bytes:
        try:
            os.fstat(writer)
        except OSError:
            return b"closed"
        return b"open"

    assert call_bounded(look, SECONDS) == b"closed"
    os.close(reader)
    os.close(writer)
