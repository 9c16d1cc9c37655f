"""Without a network: what is here works, what is not says so, and the status tells how remotes are."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from store.metrics import LABEL_LENGTH
from tests.lazy.test_fetching import failure, until
from tests.mount.datasets import Cache, entries_of, filler, md5
from tests.mount.mounts import Mount, Mounter
from tests.servers.nginx import Nginx, nginx
from tests.servers.proxy import Proxy

FILES = {"here": b"it is here", "gone": b"it is not", "below/large": filler(5 << 20, 1)}


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    made = Cache(tmp_path / "cache")
    made.put(FILES["here"])
    return made


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Nginx]:
    remote = Cache(tmp_path / "remote")
    for data in FILES.values():
        remote.put(data)
    with nginx(tmp_path / "nginx", remote.root, extra=f"access_log {tmp_path}/log;") as server:
        yield server


def mounted(mounter: Mounter, cache: Cache, *flags: str | Path, sizes: bool = True) -> Mount:
    oid = cache.put_manifest(entries_of(FILES, sizes=sizes))
    return mounter.mount(oid, "--cache", cache.root, *flags)


def names_in(mount: Mount) -> set[str]:
    return {path.name for path in mount.path.iterdir()}


def remotes_of(mount: Mount) -> dict[str, dict[str, Any]]:
    return {one["name"]: one for one in mount.status()["remotes"]}


@pytest.mark.parametrize("sizes", [True, False])
def test_offline_asks_no_host(
    mounter: Mounter, cache: Cache, server: Nginx, tmp_path: Path, sizes: bool
) -> None:
    mount = mounted(mounter, cache, "--remote", server.url, "--offline", sizes=sizes)
    assert names_in(mount) == {"below", "gone", "here"}
    assert (mount.path / "here").read_bytes() == FILES["here"]
    for name in ("gone", "below/large"):
        assert failure(mount.path / name) == errno.ENETUNREACH
    status = mount.status()
    assert status["offline"] is True
    assert [(one["name"], one["state"]) for one in status["remotes"]] == [(server.url, "not asked")]
    said = mounter.run("status", mount.path).stdout
    assert "not asked" in said and "offline" in said
    lines = [line for line in mount.umount().splitlines() if "offline" in line]
    for name in ("gone", "below/large"):
        assert any(f"'{name}'" in line and md5(FILES[name]) in line for line in lines)
    server.await_log()
    assert "files/md5" not in (tmp_path / "log").read_text()


def test_offline_directories_are_asked(mounter: Mounter, cache: Cache, server: Nginx) -> None:
    mount = mounted(mounter, cache, "--remote", server.url, "--remote", server.root, "--offline")
    for name, data in FILES.items():
        assert (mount.path / name).read_bytes() == data
    remotes = remotes_of(mount)
    assert remotes[server.url]["state"] == "not asked"
    near = remotes[str(server.root)[:LABEL_LENGTH]]
    assert (near["state"], near["objects"]) == ("ok", 1)
    assert near["bytes"] == len(FILES["gone"]) + len(FILES["below/large"])
    mount.umount()


def test_a_dead_network_does_not_keep_what_is_here(mounter: Mounter, cache: Cache, server: Nginx) -> None:
    with Proxy(("127.0.0.1", server.port)) as proxy:
        mount = mounted(mounter, cache, "--remote", proxy.url)
        assert remotes_of(mount)[proxy.url]["state"] == "ok"
        proxy.fail(stall_after=0)
        with ThreadPoolExecutor(1) as pool:
            reading = pool.submit((mount.path / "gone").read_bytes)
            until(lambda: proxy.counts.stalled)
            assert names_in(mount) == {"below", "gone", "here"}
            assert (mount.path / "here").read_bytes() == FILES["here"]
            assert (mount.path / "below/large").stat().st_size == 5 << 20
            assert not reading.done()
            proxy.fail()
            assert reading.result(60) == FILES["gone"]
        mount.umount()


def test_the_status_tells_how_remotes_are_doing(
    mounter: Mounter, cache: Cache, server: Nginx, tmp_path: Path
) -> None:
    with nginx(tmp_path / "closed", server.root, login=("ann", "secret")) as closed:
        mount = mounted(mounter, cache, "--remote", closed.url, "--remote", server.url)
        assert (mount.path / "gone").read_bytes() == FILES["gone"]
        remotes = remotes_of(mount)
        assert list(remotes) == [closed.url, server.url]  # in their order
        assert remotes[closed.url]["state"] == "denied" and remotes[closed.url]["reason"]
        assert remotes[closed.url]["objects"] == remotes[closed.url]["bytes"] == 0
        well = {"state": "ok", "reason": "", "objects": 1, "bytes": len(FILES["gone"])}
        assert remotes[server.url] == {"name": server.url, **well}
        Cache(server.root).remove(md5(FILES["below/large"]))
        assert failure(mount.path / "below/large") == errno.EACCES
        said = mounter.run("status", mount.path).stdout
        assert f"{closed.url}: denied" in said and f"{server.url}: ok, 1 objects, 9 B" in said
        assert "large objects verified when they are whole" in said
        log = mount.umount()
    assert "secret" not in log + said
    each = f"{closed.url}: .* does not let us read .*; {server.url}: .* has no "
    assert re.search(f"ERROR .*'below/large': object {md5(FILES['below/large'])} .*{each}", log), log


def test_one_that_rests_is_said_to(mounter: Mounter, cache: Cache, server: Nginx) -> None:
    with Proxy(("127.0.0.1", server.port)) as proxy:
        mount = mounted(mounter, cache, "--remote", proxy.url, "--remote", server.url)
        proxy.fail(refuse=True)
        for name in ("gone", "below/large"):
            assert (mount.path / name).read_bytes() == FILES[name]
        assert remotes_of(mount)[proxy.url]["state"] in ("failing", "resting")
        mount.umount()
