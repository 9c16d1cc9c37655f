"""Products that others have put on a remote are found before anything is made, and believed once proved."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trio

from store.errors import MediaFailed, MediaInvalid, ObjectMissing, RemoteDenied, RemoteSlow, RemoteUnreachable
from store.making import remote_products
from store.making.maker import Maker
from store.making.products import BELOW, Products
from store.making.remote_products import MARKER, push
from store.making.tasks import Task
from store.remotes.opening import open_remote
from store.remotes.remote import Remote
from store.remotes.spec import VERSIONED_LAYOUT, RemoteSpec
from store.remotes.storage import Address, Body, Listed, WritableStorage
from tests.store.making.bad_makers import word
from tests.store.making.origins import FileOrigin, maker_at, settled


class Watched:
    """A storage that is only read, whose calls are counted and may fail."""

    can_list = False

    def __init__(self, storage: WritableStorage, fault: Callable[[str], None]) -> None:
        self._storage = storage
        self._fault = fault
        self._lock = threading.Lock()
        self.asked: Counter[str] = Counter()

    def _note(self, call: str) -> None:
        with self._lock:
            self.asked[call] += 1
        self._fault(call)

    def size(self, address: Address) -> int:
        self._note("size")
        return self._storage.size(address)

    def read(
        self, address: Address, offset: int = 0, length: int | None = None, validator: str = ""
    ) -> AbstractContextManager[Body]:
        self._note("read")
        return self._storage.read(address, offset, length, validator)

    def list(self, prefix: str) -> Iterator[Listed]:
        raise NotImplementedError

    def put(self, *arguments: object, **options: object) -> bool:
        raise NotImplementedError

    def delete(self, keys: object) -> None:
        raise NotImplementedError

    def close(self) -> None:
        pass


@dataclass(frozen=True)
class FakeSet:
    """What is needed of a `RemoteSet`."""

    remotes: tuple[Remote, ...]


@dataclass(frozen=True)
class Origin(FileOrigin):
    """A file of a version that has remotes."""

    remotes: Any = None


@dataclass(frozen=True)
class Far:
    """A source, a remote, and two machines' caches."""

    source: Path
    root: Path
    here: Path
    there: Path

    @property
    def remote(self) -> Remote:
        spec = RemoteSpec("far", str(self.root))
        return Remote("far", open_remote(spec).storage, identity=spec.identity)

    def watched(self, fault: Callable[[str], None] = lambda _: None) -> tuple[Remote, Watched]:
        storage = Watched(self.remote.storage, fault)
        return Remote("far", storage, identity="far"), storage

    def task(self, *remotes: Remote, maker: str = "words", chunk: int = 0) -> Task:
        origin = Origin(self.source, FakeSet(remotes) if remotes else None)
        return Task(maker, "1", "", (origin,), chunk, {"pieces": 3}, 3)

    def make(self, *chunks: int) -> None:
        """Make products on the machine `there` and push them."""

        async def main() -> None:
            async with maker_at(self.there) as made:
                for chunk in chunks:
                    await made.product(self.task(chunk=chunk))

        trio.run(main)
        products = Products(self.there)
        for chunk in chunks:
            assert push(self.remote, products, self.task(chunk=chunk).key, 3)
        products.close()

    def kept(self) -> list[Path]:
        return [path for path in (self.here / BELOW).rglob("*") if path.is_file()]

    def place(self, chunk: int = 0) -> Path:
        key = self.task(chunk=chunk).key
        return self.root / BELOW / key[:2] / key[2:]


@pytest.fixture
def far(tmp_path: Path) -> Far:
    source = tmp_path / "source.bin"
    source.write_bytes(os.urandom(2000))
    return Far(source, tmp_path / "remote", tmp_path / "here", tmp_path / "there")


NOBODY: Mapping[str, Any] = {}
"""No makers: what is read was made elsewhere."""


async def read_all(made: Maker, task: Task) -> None:
    for number in range(3):
        assert await made.piece(task, number) == word(number)


def test_what_others_made_is_found(far: Far) -> None:
    far.make(0, 1)
    remote, storage = far.watched()

    async def main() -> None:
        async with maker_at(far.here, makers=NOBODY) as made:
            async with trio.open_nursery() as nursery:
                for _ in range(5):
                    nursery.start_soon(read_all, made, far.task(remote))
            await settled(made)
            assert storage.asked == {"size": 1, "read": 1}
            await read_all(made, far.task(remote, chunk=1))
            assert storage.asked == {"size": 1, "read": 2}
            assert made.sizes(far.task(remote)) == [len(word(n)) for n in range(3)]
        assert len(far.kept()) == 2
        assert all(path.stat().st_mode & 0o777 == 0o444 for path in far.kept())
        assert (far.here / far.place().relative_to(far.root)).read_bytes() == far.place().read_bytes()
        async with maker_at(far.here, makers=NOBODY) as made:  # as if it had been made here
            await read_all(made, far.task())
        assert storage.asked == {"size": 1, "read": 2}

    trio.run(main)


