"""Files are fetched ahead of their readers: in the order of a file, of hints, and of the last epoch."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import fusefs
from tests.lazy.asked import asked_again, assert_once
from tests.mount.datasets import Cache, entries_of, filler, md5
from tests.mount.mounts import Mount, Mounter
from tests.patience import until
from tests.servers.nginx import Nginx, nginx
from tests.servers.proxy import Faults, Proxy

pytestmark = pytest.mark.fuse
BOTH_MODES = pytest.mark.modes("fuse", "native")

LENGTH = 20_000
FILES = {f"{number % 3}/{number}.bin": filler(LENGTH, number) for number in range(60)}
DELAY = 0.005
"""Seconds to the server, each way."""
SECONDS = 60.0
FOUND_AFTER = 8
"""So many opens in an order, and the readers are taken to follow it."""


@dataclass(frozen=True, slots=True)
class Far:
    """A remote at some distance, and a cache that has the manifest alone."""

    url: str
    server: Nginx
    cache: Cache
    oid: str
    log: Path

    def mount(self, mounter: Mounter, *flags: str | Path) -> Mount:
        """Without pins, which would keep what a test removes from the cache."""
        return mounter.mount(
            self.oid, "--cache", self.cache.root, "--remote", self.url, "--no-pin", *map(str, flags)
        )

    def gets(self) -> Counter[str]:
        """How often each file was asked for, by its path."""
        self.server.await_log()
        found = re.findall(r'"GET /files/md5/(..)/(\S+) ', self.log.read_text())
        paths = {md5(data): path for path, data in FILES.items()}
        return Counter(paths[prefix + rest] for prefix, rest in found)

    def forget(self) -> None:
        """Empty the cache but for the manifest, and the server's log."""
        for data in FILES.values():
            self.cache.place(md5(data)).unlink(missing_ok=True)
        self.server.await_log()
        os.truncate(self.log, 0)


@pytest.fixture
def far(tmp_path: Path) -> Iterator[Far]:
    remote, cache = Cache(tmp_path / "remote"), Cache(tmp_path / "cache")
    for data in FILES.values():
        remote.put(data)
    oid = cache.put_manifest(entries_of(FILES, sizes=True))
    log = tmp_path / "access.log"
    with (
        nginx(tmp_path / "nginx", remote.root, extra=f"access_log {log};") as server,
        Proxy(("127.0.0.1", server.port), Faults(delay=DELAY)) as proxy,
    ):
        yield Far(proxy.url, server, cache, oid, log)


@pytest.fixture
def order() -> list[str]:
    """All paths, shuffled."""
    paths = list(FILES)
    random.Random(5).shuffle(paths)
    return paths


