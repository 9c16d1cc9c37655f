"""Products are made once, kept by content, told from garbage, and served piece by piece."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import trio

from store.errors import MediaInvalid
from store.keeping.kinds import kinds_of_cache
from store.making import open_products
from store.making.maker import Maker
from store.making.products import BELOW
from store.making.tasks import Task
from tests.store.making.bad_makers import word
from tests.store.making.origins import PacedOrigin, maker_at, settled, task_of


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "source.bin"
    path.write_bytes(os.urandom(20_000))
    return path


def kept(cache: Path) -> list[Path]:
    return [path for path in (cache / BELOW).rglob("*") if path.is_file()]


def left_over(cache: Path) -> list[Path]:
    return list((cache / "fusefs" / "incoming").iterdir())


async def pieces(made: Maker, count: int = 3, file: Path | None = None, maker: str = "words") -> None:
    assert file is not None
    task = task_of(maker, file, pieces=count)
    for number in range(count):
        assert await made.piece(task, number) == word(number)


def test_a_product_is_made_once_and_kept(tmp_path: Path, file: Path) -> None:
    cache = tmp_path / "cache"

    async def main() -> None:
        async with maker_at(cache) as made:
            assert made.sizes(task_of("words", file)) is None
            async with trio.open_nursery() as nursery:
                for _ in range(20):
                    nursery.start_soon(pieces, made, 3, file)
            assert made.sizes(task_of("words", file)) == [len(word(n)) for n in range(3)]
        (path,) = kept(cache)
        assert path.stat().st_mode & 0o7777 == 0o444
        inode = path.stat().st_ino
        # Another daemon, and content that lies elsewhere under another name.
        moved = file.rename(file.with_name("moved.bin"))
        async with maker_at(cache, makers={}) as made:
            await pieces(made, 3, moved)
            assert made.sizes(task_of("words", moved)) == [len(word(n)) for n in range(3)]
        assert [path.stat().st_ino for path in kept(cache)] == [inode]
        assert not left_over(cache)

    trio.run(main)


def test_what_is_to_be_kept_is_made_again_where_somebody_has_deleted_it(tmp_path: Path, file: Path) -> None:
    cache = tmp_path / "cache"

    async def main() -> None:
        async with maker_at(cache) as made:
            for _ in range(2):
                await made.keep(task_of("words", file))
                (path,) = kept(cache)  # and not a moment later
                path.unlink()

    trio.run(main)


@pytest.mark.parametrize("where", ["piece", "table", "foot", "shorter", "empty", "longer", "another's"])
def test_a_damaged_product_is_made_again(tmp_path: Path, file: Path, where: str) -> None:
    cache = tmp_path / "cache"

    async def main() -> None:
        async with maker_at(cache) as made:
            await pieces(made, 3, file)
            await made.product(task_of("words", file, chunk=1, pieces=2))
        path, other = sorted(kept(cache), key=lambda path: -path.stat().st_size)
        data = bytearray(path.read_bytes())
        if where in ("piece", "table", "foot"):
            data[{"piece": 3, "table": 3 * len(word(0)) + 20, "foot": len(data) - 20}[where]] ^= 1
        changed = {
            "shorter": data[:-1],
            "empty": b"",
            "longer": data + b"x",
            "another's": other.read_bytes(),
        }.get(where, data)
        path.chmod(0o644)
        path.write_bytes(changed)
        path.chmod(0o444)
        async with maker_at(cache) as made:
            await pieces(made, 3, file)
        async with maker_at(cache, makers={}) as made:  # it is whole again
            await pieces(made, 3, file)

    trio.run(main)


def test_damage_under_an_open_product_is_noticed(tmp_path: Path, file: Path) -> None:
    cache = tmp_path / "cache"

    async def main() -> None:
        async with maker_at(cache) as made:
            task = task_of("words", file)
            product = await made.product(task)
            await settled(made)
            (path,) = kept(cache)
            path.chmod(0o644)
            with path.open("r+b") as opened:
                opened.seek(len(word(0)) + 5)
                opened.write(b"garbage")
            assert await made.read(task, product, 1) == word(1)

    trio.run(main)


def test_a_piece_comes_before_the_rest_and_what_was_asked_for_first(tmp_path: Path, file: Path) -> None:
    async def main() -> None:
        async with maker_at(tmp_path / "cache") as made:
            source = PacedOrigin(file.read_bytes(), left=[1])
            task = Task("paced", "1", "", (source,), 0, {"pieces": 40}, 40)
            assert await made.piece(task, 30) == word(30)
            sizes = made.sizes(task)
            assert sizes is not None
            assert [number for number, size in enumerate(sizes) if size >= 0] == [30]
            # Somebody wants something else: the only worker leaves the rest for later.
            other = task_of("slow", file, pieces=3, chunk=1)
            async with trio.open_nursery() as nursery:

                async def want_other() -> None:
                    assert await made.piece(other, 2) == word(2)

                nursery.start_soon(want_other)
                (worker,) = made._workers._busy
                while not worker.is_stopping:
                    await trio.sleep(0.01)
                source.left[0] += 1  # for the piece that it is at
            sizes = made.sizes(task)
            assert sizes is not None
            assert sum(size >= 0 for size in sizes) == 2
            # And it is gone on with.
            source.left[0] += 40
            assert (await made.product(task)).is_whole
            assert await made.piece(task, 0) == word(0)

    trio.run(main)


def test_what_was_made_is_kept_when_the_daemon_ends_in_between(tmp_path: Path, file: Path) -> None:
    async def main() -> None:
        task = task_of("slow", file, pieces=40, seconds=0.05)
        async with maker_at(tmp_path / "cache") as made:
            await made.piece(task, 30)
        assert not left_over(tmp_path / "cache")
        async with maker_at(tmp_path / "cache", makers={}) as made:
            assert await made.piece(task, 30) == word(30)
        async with maker_at(tmp_path / "cache") as made:
            assert (await made.product(task)).is_whole
            for number in range(40):
                assert await made.piece(task, number) == word(number)

    trio.run(main)


def test_readers_who_leave_do_not_end_what_others_wait_for(tmp_path: Path, file: Path) -> None:
    async def main() -> None:
        async with maker_at(tmp_path / "cache") as made:
            task = task_of("slow", file, pieces=20)
            async with trio.open_nursery() as nursery:

                async def leave() -> None:
                    with trio.move_on_after(0.05):
                        await made.piece(task, 10)

                nursery.start_soon(leave)
                nursery.start_soon(leave)
                assert await made.piece(task, 10) == word(10)

    trio.run(main)


def test_evicted_products_are_made_again_and_those_in_use_stay(
    tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    (derived,) = (kind for kind in kinds_of_cache(cache) if kind.name == "derived")

    async def main() -> None:
        async with maker_at(cache) as made:
            await pieces(made, 3, file)
            await settled(made)
            (item,) = derived.items()
            assert derived.drop(item).value == "open"
            monkeypatch.setattr(open_products, "OPEN_SECONDS", 0.05)
        (item,) = derived.items()
        assert derived.drop(item).value == "free"
        async with maker_at(cache) as made:
            await pieces(made, 3, file)
            while len(made._open):  # let go of after a while
                await trio.sleep(0.02)
            await settled(made)  # a slow disk may take longer
            (item,) = derived.items()
            assert derived.drop(item).value == "free"
            await pieces(made, 3, file)

    trio.run(main)


def test_a_use_is_noted_for_whoever_evicts(tmp_path: Path, file: Path) -> None:
    async def main() -> None:
        async with maker_at(tmp_path / "cache") as made:
            await pieces(made, 3, file)
        (path,) = kept(tmp_path / "cache")
        os.utime(path, (1e9, 1e9))
        async with maker_at(tmp_path / "cache") as made:
            await pieces(made, 3, file)
        assert path.stat().st_mtime > 1.5e9

    trio.run(main)


def test_a_cache_that_cannot_be_written_to_is_done_without(tmp_path: Path, file: Path) -> None:
    cache = tmp_path / "cache"
    cache.write_bytes(b"no directory")

    async def main() -> None:
        async with maker_at(cache) as made:
            await pieces(made, 3, file)
            await pieces(made, 3, file)

    trio.run(main)


def test_a_full_disk_is_done_without(tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Publishing fails, and so does the worker's writing: `RLIMIT_FSIZE` stands for the disk's end."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    async def main() -> None:
        async with maker_at(tmp_path / "cache") as made:
            monkeypatch.setattr("store.making.products.write_fully", full)
            await pieces(made, 3, file)
        assert not kept(tmp_path / "cache")
        assert not left_over(tmp_path / "cache")

    trio.run(main)


def test_what_may_not_be_kept_is_served(tmp_path: Path, file: Path) -> None:
    async def main() -> None:
        noted: list[int] = []
        async with maker_at(tmp_path / "cache", may_keep=lambda _: False, note_kept=noted.append) as made:
            await pieces(made, 3, file)
        assert not kept(tmp_path / "cache")
        assert not noted
        async with maker_at(tmp_path / "cache", note_kept=noted.append) as made:
            await pieces(made, 3, file)
        assert noted == [path.stat().st_size for path in kept(tmp_path / "cache")]

    trio.run(main)


def test_a_piece_that_there_is_not_is_an_error(tmp_path: Path, file: Path) -> None:
    async def main() -> None:
        async with maker_at(tmp_path / "cache") as made:
            for number in (-1, 3, 1 << 40):
                with pytest.raises(MediaInvalid, match="no number"):
                    await made.piece(task_of("words", file), number)
            unknown = task_of("words", file, chunk=1)
            object.__setattr__(unknown, "pieces", 0)
            with pytest.raises(MediaInvalid, match="no number 7"):
                await made.piece(unknown, 7)
            assert await made.piece(unknown, 1) == word(1)

    trio.run(main)
