"""What every storage owes (`store.remotes.storage`), as tests that each family runs against a real server.

A family's test module makes a class of `StorageContract`, gives it the fixture `place` and says what its
servers cannot do.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import ClassVar, Protocol

import pytest

from store.errors import RangeRefused, RemoteCorrupt, RemoteMissing
from store.remotes.storage import CHUNK_BYTES, Address, Limits, Storage

LIMITS = Limits(connect=10.0, first_byte=30.0, stall=20.0)

LONG_AGO = 1e9
CLOCKS_APART = 600.0
"""Seconds."""
ODD_KEYS = (
    "with space/a b.txt",
    " leading and trailing ",
    "per%20cent",
    "per%2Fcent",
    "%",
    "plus+plus",
    "hash#hash",
    "question?mark=1&other",
    "semi;colon,comma:colon",
    "quotes'\"`",
    "back\\slash",
    "[brackets]{braces}<angles>|",
    "tilde~caret^",
    "at@bang!dollar$(parentheses)*",
    "ünïcode/日本語/\U0001f600.txt",
    ".hidden/..two dots",
    "one/two/three/four/five/six/seven",
    "n" * 200,
)


class Place(Protocol):
    """A place on a server: a test puts things there, and a storage is opened on it."""

    def put(self, key: str, data: bytes) -> str:
        """Returns the version that was made, empty where the server keeps none."""

    def put_many(self, objects: Mapping[str, bytes]) -> None:
        """The same for many, as fast as can be."""

    def open(self, limits: Limits) -> Storage:
        """A storage whose keys are those of `put`."""


def read(storage: Storage, key: str | Address, *arguments: object) -> bytes:
    """The bytes of a range, after a look at what the answer says of itself."""
    address = key if isinstance(key, Address) else Address(key)
    with storage.read(address, *arguments) as body:  # type: ignore[arg-type]
        length, size = body.length, body.size
        data = b"".join(body)
    assert size == length == -1 or length == len(data) <= size
    return data


def pattern(length: int, seed: int = 1) -> bytes:
    """Bytes in which no range equals another."""
    return random.Random(seed).randbytes(length)


class StorageContract:
    """The tests; `place` comes from the family."""

    ranges: ClassVar[bool] = True
    """Does the server answer ranges?"""
    validators: ClassVar[bool] = True
    """Does it say which state an object has, and keep to one?"""
    versions: ClassVar[bool] = False
    """Does it keep old versions, to be read by `Address.version`?"""
    listing: ClassVar[bool] = True
    """Can it be listed?"""
    odd_keys: ClassVar[tuple[str, ...]] = ODD_KEYS
    many: ClassVar[int] = 1050
    """More keys than a page of a listing has."""

    @pytest.fixture
    def storage(self, place: Place) -> Iterator[Storage]:
        with closing(place.open(LIMITS)) as storage:
            yield storage

    def test_an_object_is_read_whole(self, place: Place, storage: Storage) -> None:
        data = pattern(100_000)
        place.put("some/object", data)
        assert storage.size(Address("some/object")) == len(data)
        with storage.read(Address("some/object")) as body:
            assert (body.size, body.length) == (len(data), len(data))
            assert b"".join(body) == data

    def test_an_empty_object_is_read(self, place: Place, storage: Storage) -> None:
        place.put("empty", b"")
        assert storage.size(Address("empty")) == 0
        assert read(storage, "empty") == b""
        assert read(storage, "empty", 0, 0) == b""

    @pytest.mark.parametrize(
        ("offset", "length"),
        [(0, 1), (0, 1000), (1, 1), (999, 1), (500, 500), (0, 999), (17, None), (999, None), (0, None)],
    )
    def test_a_range_is_exactly_that(
        self, place: Place, storage: Storage, offset: int, length: int | None
    ) -> None:
        if not self.ranges:
            pytest.skip("the server does no ranges")
        data = pattern(1000)
        place.put("ranged", data)
        end = len(data) if length is None else offset + length
        with storage.read(Address("ranged"), offset, length) as body:
            assert (body.size, body.length) == (len(data), end - offset)
            assert b"".join(body) == data[offset:end]

    @pytest.mark.parametrize("offset", [0, 500, 1000])
    def test_a_range_of_nothing_is_nothing(self, place: Place, storage: Storage, offset: int) -> None:
        """No protocol can ask for it, so it must not become a question for everything."""
        place.put("ranged", pattern(1000))
        assert read(storage, "ranged", offset, 0) == b""

    def test_a_range_that_the_object_does_not_have_is_no_short_answer(
        self, place: Place, storage: Storage
    ) -> None:
        if not self.ranges:
            pytest.skip("the server does no ranges")
        place.put("short", pattern(1000))
        for offset, length in ((1000, 10), (2000, 10), (990, 20)):
            with pytest.raises(RemoteCorrupt):
                read(storage, "short", offset, length)

    def test_a_server_without_ranges_is_found_out(self, place: Place, storage: Storage) -> None:
        if self.ranges:
            pytest.skip("the server does ranges")
        place.put("whole only", pattern(1000))
        with pytest.raises(RangeRefused):
            read(storage, "whole only", 10, 10)
        assert read(storage, "whole only") == pattern(1000)

    def test_what_is_missing_is_missing(self, place: Place, storage: Storage) -> None:
        place.put("there/object", b"x")
        for key in ("not there", "there/other", "nowhere/object", "there"):
            with pytest.raises(RemoteMissing):
                storage.size(Address(key))
            with pytest.raises(RemoteMissing):
                read(storage, key)
            if self.ranges:
                with pytest.raises(RemoteMissing):
                    read(storage, key, 0, 10)

    def test_a_large_object_comes_in_bounded_parts(self, place: Place, storage: Storage) -> None:
        data = pattern(5 * CHUNK_BYTES + 12_345)
        place.put("large", data)
        with storage.read(Address("large")) as body:
            parts = list(body)
        assert max(map(len, parts)) <= CHUNK_BYTES
        assert b"".join(parts) == data

    def test_an_answer_may_be_left_unread(self, place: Place, storage: Storage) -> None:
        place.put("large", pattern(3 * CHUNK_BYTES))
        place.put("small", b"small")
        for _ in range(3):
            with storage.read(Address("large")) as body:
                assert next(iter(body))
        with storage.read(Address("large")):
            pass
        assert read(storage, "small") == b"small"

    def test_one_state_of_an_object_is_kept_to(self, place: Place, storage: Storage) -> None:
        if not self.validators:
            pytest.skip("the server tells no states")
        place.put("changing", pattern(2000, seed=1))
        with storage.read(Address("changing"), 0, 1000) as body:
            validator = body.validator
            first = b"".join(body)
        assert validator
        assert read(storage, "changing", 1000, 1000, validator) == pattern(2000, seed=1)[1000:]
        assert first == pattern(2000, seed=1)[:1000]

        place.put("changing", pattern(2000, seed=2))
        with pytest.raises(RemoteCorrupt):
            read(storage, "changing", 1000, 1000, validator)
        assert read(storage, "changing", 1000, 1000) == pattern(2000, seed=2)[1000:]

    def test_old_versions_can_be_read(self, place: Place, storage: Storage) -> None:
        if not self.versions:
            pytest.skip("the server keeps no versions")
        first = place.put("versioned", b"the first")
        second = place.put("versioned", b"the second one")
        assert first and second and first != second
        assert read(storage, "versioned") == b"the second one"
        assert read(storage, Address("versioned", first)) == b"the first"
        assert read(storage, Address("versioned", first), 4, 5) == b"first"
        assert read(storage, Address("versioned", second)) == b"the second one"
        assert storage.size(Address("versioned", first)) == len("the first")
        assert storage.size(Address("versioned", second)) == len("the second one")

    def test_odd_keys_are_read(self, place: Place, storage: Storage) -> None:
        place.put_many({f"odd/{key}": key.encode() for key in self.odd_keys})
        for key in self.odd_keys:
            assert read(storage, f"odd/{key}") == key.encode(), key
            assert storage.size(Address(f"odd/{key}")) == len(key.encode()), key

    def test_what_can_be_listed_is_said(self, storage: Storage) -> None:
        assert storage.can_list is self.listing

    def test_all_keys_of_a_prefix_are_listed(self, place: Place, storage: Storage) -> None:
        if not self.listing:
            pytest.skip("the server cannot be listed")
        there = {f"files/ab/{i:04}": b"x" * (i % 7) for i in range(self.many)}
        place.put_many({**there, "files/abc/other": b"other", "files/ac/other": b"other", "files/a": b"a"})
        listed = list(storage.list("files/ab/"))
        assert len(listed) == len(there)
        assert {one.key: one.size for one in listed} == {key: len(data) for key, data in there.items()}
        assert all(LONG_AGO < one.modified < time.time() + CLOCKS_APART for one in listed)

    def test_odd_keys_are_listed(self, place: Place, storage: Storage) -> None:
        if not self.listing:
            pytest.skip("the server cannot be listed")
        place.put_many({f"odd dir/{key}": b"xyz" for key in self.odd_keys})
        assert sorted(one[:2] for one in storage.list("odd dir/")) == sorted(
            (f"odd dir/{key}", 3) for key in self.odd_keys
        )

    def test_a_prefix_that_is_not_there_lists_nothing(self, place: Place, storage: Storage) -> None:
        if not self.listing:
            pytest.skip("the server cannot be listed")
        place.put("files/ab/object", b"x")
        assert list(storage.list("files/cd/")) == []
        assert list(storage.list("nothing/at/all/")) == []

    def test_many_threads_read_at_once(self, place: Place, storage: Storage) -> None:
        objects = {f"many/{i}": pattern(20_000, seed=i) for i in range(64)}
        place.put_many(objects)
        with ThreadPoolExecutor(16) as threads:
            got = list(threads.map(lambda key: read(storage, key), objects))
        assert got == list(objects.values())
