"""Mounts read the logs of remotes: who has what, and how long it is, without a request; a lie costs one."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from store.oplog.copies import LogCopies
from store.oplog.identities import remote_key
from store.oplog.logs import Log, LogName, Record, write_log
from store.remotes.spec import RemoteSpec
from tests.lazy.conftest import FILES, Pushed
from tests.mount.mounts import Mount, Mounter
from tests.patience import until
from tests.servers.nginx import Nginx, nginx

RIGHT = {path: len(data) for path, data in FILES.items()}


class Server:
    """Two WebDAV remotes on a server, and what they were asked."""

    def __init__(self, nginx: Nginx, log: Path) -> None:
        self.far = f"webdav://127.0.0.1:{nginx.port}/far"
        self.empty = f"webdav://127.0.0.1:{nginx.port}/empty"
        self._nginx = nginx
        self._log = log

    def asked(self) -> list[tuple[str, str]]:
        """The methods and paths of all requests since the last time."""
        self._nginx.await_log()
        lines = self._log.read_text().splitlines()
        os.truncate(self._log, 0)
        return [re.findall(r'"([A-Z]+) (\S+) ', line)[0] for line in lines]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "served/far").mkdir(parents=True)
    (tmp_path / "served/empty").mkdir()
    log = tmp_path / "access.log"
    with nginx(tmp_path / "nginx", tmp_path / "served", webdav=True, extra=f"access_log {log};") as running:
        yield Server(running, log)


@pytest.fixture
def cache(pushed: Pushed, mounter: Mounter, server: Server) -> Path:
    """A cache with the manifest and the logs of a push, and no objects."""
    shutil.move(pushed.remote / "files", pushed.cache / "files")
    done = mounter.run("push", "data", "--remote", server.far, cwd=pushed.root)
    assert done.returncode == 0, done.stderr
    for data in FILES.values():
        pushed.object(pushed.cache, md5(data)).unlink()
    server.asked()
    return pushed.cache


def md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def sizes(mount: Mount) -> dict[str, int]:
    return {path: (mount.path / path).stat().st_size for path in FILES}


def test_sizes_come_from_logs(pushed: Pushed, mounter: Mounter, server: Server, cache: Path) -> None:
    mount = mounter.mount(pushed.oid, "--cache", cache, "--remote", server.far)
    assert sizes(mount) == RIGHT
    assert mount.status()["bytes"] == sum(RIGHT.values())
    mount.umount()
    assert server.asked() == []


def test_where_costs_no_request(pushed: Pushed, mounter: Mounter, server: Server, cache: Path) -> None:
    pushed.configure(f"[core]\nremote = far\n['remote \"far\"']\nurl = {server.far}\n")
    for data in FILES.values():
        done = mounter.run("remote", "where", md5(data), "--cache", cache, cwd=pushed.root)
        assert done.stdout == f"far  {md5(data)}  {len(data)} bytes\n"
    assert mounter.run("remote", "log", "far", "--offline", cwd=pushed.root).returncode == 0
    assert server.asked() == []


def test_a_machine_that_knows_nothing_reads_the_logs(
    pushed: Pushed, mounter: Mounter, server: Server, cache: Path, tmp_path: Path
) -> None:
    """In the background; from then on whoever uses the cache knows."""
    fresh = tmp_path / "fresh"
    mount = mounter.mount(pushed.oid, "--cache", fresh, "--remote", server.far)
    key = remote_key(RemoteSpec("far", server.far))
    until(lambda: LogCopies(fresh).open(key) is not None, "the log is copied")
    mount.umount()
    compiled = LogCopies(fresh).open(key)
    assert compiled is not None and compiled.summary.objects == len(FILES) + 1


def test_who_has_it_is_asked_first(pushed: Pushed, mounter: Mounter, server: Server, cache: Path) -> None:
    remotes = ("--remote", server.empty, "--remote", server.far)
    mount = mounter.mount(pushed.oid, "--cache", cache, *remotes)
    assert {path: (mount.path / path).read_bytes() for path in FILES} == FILES
    mount.umount()
    objects = [path for _, path in server.asked() if "/files/" in path]
    assert objects and all(path.startswith("/far/") for path in objects)


@pytest.fixture
def lying(server: Server, cache: Path) -> tuple[str, ...]:
    """Options for remotes one of which has logs that say that it has everything, which is not so, and that
    all is longer, or shorter, than it is."""
    records = []
    for number, data in enumerate(FILES.values()):
        digest = md5(data)
        size = len(data) + 3 if number % 2 else max(len(data) - 3, 0)
        records.append(Record("PUT", f"files/md5/{digest[:2]}/{digest[2:]}", f"md5:{digest}", size))
    copies = LogCopies(cache)
    for key in copies.remotes():
        shutil.rmtree(cache / "fusefs/logs" / key)
    empty = remote_key(RemoteSpec("empty", server.empty))
    name = LogName("end", "1" * 32, "2" * 16, "3" * 32)
    copies.add(empty, str(name), write_log(Log(name, (), records)))
    assert copies.compile(empty) is not None
    return ("--cache", str(cache), "--remote", server.far, "--remote", server.empty)


def test_a_log_that_lies_costs_a_request(pushed: Pushed, mounter: Mounter, lying: tuple[str, ...]) -> None:
    mount = mounter.mount(pushed.oid, *lying)
    assert {path: (mount.path / path).read_bytes() for path in FILES} == FILES
    assert sizes(mount) == RIGHT
    mount.umount()


def test_who_fetches_is_told_no_lies_either(pushed: Pushed, mounter: Mounter, lying: tuple[str, ...]) -> None:
    done = mounter.run("fetch", pushed.oid, *lying)
    assert (done.returncode, done.stderr) == (0, "")
    for data in FILES.values():
        assert pushed.object(pushed.cache, md5(data)).read_bytes() == data
