"""A project with versions, and places to restore to."""

from tests.mount.conftest import mounter, pytest_runtest_protocol

__all__ = ["mounter", "pytest_runtest_protocol"]
