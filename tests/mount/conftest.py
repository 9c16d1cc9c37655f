"""Fixtures of the tests that mount: a mounter for one test, and one for a module that only reads."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mount.mounts import WATCH, Mounter

TEST_SECONDS = os.environ.get("FUSEFS_TEST_SECONDS", "")
SHARE = 0.75
"""Of the time that pytest gives a test: Python cannot end one that waits for a daemon."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    marker = item.get_closest_marker("timeout")
    limit = SHARE * float(marker.args[0] if marker else item.config.getini("timeout"))
    timer = threading.Timer(float(TEST_SECONDS or limit), WATCH.bark)
    timer.daemon = True
    timer.start()
    try:
        return (yield)
    finally:
        timer.cancel()


@pytest.fixture
def mounter(mode: str, tmp_path: Path) -> Iterator[Mounter]:
    """Mounts for one test."""
    with_mode = Mounter(tmp_path, mode)
    yield with_mode
    with_mode.close()


@pytest.fixture(scope="module")
def shared_mounter(mode: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mounter]:
    """Mounts that the tests of a module share, because they only read."""
    with_mode = Mounter(tmp_path_factory.mktemp("shared"), mode)
    yield with_mode
    with_mode.close()
