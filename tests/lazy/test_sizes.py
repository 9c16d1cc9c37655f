"""Listings of files that are not here show their sizes, without a byte of theirs; nothing is asked twice."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from store.learnt_sizes import kept_path, read_kept, take_stamps
from store.tree import Tree
from tests.mount.datasets import Cache, entries_of
from tests.mount.mounts import Mount, Mounter
from tests.servers.nginx import Nginx, nginx
from tests.servers.proxy import Faults, Proxy

FILES = {f"{'ab'[n % 2]}/{n}.bin": b"x" * (n * 37) + b"%d" % n for n in range(60)}
SECONDS = 60.0


class Server:
    """A web server with a version's objects, and what it was asked for."""

    def __init__(self, server: Nginx, log: Path, oid: str) -> None:
        self.server = server
        self.oid = oid
        self._log = log

    def asked(self) -> set[str]:
        """The methods of all requests since the last time, but for manifests, and for content directories,
        which are asked for as long as not all sizes are known."""
        self.server.await_log()
        lines = self._log.read_text().splitlines()
        os.truncate(self._log, 0)
        requests = [re.findall(r'"([A-Z]+) (\S+) ', line)[0] for line in lines]
        others = [(method, path) for method, path in requests if not path.startswith("/contents/")]
        return {method for method, path in others if not path.endswith(".dir")}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    remote = tmp_path / "remote"
    oid = Cache(remote).put_dataset(FILES)
    log = tmp_path / "access.log"
    with nginx(tmp_path / "nginx", remote, extra=f"access_log {log};") as running:
        yield Server(running, log, oid)


def sizes(mount: Mount) -> dict[str, int]:
    """As `find` prints them."""
    done = subprocess.run(
        ["find", ".", "-type", "f", "-path", "./[ab]/*", "-printf", "%P %s\n"],
        cwd=mount.path,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=True,
    )
    pairs = (line.split(" ") for line in done.stdout.splitlines())
    return {path: int(size) for path, size in pairs}


RIGHT = {path: len(data) for path, data in FILES.items()}


def test_a_web_server_is_asked_for_headers_and_only_once(mounter: Mounter, server: Server) -> None:
    flags = ("--cache", mounter.home / "cache", "--remote", server.server.url)
    mount = mounter.mount(server.oid, *flags)
    assert sizes(mount) == RIGHT
    assert server.asked() <= {"HEAD", "OPTIONS"}
    assert mount.status()["bytes_remote"] == 0
    mount.umount()
    server.asked()
    mount = mounter.mount(server.oid, *flags)
    assert sizes(mount) == RIGHT
    assert mount.status()["bytes"] == sum(RIGHT.values())
    mount.umount()
    assert server.asked() == set()


def test_another_cache_asks_nothing_either(mounter: Mounter, server: Server) -> None:
    """What an oid's size is does not depend on who asks: another dataset may have it, too."""
    first = mounter.mount(server.oid, "--cache", mounter.home / "one", "--remote", server.server.url)
    assert sizes(first) == RIGHT
    first.umount()
    server.asked()
    for kept in (mounter.home / "cache/fusefs").rglob("*.sizes"):
        kept.unlink()
    second = mounter.mount(server.oid, "--cache", mounter.home / "two", "--remote", server.server.url)
    assert sizes(second) == RIGHT
    assert server.asked() == set()


def test_a_directory_tells_without_a_byte_being_read(mounter: Mounter, tmp_path: Path) -> None:
    remote, cache = tmp_path / "remote", tmp_path / "empty"
    oid = Cache(remote).put_dataset(FILES)
    mount = mounter.mount(oid, "--cache", cache, "--remote", remote)
    assert sizes(mount) == RIGHT
    empty = subprocess.run(
        ["find", mount.path / "a", "-type", "f", "-size", "-1c"],
        capture_output=True,
        timeout=SECONDS,
        check=True,
    )
    assert empty.stdout == b""
    assert mount.status()["bytes_remote"] == 0
    mount.umount()
    objects = [path for path in (cache / "files").rglob("*") if path.is_file()]
    assert [path.suffix for path in objects] == [".dir"]


def test_who_asks_a_remote_that_stalls_gets_an_error_and_names_are_there_at_once(
    mounter: Mounter, server: Server, tmp_path: Path
) -> None:
    cache = Cache(tmp_path / "cache")
    cache.put_manifest(entries_of(FILES))
    with Proxy(("127.0.0.1", server.server.port), Faults(stall_after=0)) as proxy:
        mount = mounter.mount(server.oid, "--cache", cache.root, "--remote", proxy.url)
        answers: list[int | None] = []

        def ask() -> None:
            try:
                (mount.path / "a" / "0.bin").stat()
                answers.append(None)
            except OSError as error:
                answers.append(error.errno)

        asking = threading.Thread(target=ask)
        asking.start()
        names = {path.name for path in (mount.path / "b").iterdir()}
        assert names == {path.partition("/")[2] for path in FILES if path.startswith("b/")}
        assert asking.is_alive()
        asking.join(SECONDS)
        assert answers == [errno.ETIMEDOUT]
        mount.umount()


def test_what_is_cached_is_known_to_the_next_mount_without_a_look_at_it(
    mounter: Mounter, tmp_path: Path
) -> None:
    cache = Cache(tmp_path / "cache")
    mount = mounter.mount(cache.put_dataset(FILES), "--cache", cache.root)
    assert sizes(mount) == RIGHT
    mount.umount()
    (compiled,) = (mounter.home / "cache").rglob("*.tree")
    tree = Tree.open(compiled)
    kept = read_kept(kept_path(compiled), tree, take_stamps([cache.root]))
    assert kept is not None
    assert (kept.unknown, kept.bytes_known) == (0, sum(RIGHT.values()))
