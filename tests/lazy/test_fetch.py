"""`fusefs fetch` brings a version, or a part of it, to where DVC looks for it."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.lazy.asked import assert_once
from tests.lazy.conftest import FILES as PUSHED_FILES
from tests.lazy.conftest import Pushed
from tests.mount.datasets import Cache, entries_of, filler, md5
from tests.mount.mounts import COMMAND, ROOT, Mounter
from tests.patience import until
from tests.revisions.projects import IDENTITY, Project, run_tool
from tests.servers.nginx import Nginx, nginx
from tests.servers.proxy import Proxy

LARGE = "large/one.bin"
FILES = {f"{number % 3}/{number}.bin": filler(20_000, number) for number in range(40)}
FILES["copy.bin"] = FILES["0/0.bin"]
FILES[LARGE] = filler(9 << 20, 99)
SECONDS = 60.0
BESIDE = 8
"""So many of one fetch may be asked for once more, because answers take long: on a busy machine any may."""


@dataclass(frozen=True, slots=True)
class Served:
    """A remote behind a web server and a proxy, and a cache that has the manifest alone."""

    server: Nginx
    proxy: Proxy
    remote: Cache
    cache: Cache
    oid: str
    log: Path

    @property
    def flags(self) -> tuple[str, ...]:
        return (self.oid, "--cache", str(self.cache.root), "--remote", self.proxy.url)

    def gets(self) -> Counter[str]:
        """How often each file was asked for; of those of one content, one."""
        self.server.await_log()
        found = re.findall(r'"GET /files/md5/(..)/(\S+) ', self.log.read_text())
        paths = {md5(data): path for path, data in reversed(FILES.items())}
        return Counter(paths[prefix + rest] for prefix, rest in found)

    def cached(self) -> set[str]:
        """The paths whose objects the cache holds, whole, as DVC has them."""
        there = set()
        for path, data in FILES.items():
            place = self.cache.place(md5(data))
            if place.exists():
                assert place.read_bytes() == data
                assert place.stat().st_mode & 0o777 == 0o444
                there.add(path)
        return there


@pytest.fixture(params=[True, False], ids=["sizes", "no sizes"])
def served(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Served]:
    remote, cache = Cache(tmp_path / "remote"), Cache(tmp_path / "cache")
    for data in FILES.values():
        remote.put(data)
    oid = cache.put_manifest(entries_of(FILES, sizes=request.param))
    log = tmp_path / "access.log"
    with (
        nginx(tmp_path / "nginx", remote.root, extra=f"access_log {log};") as server,
        Proxy(("127.0.0.1", server.port)) as proxy,
    ):
        yield Served(server, proxy, remote, cache, oid, log)


sized = pytest.mark.parametrize("served", [True], ids=["sizes"], indirect=True)


def fetch(mounter: Mounter, *words: str | Path, status: int = 0) -> dict[str, Any]:
    done = mounter.run("fetch", "--json", *words)
    assert done.returncode == status, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_all_of_a_version(mounter: Mounter, served: Served) -> None:
    done = mounter.run("fetch", *served.flags)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"fetched 41 files \(10\.2 MB\) from \S+, 0 were here; [\d.]+ s\n", done.stdout), (
        done.stdout
    )
    assert served.cached() == set(FILES)
    gets = served.gets()
    assert gets.pop(LARGE) >= 2
    assert_once(gets, set(FILES) - {LARGE, "copy.bin"}, BESIDE)
    os.truncate(served.log, 0)
    again = fetch(mounter, *served.flags)
    assert (again["fetched"], again["here"], again["failed"]) == (0, 41, 0)
    assert not served.gets()


@sized
def test_a_part(mounter: Mounter, served: Served) -> None:
    found = fetch(mounter, *served.flags, "--only", "0", "--only", "1/1*.bin", "--only", "copy.bin")
    wanted = {path for path in FILES if path.startswith(("0/", "1/1"))} | {"copy.bin"}
    assert served.cached() == wanted
    assert found["fetched"] == len(wanted) - 1
    assert_once(served.gets(), wanted - {"copy.bin"}, BESIDE)
    done = mounter.run("fetch", *served.flags, "--only", "nothing*")
    assert (done.returncode, done.stdout) == (1, "")
    assert "nothing matches 'nothing*'" in done.stderr


@sized
def test_what_cannot_be_had_is_said_by_class(mounter: Mounter, served: Served) -> None:
    for path in ("1/1.bin", "1/4.bin"):
        served.remote.remove(md5(FILES[path]))
    place = served.remote.place(md5(FILES["2/2.bin"]))
    place.chmod(0o644)
    place.write_bytes(bytes(20_000))
    done = mounter.run("fetch", *served.flags)
    assert done.returncode == 1
    assert ", 3 failed;" in done.stdout
    lines = sorted(done.stderr.splitlines())
    assert len(lines) == 2, done.stderr
    assert lines[0].startswith("fusefs: corrupt: 1 file, such as '2/2.bin'")
    assert re.match(r"fusefs: missing: 2 files, such as '1/[14]\.bin'", lines[1])
    assert served.cached() == set(FILES) - {"1/1.bin", "1/4.bin", "2/2.bin"}
    found = fetch(mounter, *served.flags, status=1)
    assert {kind: failure["files"] for kind, failure in found["failures"].items()} == {
        "corrupt": 1,
        "missing": 2,
    }


def test_a_remote_that_denies_and_no_secret_is_printed(mounter: Mounter, tmp_path: Path) -> None:
    remote, cache = Cache(tmp_path / "remote"), Cache(tmp_path / "cache")
    files = {f"{number}": b"%d" % number for number in range(9)}
    remote.put_dataset(files)
    oid = cache.put_manifest(entries_of(files))
    with nginx(tmp_path / "nginx", remote.root, login=("user", "right")) as server:
        url = f"http://user:geheim@127.0.0.1:{server.port}"
        done = mounter.run("fetch", oid, "--cache", cache.root, "--remote", url)
        assert done.returncode == 1
        assert re.match(r"fetched 0 files \(0 bytes\), 0 were here, 9 failed; ", done.stdout)
        assert done.stderr.startswith("fusefs: denied: 9 files, such as ")
        assert done.stderr.count("\n") == 1
        assert "geheim" not in done.stdout + done.stderr
        right = url.replace("geheim", "right")
        assert fetch(mounter, oid, "--cache", cache.root, "--remote", right)["fetched"] == 9


def test_without_a_remote_what_is_here_is_counted(mounter: Mounter, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    oid = cache.put_dataset({"a": b"a", "b": b"b"})
    cache.remove(md5(b"b"))
    found = fetch(mounter, oid, "--cache", cache.root, status=1)
    assert (found["fetched"], found["here"], found["failed"]) == (0, 1, 1)
    assert "no remote" in found["failures"]["missing"]["example"]


@sized
def test_a_limit_leaves_out_what_has_no_room(mounter: Mounter, served: Served) -> None:
    found = fetch(mounter, *served.flags, "--cache-size", "1M", status=1)
    assert found["fetched"] + found["failed"] == 41
    assert set(found["failures"]) == {"no room"}
    assert len(served.cached() - {"copy.bin"}) == found["fetched"]
    assert sum(len(FILES[path]) for path in served.cached() - {"copy.bin"}) <= 1 << 20


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@sized
def test_interrupted_and_resumed(mounter: Mounter, served: Served, number: int) -> None:
    """What has come stays, of large objects, too; it is not asked for again."""
    half = 4 << 20
    served.proxy.fail(stall_after=half)
    process = subprocess.Popen(
        [*COMMAND, "fetch", "--json", *served.flags],
        env=mounter.environment,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    small = {path for path in FILES if path != LARGE}
    try:
        served.proxy.wait(lambda counts: counts.stalled > 0)
        until(lambda: process.poll() is not None or served.cached() == small, "all but one have come")
        assert process.poll() is None
        process.send_signal(number)
        said, errors = process.communicate(timeout=SECONDS)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 128 + number
    assert "Traceback" not in errors
    found = json.loads(said)
    assert (found["fetched"], found["interrupted"]) == (40, True)
    assert served.cached() == small
    served.proxy.fail()
    before = served.proxy.counts.bytes_down
    again = fetch(mounter, *served.flags)
    assert (again["fetched"], again["here"]) == (1, 40)
    assert served.cached() == set(FILES)
    assert served.proxy.counts.bytes_down - before < len(FILES[LARGE])


@sized
def test_on_a_terminal_there_is_a_bar(mounter: Mounter, served: Served) -> None:
    served.proxy.fail(delay=0.02)
    terminal, end = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, "fetch", "--jobs", "2", *served.flags],
        env=mounter.environment | {"TERM": "xterm", "COLUMNS": "100"},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=end,
        text=True,
    )
    os.close(end)
    shown = b""
    try:
        while select.select([terminal], [], [], SECONDS)[0]:
            try:
                shown += os.read(terminal, 1 << 16)
            except OSError:  # the other end is closed
                break
        said, _ = process.communicate(timeout=SECONDS)
    finally:
        process.kill()
        process.wait()
        os.close(terminal)
    assert process.returncode == 0
    assert said.startswith("fetched 41 files")
    assert re.search(rb"\d+/41 files", shown)
    assert b"MB/s" in shown or b"kB/s" in shown


def test_dvc_finds_what_was_fetched(mounter: Mounter, pushed: Pushed, project: Project) -> None:
    """All of a project, the manifest too; then the remote is gone, and `dvc checkout` needs none."""
    done = mounter.run("fetch", ".@HEAD", cwd=pushed.root)
    assert (done.returncode, done.stderr) == (0, "")
    pushed.remote.rename(pushed.remote.with_name("away"))
    run_tool("dvc", "checkout", "--quiet", cwd=pushed.root, environment={**mounter.environment, **IDENTITY})
    for path, data in PUSHED_FILES.items():
        assert (pushed.root / "data" / path).read_bytes() == data
    status = run_tool(
        "dvc", "status", "--json", cwd=pushed.root, environment={**mounter.environment, **IDENTITY}
    )
    assert json.loads(status) == {}
    assert project.root == pushed.root


def test_a_manifest_comes_again(mounter: Mounter, pushed: Pushed) -> None:
    """A version that was opened before does without it, but DVC does not."""
    for _ in range(2):
        shutil.rmtree(pushed.cache, ignore_errors=True)
        assert mounter.run("fetch", "data", cwd=pushed.root).returncode == 0
        assert pushed.object(pushed.cache, pushed.oid).exists()
    pushed.object(pushed.remote, pushed.oid).unlink()
    pushed.object(pushed.cache, pushed.oid).unlink()
    done = mounter.run("fetch", "data", cwd=pushed.root)
    assert done.returncode == 1 and pushed.oid in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("target", ["data", "data@HEAD"])
def test_a_new_cache_is_shared_with_the_group(mounter: Mounter, pushed: Pushed, target: str) -> None:
    """As DVC would have made it: `cache.shared` says so."""
    pushed.configure("[cache]\nshared = group\n", "config.local")
    assert not pushed.cache.exists()
    done = mounter.run("fetch", target, cwd=pushed.root)
    assert done.returncode == 0, done.stderr
    made = [pushed.cache, *(path for path in pushed.cache.rglob("*") if path.is_dir())]
    assert len(made) > 3
    assert {path.stat().st_mode & 0o7777 for path in made} == {0o2775}
