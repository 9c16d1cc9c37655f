"""`fusefs switch`: a live mount moves to another version, and nobody who reads it is disturbed."""

from __future__ import annotations

import json
import mmap
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trio

from fusefs.control_socket import ask, listen, new_name, serve_control
from tests.mount.datasets import filler, tree_of
from tests.mount.mounts import Mount, Mounter
from tests.patience import until
from tests.revisions.projects import Project

pytestmark = pytest.mark.fuse
BOTH_MODES = pytest.mark.modes("fuse", "native")

BIG = 300_000
ONE = {
    "same": b"the same\n",
    "changed": b"one\n",
    "big": filler(BIG, 1),
    "only one": b"1",
    "sub/changed": b"sub one\n",
    "sub/deep/changed": b"deep one\n",
    "becomes a directory": b"file",
    **{f"many/{number}": b"many one %d" % number for number in range(50)},
}
TWO = {
    "same": b"the same\n",
    "changed": b"two, longer\n",
    "big": filler(BIG, 2),
    "only two": b"2",
    "sub/changed": b"sub two\n",
    "sub/deep/changed": b"deep two\n",
    "becomes a directory/file": b"now",
    **{f"many/{number}": b"many two %d" % number for number in range(10, 60)},
}
VERSIONS = {"v1": ONE, "v2": TWO}
SWITCHES = 30
WAIT_SECONDS = 60.0


@pytest.fixture
def versions(project: Project) -> Project:
    for tag, files in VERSIONS.items():
        project.track("data", files)
        project.commit(tag)
    return project


OLDER_KERNEL = """
import os, sys
if "fusefs.supervisor" in sys.orig_argv:
    from fusefs import kernel_caches
    kernel_caches._INC_EPOCH = 0x7FFF  # no kernel knows such a notification
    told = kernel_caches.pyfuse3.invalidate_entry
    def invalidate_entry(parent, name):
        os.close(os.open(os.environ["TOLD_NAMES"], os.O_CREAT | os.O_WRONLY, 0o600))
        told(parent, name)
    kernel_caches.pyfuse3.invalidate_entry = invalidate_entry
"""
"""For daemons: as if the kernel had to be told each name."""

BOTH_KERNELS = pytest.mark.parametrize("kernel", ["newer", "older"], indirect=True)


@dataclass
class OlderMounter(Mounter):
    """Starts daemons that take the kernel for one of before 6.16."""

    @property
    def environment(self) -> dict[str, str]:
        inherited = super().environment
        path = f"{self.home / 'older'}{os.pathsep}{inherited['PYTHONPATH']}"
        return {**inherited, "PYTHONPATH": path, "TOLD_NAMES": str(self.home / "told")}


@pytest.fixture
def kernel(request: pytest.FixtureRequest) -> str:
    return str(getattr(request, "param", "newer"))


@pytest.fixture
def mount(mounter: Mounter, versions: Project, kernel: str) -> Iterator[Mount]:
    """The first version."""
    if kernel == "newer":
        yield mounter.mount("data@v1", cwd=versions.root)
        return
    if mounter.mode != "fuse":
        pytest.skip("in native mode no kernel is told of names")
    older = OlderMounter(mounter.home, mounter.mode)
    (older.home / "older").mkdir()
    (older.home / "older" / "sitecustomize.py").write_text(OLDER_KERNEL)
    yield older.mount("data@v1", cwd=versions.root)
    older.close()
    assert (older.home / "told").exists()


@pytest.fixture
def switch(mounter: Mounter, mount: Mount) -> Callable[[str], None]:
    """Switches as the command does, without starting one each time."""
    socket = mount.status()["control"]

    def switch(rev: str) -> None:
        answer = ask(socket, {"switch": rev})
        assert "error" not in answer, answer

    return switch


