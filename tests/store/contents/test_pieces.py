"""Any range of a content in parts is the bytes of that range, from the pieces that it touches and no more."""

from __future__ import annotations

import threading
from itertools import accumulate, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.contents.index import Piece, decode_parts, encode_parts
from store.contents.pieces import AHEAD, KeptPieces, PiecesBody
from store.errors import RemoteCorrupt
from tests.mount.datasets import filler
from tests.store.contents.content_remote import oid_of

DATA = filler(3000, 1)


def pieces_of(lengths: list[int]) -> list[Piece]:
    ends = [0, *accumulate(lengths)]
    return [Piece(start, end - start, f"{start:064x}", bytes(16)) for start, end in pairwise(ends)]


@given(st.lists(st.integers(1, 300), min_size=1, max_size=10), st.data())
def test_a_range_is_its_bytes(lengths: list[int], draw: st.DataObject) -> None:
    size = sum(lengths)
    index = decode_parts(encode_parts(oid_of(DATA), pieces_of(lengths)), oid_of(DATA))
    offset = draw.draw(st.integers(0, size))
    length = draw.draw(st.integers(0, size - offset))
    touched = [index.piece(number) for number in index.covering(offset, length)]
    assert all(piece.offset < offset + length and piece.offset + piece.length > offset for piece in touched)
    brought = []

    def bring(piece: Piece) -> bytes:
        brought.append(piece)
        return DATA[piece.offset : piece.offset + piece.length]

    body = PiecesBody(size, offset, length, touched, bring, threading.Semaphore(AHEAD))
    assert b"".join(body) == DATA[offset : offset + length]
    assert sorted(brought) == touched


def test_what_is_wrong_with_a_piece_is_told_in_its_place() -> None:
    pieces = pieces_of([100] * 10)

    def bring(piece: Piece) -> bytes:
        if piece.offset == 700:
            raise RemoteCorrupt("wrong")
        return DATA[piece.offset : piece.offset + piece.length]

    came = []
    with pytest.raises(RemoteCorrupt, match="wrong"):
        came.extend(PiecesBody(1000, 0, 1000, pieces, bring, threading.Semaphore(AHEAD)))
    assert b"".join(came) == DATA[:700]


def test_pieces_are_kept_within_bounds() -> None:
    kept, asked = KeptPieces(budget=250), []

    def bring(piece: Piece) -> bytes:
        asked.append(piece.offset)
        return bytes(piece.length)

    first, second, third = pieces_of([100] * 3)
    for piece in (first, second, first, third, first, second):
        assert kept.get(piece, bring) == bytes(100)
    assert asked == [0, 100, 200, 100]
