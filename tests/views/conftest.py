"""The fixtures of the tests that mount views: mounters, a project with versions, and videos."""

from __future__ import annotations

import pytest

from tests.mount.conftest import mounter, pytest_runtest_protocol, shared_mounter
from tests.mount.mounts import Mounter
from tests.revisions.projects import Project, new_project
from tests.store.media.conftest import videos

__all__ = ["mounter", "pytest_runtest_protocol", "shared_mounter", "videos"]


@pytest.fixture
def project(mounter: Mounter) -> Project:
    """An empty repository of git and DVC."""
    return new_project(mounter.home / "project", mounter.environment)