def test_the_command(mounter: Mounter, mount: Mount, versions: Project) -> None:
    done = mounter.run("switch", mount.path, "v2")
    assert done.returncode == 0, done.stderr
    commit = versions.head
    assert done.stdout == f"{mount.path} shows v2 (commit {commit[:10]}), {len(TWO)} files\n"
    assert tree_of(mount.path) == TWO
    status = mount.status()
    assert (status["rev"], status["files"], status["target"]) == (commit, len(TWO), "data@v1")
    assert status["oid"] == os.getxattr(mount.path, "user.fusefs.oid").decode()
    shown = json.loads(mounter.run("status", mount.path, "--json").stdout)
    assert shown["rev"] == commit
    done = mounter.run("switch", "--json", mount.path, "v1")
    first = versions.git("rev-parse", "v1").strip()
    answer = json.loads(done.stdout)
    assert (answer["rev"], answer["files"]) == (first, len(ONE))
    assert tree_of(mount.path) == ONE
    assert os.getxattr(mount.path / "same", "user.fusefs.rev") == first.encode()
    assert "Traceback" not in mount.umount()


@BOTH_MODES
@BOTH_KERNELS
def test_what_is_open_keeps_its_bytes(mount: Mount, switch: Callable[[str], None]) -> None:
    """Files, mappings, directories, and a working directory."""
    root = mount.path
    files = {path: os.open(root / path, os.O_RDONLY) for path in ONE}
    with open(root / "big", "rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    listed = os.open(root / "many", os.O_RDONLY | os.O_DIRECTORY)
    below = os.open(root / "sub", os.O_RDONLY | os.O_DIRECTORY)
    with subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import os, sys\nfor path in sys.stdin: print(open(path.strip()).read(), end='')",
        ],
        cwd=root / "sub",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as worker:
        switch("v2")
        told, _ = worker.communicate("changed\ndeep/changed\n../sub/changed\n", timeout=WAIT_SECONDS)
    assert told.startswith("sub one\ndeep one\nsub ")
    assert tree_of(root) == TWO
    for path, descriptor in files.items():
        assert os.pread(descriptor, BIG + 1, 0) == ONE[path]
        assert os.fstat(descriptor).st_size == len(ONE[path])
        os.close(descriptor)
    assert mapped[:] == ONE["big"]
    mapped.close()
    assert sorted(os.listdir(listed)) == sorted(str(number) for number in range(50))
    descriptor = os.open("changed", os.O_RDONLY, dir_fd=below)
    assert os.read(descriptor, 100) == b"sub one\n"
    os.close(descriptor)
    descriptor = os.open("deep/changed", os.O_RDONLY, dir_fd=below)
    assert os.read(descriptor, 100) == b"deep one\n"
    os.close(descriptor)
    os.close(listed)
    os.close(below)


@BOTH_KERNELS
def test_a_listing_that_was_begun_goes_on(mount: Mount, switch: Callable[[str], None]) -> None:
    """Read in small steps across a switch, a directory is the old one, the root as well."""
    with os.scandir(mount.path) as root, os.scandir(mount.path / "many") as many:
        names, first = {next(root).name}, next(many).name
        switch("v2")
        names |= {entry.name for entry in root}
        assert {first} | {entry.name for entry in many} == {str(number) for number in range(50)}
    assert names == {path.partition("/")[0] for path in ONE}
    # And it leaves nothing behind of what it listed.
    assert tree_of(mount.path) == TWO
    assert sorted(os.listdir(mount.path)) == sorted({path.partition("/")[0] for path in TWO})


@BOTH_MODES
@BOTH_KERNELS
def test_there_and_back(mount: Mount, switch: Callable[[str], None], mode: str) -> None:
    """A version's inodes are the same when it comes again, and those of others are not.

    In native mode those of directories are new, since a directory of an overlay has one place.
    """

    def inodes() -> dict[str, int]:
        found = {}
        for here, directories, names in os.walk(mount.path):
            for name in [*directories, *names] if mode == "fuse" else names:
                place = Path(here, name)
                found[str(place.relative_to(mount.path))] = place.stat().st_ino
        return found

    one = inodes()
    switch("v2")
    two = inodes()
    assert not set(one.values()) & set(two.values())
    switch("v1")
    assert inodes() == one
    switch("v1")
    assert inodes() == one
    switch("HEAD")
    assert inodes() == two


