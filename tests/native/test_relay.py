"""What is agreed upon with the kernel: many look-ups in one directory at a time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count, islice
from pathlib import Path
from typing import ClassVar

import pytest

from tests.mount.datasets import Cache, md5
from tests.mount.mounts import Mounter

pytestmark = pytest.mark.fuse

AT_ONCE = 64
SECONDS = 30.0
PREFIX = "5a"


def _alike() -> Iterator[bytes]:
    """Contents whose objects lie in one directory of a cache."""
    for number in count():
        data = b"number %d" % number
        if md5(data).startswith(PREFIX):
            yield data


FILES = {f"one directory/{number}": data for number, data in enumerate(islice(_alike(), AT_ONCE))}


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = AT_ONCE  # or connections are dropped, and tried again seconds later


class Gate(BaseHTTPRequestHandler):
    """Serves nobody before `AT_ONCE` objects have been asked for."""

    asked: ClassVar[set[str]] = set()
    changed = threading.Condition()
    root = Path()

    def do_GET(self) -> None:
        with self.changed:
            self.asked.add(self.path)
            self.changed.notify_all()
            all_here = self.changed.wait_for(lambda: len(self.asked) >= AT_ONCE, SECONDS)
        data = Path(self.root, self.path.removeprefix("/")).read_bytes()
        self.send_response(200 if all_here else 503)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[str]:
    """A remote that has the files' objects; its URL."""
    remote = Cache(tmp_path / "remote")
    for data in FILES.values():
        remote.put(data)
    Gate.root = remote.root
    Gate.asked = set()
    with Server(("127.0.0.1", 0), Gate) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.mark.modes("fuse", "native")
def test_misses_in_one_directory_are_fetched_at_a_time(mounter: Mounter, gate: str) -> None:
    cache = Cache(mounter.home / "objects")
    oid = cache.put_dataset(FILES, sizes=True)
    for data in FILES.values():
        cache.remove(md5(data))
    mount = mounter.mount(oid, "--cache", cache.root, "--remote", gate, "--no-prefetch").path
    with ThreadPoolExecutor(AT_ONCE) as readers:
        read = list(readers.map(lambda path: (mount / path).read_bytes(), FILES))
    assert read == list(FILES.values())
