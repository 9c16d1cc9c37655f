"""Calls in children: results, errors, deadlines; and a child holds nothing that anybody waits for."""

from __future__ import annotations

import errno
import os
import select

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
    hung, fine = call_all_bounded([hang, lambda: b"fine"], 0.5)
    assert isinstance(hung, TimeoutError)
    assert fine == b"fine"


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