@pytest.mark.modes("native")
def test_a_former_root_has_views_of_its_own(mount: Mount, switch: Callable[[str], None]) -> None:
    """Whoever works in it sees them of the version that is there."""
    former = os.open(mount.path, os.O_RDONLY | os.O_DIRECTORY)
    switch("v2")
    for root, files in ((former, ONE), (os.open(mount.path, os.O_RDONLY | os.O_DIRECTORY), TWO)):
        shard = os.open(".fusefs/shards/1000/000000.tar", os.O_RDONLY, dir_fd=root)
        with open(shard, "rb") as file, tarfile.open(fileobj=file) as archive:
            assert set(archive.getnames()) == set(files)
        os.close(root)


@dataclass
class Readers:
    """Threads that read without a pause, and what they found wrong."""

    root: Path
    faults: list[str] = field(default_factory=list)
    rounds: list[int] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)
    threads: list[threading.Thread] = field(default_factory=list)

    def start(self, read: Callable[[], str]) -> None:
        """Call `read` again and again; it says what is wrong."""
        place = len(self.rounds)
        self.rounds.append(0)

        def go_on() -> None:
            while not self.stop.is_set():
                try:
                    fault = read()
                except OSError as error:
                    fault = repr(error)
                if fault:
                    self.faults.append(fault)
                    return
                self.rounds[place] += 1

        thread = threading.Thread(target=go_on)
        thread.start()
        self.threads.append(thread)

    def end(self) -> None:
        self.stop.set()
        for thread in self.threads:
            thread.join(WAIT_SECONDS)
            assert not thread.is_alive()


@pytest.fixture
def readers(mount: Mount) -> Iterator[Readers]:
    found = Readers(mount.path)
    yield found
    found.end()


BOTH = sorted(set(ONE) & set(TWO))
OF_ONE = (b"/becomes a directory", b"/only one", b"/only two", b"/many/")
ENOUGH = 20
"""Rounds of each reader that must have been gone while versions were switched."""