def test_a_remote_without_products_costs_one_question(far: Far) -> None:
    far.root.mkdir()
    remote, storage = far.watched()

    async def main() -> None:
        async with maker_at(far.here) as made:
            for chunk in range(4):
                await read_all(made, far.task(remote, chunk=chunk))
            assert storage.asked == {"size": 1}

    trio.run(main)


def test_what_a_remote_has_by_now_is_found_after_a_while(far: Far, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_products, "ABSENT_SECONDS", 0.0)
    far.root.mkdir()
    remote, storage = far.watched()

    async def main() -> None:
        async with maker_at(far.here) as made:
            await read_all(made, far.task(remote, chunk=0))
            await read_all(made, far.task(remote, chunk=2))
            assert storage.asked == {"size": 2}

    trio.run(main)


def test_what_one_remote_lacks_the_next_may_have(far: Far, tmp_path: Path) -> None:
    far.make(0)
    empty = Remote("empty", open_remote(RemoteSpec("empty", str(tmp_path / "no"))).storage, identity="empty")
    by_path = Remote("paths", far.remote.storage, layout=VERSIONED_LAYOUT, identity="paths")
    other = Far(far.source, tmp_path / "other", far.here, tmp_path / "elsewhere")
    other.make(7)
    remote, _ = far.watched()

    async def main() -> None:
        async with maker_at(far.here, makers=NOBODY) as made:
            await read_all(made, far.task(empty, by_path, other.remote, remote))

    trio.run(main)


def flipped(data: bytes, place: int) -> bytes:
    changed = bytearray(data)
    changed[place] ^= 1
    return bytes(changed)


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "a piece": lambda data: flipped(data, 2),
    "the table": lambda data: flipped(data, len(data) - 40),
    "the foot": lambda data: flipped(data, len(data) - 20),
    "shorter": lambda data: data[:-1],
    "longer": lambda data: data + b"x",
    "empty": lambda data: b"",
    "something else": lambda data: os.urandom(len(data)),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_wrong_is_made_instead(far: Far, damage: str) -> None:
    far.make(0)
    good = far.place().read_bytes()
    far.place().chmod(0o644)
    far.place().write_bytes(DAMAGES[damage](good))
    remote, storage = far.watched()

    async def main() -> None:
        async with maker_at(far.here) as made:
            await read_all(made, far.task(remote))
            assert storage.asked["read"] == 1

    trio.run(main)
    assert [path.read_bytes() for path in far.kept()] == [good]
    assert not list((far.here / "fusefs/incoming").iterdir())


def test_the_product_of_another_key_is_no_product(far: Far) -> None:
    far.make(0, 1)
    far.place(0).chmod(0o644)
    far.place(0).write_bytes(far.place(1).read_bytes())
    remote, _ = far.watched()

    async def main() -> None:
        async with maker_at(far.here, makers=NOBODY) as made:
            with pytest.raises((MediaFailed, MediaInvalid)):
                await made.piece(far.task(remote), 0)

    trio.run(main)


def test_a_product_that_is_too_large_does_not_come(far: Far, monkeypatch: pytest.MonkeyPatch) -> None:
    far.make(0)
    monkeypatch.setattr(remote_products, "LARGEST", 20)
    remote, _ = far.watched()

    async def main() -> None:
        async with maker_at(far.here) as made:
            await read_all(made, far.task(remote))

    trio.run(main)
    with pytest.raises(ObjectMissing, match="too large"):
        push(far.remote, Products(far.there), far.task().key, 3)


@pytest.mark.parametrize("error", [RemoteSlow, RemoteUnreachable, RemoteDenied])
@pytest.mark.parametrize("call", ["size", "read"])
def test_a_remote_that_fails_is_left_alone_for_a_while(
    far: Far, call: str, error: Callable[[str], Exception]
) -> None:
    far.make(0, 1, 2)

    def fault(asked: str) -> None:
        if asked == call:
            raise error("far fails")

    remote, storage = far.watched(fault)

    async def main() -> None:
        async with maker_at(far.here) as made:
            for chunk in range(3):
                await read_all(made, far.task(remote, chunk=chunk))
            assert storage.asked[call] == 1

    trio.run(main)


def test_what_is_there_is_not_pushed_again(far: Far) -> None:
    far.make(0)
    products = Products(far.there)
    assert not push(far.remote, products, far.task().key, 3)
    far.place().unlink()
    assert push(far.remote, products, far.task().key, 3)
    assert (far.root / MARKER).exists()
    products.close()


@pytest.mark.parametrize("what", ["missing", "damaged"])
def test_only_sound_products_are_pushed(far: Far, what: str) -> None:
    async def main() -> None:
        async with maker_at(far.there) as made:
            if what != "missing":
                await made.product(far.task())

    trio.run(main)
    products = Products(far.there)
    key = far.task().key
    if what == "damaged":
        path = far.there / BELOW / key[:2] / key[2:]
        path.chmod(0o644)
        path.write_bytes(flipped(path.read_bytes(), 2))
    with pytest.raises(ObjectMissing):
        push(far.remote, products, key, 3)
    assert not far.root.exists()
    products.close()
