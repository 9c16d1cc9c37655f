"""What every storage owes that is written to (`WritableStorage`), as tests that each family runs.

A family's test module makes a class of `WritingContract` and gives it the fixture `place`, as for reading.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import ClassVar, Protocol

import pytest

from store.errors import RemoteMissing
from store.remotes.storage import CHUNK_BYTES, SENT_AT_ONCE, UPLOADS, Address, Limits, WritableStorage
from tests.store.remotes.contract import LIMITS, ODD_KEYS, pattern, read


class WritablePlace(Protocol):
    """A place on a server that a storage is opened on."""

    def open(self, limits: Limits) -> WritableStorage: ...


class SourceFailed(Exception):
    """What a source of bytes raises in tests."""


def cut(data: bytes, length: int = CHUNK_BYTES) -> Iterator[bytes]:
    """The parts of some bytes."""
    return (data[start : start + length] for start in range(0, len(data), length))


def failing(data: bytes) -> Iterator[bytes]:
    """The same, and an error in the place of an end."""
    yield from cut(data)
    raise SourceFailed


def put(storage: WritableStorage, key: str, data: bytes, *, if_absent: bool = False) -> bool:
    return storage.put(key, cut(data), len(data), if_absent=if_absent)


def keys_of(storage: WritableStorage, prefix: str = "") -> set[str]:
    """All keys, where they can be listed, but for nothing."""
    return {listed.key for listed in storage.list(prefix)} if storage.can_list else set()


class WritingContract:
    """The tests; `place` comes from the family."""

    atomic: ClassVar[bool] = True
    """Is `if_absent` decided by the storage itself?"""
    odd_keys: ClassVar[tuple[str, ...]] = ODD_KEYS

    @pytest.fixture
    def storage(self, place: WritablePlace) -> Iterator[WritableStorage]:
        with closing(place.open(LIMITS)) as storage:
            yield storage

    @pytest.mark.parametrize("size", [0, 1, 100_000, CHUNK_BYTES, 3 * CHUNK_BYTES + 12_345])
    def test_what_is_put_is_read(self, storage: WritableStorage, size: int) -> None:
        data = pattern(size)
        assert put(storage, "files/md5/ab/cdef", data)
        assert storage.size(Address("files/md5/ab/cdef")) == size
        assert read(storage, "files/md5/ab/cdef") == data
        assert keys_of(storage) <= {"files/md5/ab/cdef"}  # nothing else is left

    def test_a_large_object_is_put_in_bounded_parts(self, storage: WritableStorage) -> None:
        size = 2 * SENT_AT_ONCE + 12_345
        data = pattern(size)
        longest = 0

        def parts() -> Iterator[bytes]:
            nonlocal longest
            for part in cut(data):
                longest = max(longest, len(part))
                yield part

        assert storage.put("large", parts(), size)
        assert longest <= CHUNK_BYTES
        assert storage.size(Address("large")) == size
        assert read(storage, "large") == data

    def test_an_object_is_replaced(self, storage: WritableStorage) -> None:
        assert put(storage, "dir/key", b"the first one")
        assert put(storage, "dir/key", b"second")
        assert read(storage, "dir/key") == b"second"

    def test_what_is_there_stays_if_that_is_wanted(self, storage: WritableStorage) -> None:
        assert put(storage, "dir/key", b"the first one", if_absent=True)
        assert not put(storage, "dir/key", b"second", if_absent=True)
        assert read(storage, "dir/key") == b"the first one"
        large = pattern(SENT_AT_ONCE + 1)
        assert not put(storage, "dir/key", large, if_absent=True)
        assert read(storage, "dir/key") == b"the first one"
        assert put(storage, "dir/large", large, if_absent=True)
        assert keys_of(storage) <= {"dir/key", "dir/large"}

    def test_one_of_many_has_a_key(self, storage: WritableStorage) -> None:
        if not self.atomic:
            pytest.skip("there is only a look before")
        together = threading.Barrier(6)

        def run(number: int) -> bool:
            together.wait(60)
            return put(storage, "race/key", b"%d" % number, if_absent=True)

        with ThreadPoolExecutor(6) as threads:
            won = list(threads.map(run, range(6)))
        assert sum(won) == 1
        assert read(storage, "race/key") == b"%d" % won.index(True)

    @pytest.mark.parametrize("size", [0, 1000, 2 * CHUNK_BYTES, SENT_AT_ONCE + CHUNK_BYTES])
    def test_a_source_that_fails_makes_no_object(self, storage: WritableStorage, size: int) -> None:
        put(storage, "dir/beside", b"x")
        with pytest.raises(SourceFailed):
            storage.put("dir/key", failing(pattern(size)), size)
        with pytest.raises(RemoteMissing):
            storage.size(Address("dir/key"))
        assert keys_of(storage) <= {"dir/beside"}
        assert put(storage, "dir/key", b"now")
        assert read(storage, "dir/key") == b"now"

    @pytest.mark.parametrize("promised", [0, 999, 1001, CHUNK_BYTES + 5])
    def test_another_length_than_promised_makes_no_object(
        self, storage: WritableStorage, promised: int
    ) -> None:
        with pytest.raises(ValueError, match="were promised"):
            storage.put("dir/key", cut(pattern(1000), 100), promised)
        with pytest.raises(RemoteMissing):
            storage.size(Address("dir/key"))

    def test_a_source_that_fails_leaves_what_was_there(self, storage: WritableStorage) -> None:
        put(storage, "dir/key", b"what was there")
        for size in (1000, SENT_AT_ONCE + 1):
            with pytest.raises(SourceFailed):
                storage.put("dir/key", failing(pattern(size)), size)
        assert read(storage, "dir/key") == b"what was there"

    def test_what_is_deleted_is_gone(self, storage: WritableStorage) -> None:
        for key in ("dir/a", "dir/b", "dir/c"):
            put(storage, key, b"x")
        storage.delete(["dir/a", "not/there", "dir/none", "dir/c"])
        storage.delete(["dir/a"])
        storage.delete([])
        for key in ("dir/a", "dir/c"):
            with pytest.raises(RemoteMissing):
                storage.size(Address(key))
        assert read(storage, "dir/b") == b"x"

    def test_odd_keys_are_put(self, storage: WritableStorage) -> None:
        for key in self.odd_keys:
            assert put(storage, f"odd/{key}", key.encode()), key
        for key in self.odd_keys:
            assert read(storage, f"odd/{key}") == key.encode(), key
        storage.delete([f"odd/{key}" for key in self.odd_keys])
        for key in self.odd_keys:
            with pytest.raises(RemoteMissing):
                storage.size(Address(f"odd/{key}"))

    def test_many_threads_put_at_once(self, storage: WritableStorage) -> None:
        objects = {f"many/{i % 7}/{i}": pattern(20_000, seed=i) for i in range(48)}
        with ThreadPoolExecutor(16) as threads:
            assert all(threads.map(lambda item: put(storage, *item), objects.items()))
            got = list(threads.map(lambda key: read(storage, key), objects))
        assert got == list(objects.values())
        assert not any(key.startswith(UPLOADS) for key in keys_of(storage))

    def test_nothing_is_asked_of_a_source_too_late(self, storage: WritableStorage) -> None:
        """Parts are taken in the calling thread: sources need not be for any other."""
        threads: set[int] = set()

        def parts() -> Iterable[bytes]:
            for part in cut(pattern(SENT_AT_ONCE + 100_000)):
                threads.add(threading.get_ident())
                yield part

        storage.put("key", parts(), SENT_AT_ONCE + 100_000)
        assert threads == {threading.get_ident()}
