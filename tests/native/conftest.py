"""Fixtures of the tests of what is particular to native mode."""

from __future__ import annotations

from tests.mount.conftest import mounter, pytest_runtest_protocol

__all__ = ["mounter", "pytest_runtest_protocol"]
