"""Fixtures of the tests of what outlives a daemon."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.mount.conftest import mounter, pytest_runtest_protocol
from tests.mount.mounts import Mount, Mounter
from tests.patience import until
from tests.revisions.projects import Project, new_project

__all__ = ["mounter", "pytest_runtest_protocol"]

SECONDS = 60.0


class Remote(ThreadingHTTPServer):
    """Serves the files of a directory, when it is let."""

    daemon_threads = True
    request_queue_size = 256
    """Five, as the standard library has it, are too few for a crowd: the kernel drops the connections of all
    others, and who wants one tries again after 1, 3, 7, 15 and 31 seconds."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.asked: list[str] = []
        self.open = threading.Event()
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Remote)
        self.server.asked.append(self.path)
        self.server.open.wait(SECONDS)
        data = Path(self.server.root, self.path.removeprefix("/")).read_bytes()
        try:
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
        except OSError:
            pass  # who asked was killed

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def remote(tmp_path: Path) -> Iterator[Remote]:
    """A remote that is closed as yet."""
    root = tmp_path / "remote"
    root.mkdir()
    with Remote(root) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.open.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def project(mounter: Mounter) -> Project:
    """An empty repository of git and DVC."""
    return new_project(mounter.home / "project", mounter.environment)


def kill(mount: Mount) -> dict[str, Any]:
    """Kill a mount's daemon, and let another one go on; the mount's status after it."""
    before = mount.status()
    os.kill(before["pid"], signal.SIGKILL)
    until(lambda: mount.status()["pid"] != before["pid"])
    after = mount.status()
    assert after["restarts"] == before["restarts"] + 1
    assert after["supervisor"] == before["supervisor"]
    return after