def settled(mount: Mount, is_so: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """What the status says of prefetching when it is so and nothing is on its way any more."""
    found: dict[str, Any] = {}

    def has_settled() -> bool:
        nonlocal found
        found = mount.status()["prefetch"]
        return not found["fetching"] and is_so(found)

    until(has_settled, lambda: f"prefetching stays at {found}")
    return found


def ahead(files: int) -> Callable[[dict[str, Any]], bool]:
    """So many wait for their readers."""
    return lambda now: now["ahead"] == files


def read(mount: Mount, paths: Sequence[str]) -> None:
    for path in paths:
        assert (mount.path / path).read_bytes() == FILES[path], path


def write_order(tmp_path: Path, paths: Sequence[str], separator: str = "\n") -> Path:
    listed = tmp_path / "order"
    listed.write_text("".join(path + separator for path in paths))
    return listed


@BOTH_MODES
@pytest.mark.parametrize("separator", ["\n", "\0"], ids=["lines", "NUL"])
def test_the_order_of_a_file(
    mounter: Mounter, far: Far, order: list[str], tmp_path: Path, separator: str
) -> None:
    listed = write_order(tmp_path, [*order[:10], "no/such file", "0", *order[10:]], separator)
    mount = far.mount(mounter, "--order", listed)
    found = settled(mount, ahead(len(order)))
    assert (found["order"], found["fetched"], found["hits"]) == ("file", len(order), 0)
    assert_once(far.gets(), order, asked_again(mount))
    read(mount, order)
    assert_once(far.gets(), order, asked_again(mount))
    settled(mount, ahead(0))
    status = mount.status()
    assert status["prefetch"] == {
        "order": "file",
        "ahead": 0,
        "fetching": 0,
        "fetched": len(order),
        "hits": len(order),
    }
    assert (status["hits"], status["misses"]) == (len(order), 0)
    assert "2 paths of --order are not in" in mount.umount()


@pytest.mark.modes("fuse")  # opens are seen a moment later in native mode
def test_no_more_is_ahead_than_a_share_of_the_budget(
    mounter: Mounter, far: Far, order: list[str], tmp_path: Path
) -> None:
    """A quarter of what the cache may hold; what is read makes room for the next."""
    share = 5
    mount = far.mount(
        mounter, "--order", write_order(tmp_path, order), "--cache-size", str(4 * share * LENGTH)
    )
    settled(mount, ahead(share))
    assert_once(far.gets(), order[:share], asked_again(mount))
    for done in range(1, len(order) + 1):
        read(mount, order[done - 1 : done])
        settled(mount, ahead(min(share, len(order) - done)))
        assert_once(far.gets(), order[: share + done], asked_again(mount))
    mount.umount()


def test_a_cache_that_takes_nothing_does_not_keep_files_from_being_ahead(
    mounter: Mounter, far: Far, order: list[str], tmp_path: Path
) -> None:
    """They wait in memory, and come once."""
    flags = ("--order", write_order(tmp_path, order), "--cache-free", "1000T")
    mount = far.mount(mounter, *flags)
    settled(mount, ahead(len(order)))
    read(mount, order)
    assert_once(far.gets(), order, asked_again(mount))
    assert not any(far.cache.place(md5(data)).exists() for data in FILES.values())
    mount.umount()


def test_what_is_here_is_not_fetched(mounter: Mounter, far: Far, order: list[str], tmp_path: Path) -> None:
    for path in order[::2]:
        far.cache.put(FILES[path])
    mount = far.mount(mounter, "--order", write_order(tmp_path, order))
    settled(mount, ahead(len(order) // 2))
    read(mount, order)
    assert_once(far.gets(), order[1::2], asked_again(mount))
    mount.umount()


@BOTH_MODES
def test_the_last_epoch_is_followed_by_the_next_mount(
    mounter: Mounter, far: Far, order: list[str], tmp_path: Path
) -> None:
    first = far.mount(mounter)
    read(first, order)
    assert first.status()["prefetch"]["order"] == "none"
    first.umount()
    far.forget()
    second = far.mount(mounter)
    read(second, order[:FOUND_AFTER])
    found = settled(second, ahead(len(order) - FOUND_AFTER))
    assert found["order"] == "trace"
    assert_once(far.gets(), order, asked_again(second))
    read(second, order[FOUND_AFTER:])
    assert_once(far.gets(), order, asked_again(second))
    second.umount()


@pytest.mark.modes("fuse")  # the kernel remembers objects that were open
def test_the_last_epoch_is_followed_by_the_next_one(mounter: Mounter, far: Far, order: list[str]) -> None:
    mount = far.mount(mounter)
    read(mount, order)
    assert settled(mount, lambda now: True)["fetched"] == 0
    mount.await_kept()
    far.forget()
    read(mount, order[:FOUND_AFTER])
    settled(mount, ahead(len(order) - FOUND_AFTER))
    assert_once(far.gets(), order, asked_again(mount))
    read(mount, order[FOUND_AFTER:])
    assert_once(far.gets(), order, asked_again(mount))
    mount.umount()


def test_a_look_at_some_files_does_not_replace_an_epoch(mounter: Mounter, far: Far, order: list[str]) -> None:
    first = far.mount(mounter)
    read(first, order)
    first.umount()
    look = far.mount(mounter)
    read(look, sorted(order)[:20])
    look.umount()
    far.forget()
    third = far.mount(mounter)
    read(third, order[:FOUND_AFTER])
    settled(third, ahead(len(order) - FOUND_AFTER))
    third.umount()


def test_a_trace_that_is_damaged_is_none(mounter: Mounter, far: Far, order: list[str]) -> None:
    first = far.mount(mounter)
    read(first, order)
    first.umount()
    (trace,) = (mounter.home / "cache/fusefs").rglob("*.trace")
    data = bytearray(trace.read_bytes())
    data[-1] ^= 1
    trace.write_bytes(data)
    far.forget()
    second = far.mount(mounter)
    read(second, order[:30])
    assert settled(second, lambda now: True)["order"] == "none"
    assert_once(far.gets(), order[:30], asked_again(second))
    assert "rror" not in second.umount()


def test_without_prefetch_nothing_is_remembered_or_fetched_ahead(
    mounter: Mounter, far: Far, order: list[str], tmp_path: Path
) -> None:
    mount = far.mount(mounter, "--no-prefetch")
    read(mount, order)
    read(mount, order)
    assert fusefs.hint(mount.path, order) == 0
    assert mount.status()["prefetch"]["order"] == "none"
    mount.umount()
    assert not list((mounter.home / "cache").rglob("*.trace"))
    said = mounter.refuse(far.oid, "--cache", far.cache.root, "--order", tmp_path / "x", "--no-prefetch")
    assert "--order" in said


@BOTH_MODES
def test_hints(mounter: Mounter, far: Far, order: list[str]) -> None:
    mount = far.mount(mounter)
    absolute = [mount.path / path for path in order[10:20]]
    assert fusefs.hint(mount.path, [*order[:10], "no/such file", "0"]) == 10
    assert fusefs.hint(os.fsencode(mount.path), absolute) == 10
    found = settled(mount, ahead(20))
    assert found["order"] == "hint"
    assert_once(far.gets(), order[:20], asked_again(mount))
    read(mount, order[:20])
    assert_once(far.gets(), order[:20], asked_again(mount))
    # A sampler that is ahead in its second epoch names files again that were read. They may be on their way
    # to their places still, and then they wait for their readers, too.
    assert fusefs.hint(mount.path, [*order[20:], *order[:5]]) == len(order) - 15
    settled(mount, lambda now: now["ahead"] >= len(order) - 20)
    read(mount, [*order[20:], *order[:5]])
    assert_once(far.gets(), order, asked_again(mount))
    mount.umount()


def test_hints_of_a_million_paths_are_taken_as_far_as_there_is_room(mounter: Mounter, far: Far) -> None:
    """More than a message holds, and more than the daemon will remember: nobody waits, nothing breaks."""
    mount = far.mount(mounter)
    names = [*FILES, *(f"no/such/{number}" for number in range(5000))]
    assert fusefs.hint(mount.path, names) == len(FILES)
    settled(mount, ahead(len(FILES)))
    mount.umount()


def test_hints_of_another_user_are_refused(mounter: Mounter, far: Far, order: list[str]) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can be somebody else")
    mount = far.mount(mounter, "--allow-other")
    code = "import sys, fusefs; print(fusefs.hint(sys.argv[1], sys.argv[2:]))"
    user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    environment = {"PYTHONPATH": str(Path(fusefs.__file__).parent.parent), "PATH": os.environ["PATH"]}
    # The control socket's name is no secret from who may read the mount: the kernel says who asks.
    name = json.loads((mount.path / ".fusefs/status").read_bytes())["control"]
    direct = (
        "import sys, fusefs.hints as hints; hints._names[sys.argv[1]] = sys.argv[2]; "
        "hints.send_hint(sys.argv[1], sys.argv[3:])"
    )
    for program, words in ((code, order[:3]), (direct, [name, *order[:3]])):
        done = subprocess.run(
            [*user, sys.executable, "-c", program, str(mount.path), *words],
            env=environment,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert done.returncode == 1
        assert "PermissionError" in done.stderr, done.stderr
    assert settled(mount, lambda now: True)["order"] == "none"
    assert not far.gets()
    mount.umount()


def test_hints_to_what_is_no_mount(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="not the mountpoint"):
        fusefs.hint(tmp_path, ["a"])


def test_readers_of_another_order_lose_nothing(
    mounter: Mounter, far: Far, order: list[str], tmp_path: Path
) -> None:
    listed = write_order(tmp_path, order[:20])
    mount = far.mount(mounter, "--order", listed)
    others = order[20:]
    read(mount, others)
    found = settled(mount, ahead(0))  # given up
    assert found["hits"] == 0
    read(mount, order[:20])
    mount.umount()


def test_a_remote_that_is_gone_costs_readers_their_own_errors_only(
    mounter: Mounter, far: Far, order: list[str], tmp_path: Path
) -> None:
    remote = far.log.parent / "remote"
    for path in order[:40]:
        Cache(remote).place(md5(FILES[path])).unlink()
    mount = far.mount(mounter, "--order", write_order(tmp_path, order))
    settled(mount, lambda now: True)
    with pytest.raises(OSError, match="Input/output"):
        (mount.path / order[0]).read_bytes()
    read(mount, order[40:])
    mount.umount()


def test_an_order_that_cannot_be_used_is_refused(mounter: Mounter, far: Far, tmp_path: Path) -> None:
    flags = (far.oid, "--cache", far.cache.root, "--order")
    assert "No such file" in mounter.refuse(*flags, tmp_path / "nothing")
    assert "Is a directory" in mounter.refuse(*flags, tmp_path)
    assert "none of its paths" in mounter.refuse(*flags, write_order(tmp_path, ["a", "../b", "/etc/passwd"]))
