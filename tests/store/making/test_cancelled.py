"""A maker whose surroundings are cancelled while it makes something, as those of an engine are."""

from __future__ import annotations

from pathlib import Path

import trio

from store.making.maker import Maker
from store.threads import Threads
from tests.store.making.origins import ALL_MAKERS, task_of

SECONDS = 60.0


def test_nothing_is_waited_for_that_was_cancelled(tmp_path: Path) -> None:
    """Draining ends, and nothing is left behind of what was half made."""
    source = tmp_path / "source.bin"
    source.write_bytes(b"source")
    cache = tmp_path / "cache"
    cache.mkdir()
    task = task_of("slow", source, pieces=1000)

    async def make() -> None:
        async with trio.open_nursery() as nursery:
            maker = Maker(cache, Threads(), nursery, makers=ALL_MAKERS, workers=1)
            try:
                await maker.piece(task, 0)  # the rest is still being made
                nursery.cancel_scope.cancel()
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True), trio.fail_after(SECONDS):
                    await maker.drain()
                maker.close()

    trio.run(make)
    assert not [path for path in (cache / "fusefs/incoming").rglob("*") if path.is_file()]
