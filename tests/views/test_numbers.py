"""The numbers of views' spaces: runs of them, found again, and never more than there are."""

from __future__ import annotations

from typing import cast

import pytest

from fusefs.spaces import FIRST_TREE, REVISIONS_SPACE, ROW_MASK, Space, first_inode, locate
from fusefs.views.numbers import END_OF_NUMBERS, FIRST_VIEW, Numbers
from store.errors import StoreError


def space_of(name: str) -> Space:
    """What stands for a space."""
    return cast(Space, name)


def test_runs_are_found_by_every_number_in_them() -> None:
    numbers = Numbers()
    one = numbers.take(lambda number: space_of(f"one {number}"))
    run = numbers.take(lambda number: space_of(f"run {number}"), 1000)
    last = numbers.take(lambda number: space_of(f"last {number}"))
    assert (run, last) == (one + 1, one + 1001)
    for number, kind in ((one, "one"), (run, "run"), (run + 999, "run"), (last, "last")):
        assert numbers.find(number) == f"{kind} {number}"
    for unknown in (0, FIRST_TREE, REVISIONS_SPACE, one - 1, last + 1):
        with pytest.raises(KeyError):
            numbers.find(unknown)


def test_there_are_no_more_than_inodes_have_room_for() -> None:
    numbers = Numbers()
    numbers.take(space_of_any, END_OF_NUMBERS - FIRST_VIEW - 2)
    with pytest.raises(StoreError, match="mount it anew"):
        numbers.take(space_of_any, 3)
    last = numbers.take(space_of_any, 2) + 1
    with pytest.raises(StoreError, match="mount it anew"):
        numbers.take(space_of_any)
    inode = first_inode(last) + ROW_MASK
    assert inode < 1 << 63
    assert locate(inode) == (last, ROW_MASK)


def space_of_any(number: int) -> Space:
    return space_of(str(number))
