"""Workers that find the makers of the tests, and videos for them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.store.media.videos import Videos

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def _makers_of_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Videos:
    return Videos(tmp_path_factory.mktemp("videos"))
