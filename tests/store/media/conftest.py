"""The videos that tests of media share, each made once in a session."""

from __future__ import annotations

import pytest

from tests.store.media.videos import Videos


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Videos:
    return Videos(tmp_path_factory.mktemp("videos"))
