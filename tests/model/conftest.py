"""The fixtures of the tests that mount: the model is run on real mounts."""

from tests.mount.conftest import mounter, pytest_runtest_protocol

__all__ = ["mounter", "pytest_runtest_protocol"]