@BOTH_MODES
@BOTH_KERNELS
def test_readers_see_one_version_or_the_other(
    mount: Mount, switch: Callable[[str], None], readers: Readers
) -> None:
    """Names that both versions have are always there, with the bytes of one of them."""
    root = mount.path

    def read_files() -> str:
        for path in BOTH:
            data = (root / path).read_bytes()
            if data not in (ONE[path], TWO[path]):
                return f"{path}: {data[:20]!r}"
        return ""

    def read_in_steps() -> str:
        with open(root / "big", "rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            parts = b"".join(iter(lambda: file.read(70_000), b""))
        return "" if size == BIG and parts in (ONE["big"], TWO["big"]) else "big is mixed"

    def list_below() -> str:
        names = {int(name) for name in os.listdir(root / "many")}
        return "" if names in (set(range(50)), set(range(10, 60))) else f"mixed: {names}"

    def list_root() -> str:
        names = set(os.listdir(root))
        tops = [{path.partition("/")[0] for path in files} for files in VERSIONS.values()]
        return "" if names in tops else f"mixed: {names}"

    def stat_all() -> str:
        sizes = {path: os.stat(root / path).st_size for path in BOTH}
        wrong = [path for path, size in sizes.items() if size not in (len(ONE[path]), len(TWO[path]))]
        return f"sizes of {wrong}" if wrong else ""

    def find() -> str:
        done = subprocess.run(
            ["find", root, "-type", "f", "-name", "same"],
            capture_output=True,
            timeout=WAIT_SECONDS,
            check=False,
        )
        # What only one version has, or has as another kind, may be gone between a listing and a look.
        lines = [line for line in done.stderr.splitlines() if not any(name in line for name in OF_ONE)]
        return "" if done.stdout and not lines else f"find: {done.stdout!r} {lines}"

    for read in (read_files, read_in_steps, list_below, list_root, stat_all, find):
        readers.start(read)
    number = 0
    while (number < SWITCHES or min(readers.rounds) < ENOUGH) and not readers.faults:
        switch(("v2", "v1")[number % 2])
        number += 1
    readers.end()
    assert readers.faults == []
    switch("v2")
    assert tree_of(root) == TWO
    status = mount.status()
    assert status["errors"] == 0
    assert "Traceback" not in mount.umount()


@BOTH_KERNELS
def test_a_switch_is_complete_when_it_is_told(mount: Mount, switch: Callable[[str], None]) -> None:
    """Whatever is opened after the answer is of the new version; the kernel remembers no old name."""
    root = mount.path
    tree_of(root)
    for number in range(SWITCHES):
        rev = ("v2", "v1")[number % 2]
        files = VERSIONS[rev]
        switch(rev)
        for path in ("changed", "sub/deep/changed", "only one", "only two", "many/0", "many/55"):
            if path in files:
                assert (root / path).read_bytes() == files[path]
            else:
                with pytest.raises(FileNotFoundError):
                    (root / path).stat()
        assert (root / "becomes a directory").is_dir() == (rev == "v2")


def test_a_loader_with_workers_goes_on(mounter: Mounter, mount: Mount, switch: Callable[[str], None]) -> None:
    """Processes that open files by name, batch after batch: none is disturbed, all see the new version."""
    code = """
import multiprocessing, sys
root, paths = sys.argv[1], sys.argv[2:]
def load(path):
    with open(f"{root}/{path}", "rb") as file:
        return path, file.read()
if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        for line in sys.stdin:
            for path, data in pool.imap_unordered(load, paths * int(line), 4):
                sys.stdout.write(f"{path} {data[-8:].hex()}\\n")
            print("epoch", flush=True)
"""
    program = mounter.home / "loader.py"
    program.write_text(code)
    paths = [path for path in BOTH if " " not in path]
    loader = subprocess.Popen(
        [sys.executable, program, mount.path, *paths],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert loader.stdin is not None
    assert loader.stdout is not None
    told: list[tuple[str, str]] = []

    def epoch(times: int, while_it_runs: Callable[[], None]) -> list[tuple[str, str]]:
        assert loader.stdin is not None
        assert loader.stdout is not None
        loader.stdin.write(f"{times}\n")
        loader.stdin.flush()
        while_it_runs()
        found = []
        while (line := loader.stdout.readline().strip()) != "epoch":
            assert line
            path, _, data = line.partition(" ")
            found.append((path, data))
        return found

    def switch_often() -> None:
        for number in range(SWITCHES):
            switch(("v2", "v1")[number % 2])

    try:
        told = epoch(1, lambda: None)
        assert dict(told) == {path: ONE[path][-8:].hex() for path in paths}
        told = epoch(60, switch_often)
        either = {path: {ONE[path][-8:].hex(), TWO[path][-8:].hex()} for path in paths}
        assert len(told) == 60 * len(paths)
        assert all(data in either[path] for path, data in told)
        switch("v2")
        told = epoch(1, lambda: None)
        assert dict(told) == {path: TWO[path][-8:].hex() for path in paths}
    finally:
        loader.stdin.close()
        loader.wait(WAIT_SECONDS)
        loader.stdout.close()
    assert loader.returncode == 0


def test_a_watch_does_not_hinder(mount: Mount, switch: Callable[[str], None]) -> None:
    """inotify watches on files and directories of the old version live on without a word."""
    code = """
import ctypes, os, sys, select
libc = ctypes.CDLL(None, use_errno=True)
fd = libc.inotify_init1(os.O_NONBLOCK)
for path in sys.argv[1:]:
    assert libc.inotify_add_watch(fd, os.fsencode(path), 0x2 | 0x4 | 0x40 | 0x80 | 0x100 | 0x200) >= 0
print("watching", flush=True)
sys.stdin.readline()
print("told" if select.select([fd], [], [], 0)[0] else "silent", flush=True)
"""
    places = [mount.path / path for path in ("", "changed", "sub", "only one")]
    with subprocess.Popen(
        [sys.executable, "-c", code, *places], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "watching\n"
        for rev in ("v2", "v1", "v2"):
            switch(rev)
            assert tree_of(mount.path) == VERSIONS[rev]
        told, _ = process.communicate("\n", timeout=WAIT_SECONDS)
    assert told == "silent\n"
    assert process.returncode == 0


def test_a_refused_switch_changes_nothing(mounter: Mounter, mount: Mount) -> None:
    before = mount.status()
    inode = (mount.path / "changed").stat().st_ino
    for rev in ("v3", "nothing like it", "-x", "", "v1:data.dvc"):
        done = mounter.run("switch", "--", mount.path, rev)
        assert done.returncode == 1, done
        assert done.stdout == "" and done.stderr.count("\n") == 1, done.stderr
        assert done.stderr.startswith("fusefs: ")
    assert "v1" in mounter.run("switch", mount.path, "v11").stderr
    assert tree_of(mount.path) == ONE
    assert (mount.path / "changed").stat().st_ino == inode
    after = mount.status()
    assert [after[name] for name in ("rev", "oid", "files")] == [
        before[name] for name in ("rev", "oid", "files")
    ]
    assert "Traceback" not in mount.umount()


def test_a_revision_without_the_dataset(mounter: Mounter, mount: Mount, versions: Project) -> None:
    versions.git("rm", "--quiet", "data.dvc")
    versions.commit("without")
    done = mounter.run("switch", mount.path, "without")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1 and "data" in done.stderr
    assert tree_of(mount.path) == ONE


def test_two_at_once(mounter: Mounter, mount: Mount) -> None:
    socket = mount.status()["control"]
    with ThreadPoolExecutor(8) as askers:
        answers = list(askers.map(lambda rev: ask(socket, {"switch": rev}), ["v1", "v2", "v3", "HEAD~1"] * 3))
    assert sum("error" in answer for answer in answers) == 3
    assert tree_of(mount.path) in (ONE, TWO)
    done = mounter.run("switch", mount.path, "v2")
    assert done.returncode == 0
    assert tree_of(mount.path) == TWO


@pytest.mark.parametrize("kind", ["oid", "no git", "revisions"])
def test_a_mount_that_has_nothing_to_switch(mounter: Mounter, versions: Project, kind: str) -> None:
    if kind == "oid":
        mount = mounter.mount(versions.cache.put_dataset(ONE), "--cache", versions.cache.root)
    elif kind == "no git":
        alone = mounter.home / "alone"
        (alone / ".dvc").mkdir(parents=True)
        shutil.copy(versions.root / "data.dvc", alone)
        mount = mounter.mount(alone / "data.dvc", "--cache", versions.cache.root)
    else:
        mount = mounter.mount("data", "--revs", "*", cwd=versions.root)
    done = mounter.run("switch", mount.path, "v1")
    assert done.returncode == 1
    assert done.stderr.startswith("fusefs: ") and done.stderr.count("\n") == 1, done.stderr
    done = mounter.run("switch", mounter.home, "v1")
    assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr


def test_a_daemon_that_ends_before_it_answers_is_told_of() -> None:
    """Whether it has switched by then is not known; the mount tells."""
    name = new_name()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("\0" + name.removeprefix("@"))
        listening.listen()

        def end() -> None:
            client, _ = listening.accept()
            client.recv(4096)
            client.close()

        daemon = threading.Thread(target=end)
        daemon.start()
        with pytest.raises(ConnectionError, match="ended before"):
            ask(name, {"switch": "v2"}, WAIT_SECONDS)
        daemon.join()


def test_whoever_knows_the_sockets_name_is_heard() -> None:
    """Also before anybody answers: the status that tells the name may be read at once."""

    async def handle(request: dict[str, Any]) -> dict[str, Any]:
        return {"heard": request}

    async def main() -> None:
        name = new_name()
        listening = listen(name)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect("\0" + name.removeprefix("@"))
            client.sendall(b'{"switch": "v2"}\n')
            async with trio.open_nursery() as nursery:
                nursery.start_soon(serve_control, listening, handle)
                answer = await trio.to_thread.run_sync(client.recv, 4096)
                nursery.cancel_scope.cancel()
        assert json.loads(answer) == {"heard": {"switch": "v2"}}

    trio.run(main)


def test_what_the_control_socket_is_told(mount: Mount) -> None:
    """Nonsense gets an answer or silence, and costs nobody else anything."""
    name = mount.status()["control"]
    for request in ({}, {"switch": None}, {"switch": ["v1"]}, {"umount": True}):
        assert list(ask(name, request)) == ["error"]
    script = """
import socket, sys
name = "\\0" + sys.argv[1][1:]
held = []
for data in (b"", b"\\n", b"[]\\n", b"{\\n", b"\\xff\\n", b"[" * 60000 + b"\\n", b"x" * 70000, b"{}"):
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(20)
    client.connect(name)
    try:
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        client.recv(1000)
    except OSError:
        pass
    held.append(client)
print(len(held))
"""
    done = subprocess.run(
        [sys.executable, "-c", script, name],
        capture_output=True,
        text=True,
        timeout=WAIT_SECONDS,
        check=False,
    )
    assert done.stdout == "8\n", done.stderr
    assert "error" not in ask(name, {"switch": "v2"})
    assert tree_of(mount.path) == TWO
    assert "Traceback" not in mount.umount()


NOBODY = 65534


def ask_as(uid: int, name: str, request: dict[str, Any]) -> str:
    code = "import json, sys; sys.path.insert(0, sys.argv[3]); from fusefs.control_socket import ask"
    code += "; print(json.dumps(ask(sys.argv[1], json.loads(sys.argv[2]))))"
    root = str(Path(__file__).resolve().parent.parent.parent)
    done = subprocess.run(
        [
            *("setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"),
            *(sys.executable, "-B", "-c", code, name, json.dumps(request), root),
        ],
        cwd="/",
        capture_output=True,
        text=True,
        timeout=WAIT_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.root
def test_another_user_may_not(mounter: Mounter, mount: Mount) -> None:
    name = mount.status()["control"]
    for uid in (NOBODY, 12345):
        assert "only the mount's owner and root" in ask_as(uid, name, {"switch": "v2"})
    assert tree_of(mount.path) == ONE
    assert "switched to v2" not in mount.log.read_text()
    assert "error" not in ask_as(0, name, {"switch": "v2"})
    assert tree_of(mount.path) == TWO


ROUNDS = 50


def resources(mount: Mount) -> tuple[int, int]:
    process = Path("/proc", str(mount.pid))
    return len(list((process / "fd").iterdir())), len(list((process / "task").iterdir()))


def test_switching_leaks_nothing(mount: Mount, switch: Callable[[str], None]) -> None:
    def use(rounds: int) -> None:
        for number in range(rounds):
            rev = ("v2", "v1")[number % 2]
            switch(rev)
            assert (mount.path / "changed").read_bytes() == VERSIONS[rev]["changed"]
            assert os.listdir(mount.path / "sub")

    use(4)
    mount.status()
    before = resources(mount)
    mapped = Path(f"/proc/{mount.pid}/maps").read_text().count("/trees/")
    use(ROUNDS)
    until(lambda: resources(mount)[0] <= before[0], lambda: f"{before} has become {resources(mount)}")
    assert resources(mount)[1] <= 24  # worker threads come as they are needed, up to their limit, and stay
    assert Path(f"/proc/{mount.pid}/maps").read_text().count("/trees/") == mapped == 2
