"""The engine's maker: begun when it is first asked for, and within the cache's limits."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest
import trio

from store.budget import Limits
from store.engine import Settings, open_engine
from store.keeping import keeper
from store.making import open_products
from store.media.recipe import parse_frames
from store.remotes.remote import Remote
from store.remotes.spec import RemoteSpec
from tests.store.making.origins import SECONDS, FileOrigin
from tests.store.media.videos import Videos


def no_remotes(spec: RemoteSpec) -> Remote:
    raise AssertionError(spec)


def settings(tmp_path: Path, limits: Limits) -> Settings:
    return Settings((tmp_path / "cache",), tmp_path / "blobs", tmp_path / "own", limits)


def kept_bytes(tmp_path: Path) -> int:
    """What the products take on the disk, while some of them may be evicted."""
    total = 0
    for directory, _, names in os.walk(tmp_path / "cache" / "fusefs" / "derived"):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += 512 * (Path(directory) / name).stat().st_blocks
    return total


def test_an_engine_that_makes_nothing_starts_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        async with open_engine(settings(tmp_path, Limits()), no_remotes):
            pass

    trio.run(main)
    assert not (tmp_path / "cache").exists()


def test_products_are_kept_within_the_limits_of_the_cache(
    tmp_path: Path, videos: Videos, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every recipe's frames are twice as large as the cache may be; old ones give way."""
    monkeypatch.setattr(keeper, "FLUSH_SECONDS", 0.05)
    monkeypatch.setattr(keeper, "DRY_SECONDS", 0.05)
    monkeypatch.setattr(open_products, "OPEN_SECONDS", 0.05)
    limit = 2 << 20

    async def main() -> None:
        with trio.fail_after(SECONDS):
            async with open_engine(settings(tmp_path, Limits(size=limit)), no_remotes) as engine:
                origin = FileOrigin(videos.path("constant"))
                for recipe in ("npy", "bmp", "npy,scale=120x70", "bmp,scale=120x70"):
                    chunks = await engine.maker.frames(origin, parse_frames(recipe))
                    for place in range(len(chunks.frames)):
                        chunk, piece = chunks.find(place)
                        task = chunks.task(chunk)
                        assert task is not None
                        assert len(await engine.maker.piece(task, piece)) > 10_000
                while kept_bytes(tmp_path) > limit:
                    await trio.sleep(0.05)

    trio.run(main)
