"""`fusefs mount` and `umount` as real processes: what a daemon is, how it ends, what it leaves."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest

from fusefs import kernel_mount, mountinfo, survey
from fusefs.cli import umount
from fusefs.status import Status
from tests.conftest import SECONDS, Fusefs, SmallDataset, kill_for_good, small_dataset
from tests.patience import until
from tests.process.conftest import await_end, list_daemons, status_of

pytestmark = [pytest.mark.fuse, pytest.mark.root]
BOTH_MODES = pytest.mark.modes("fuse", "native")


def is_mounted(path: Path) -> bool:
    return mountinfo.mount_at(str(path), mountinfo.read_mounts()) is not None


@pytest.fixture
def mount(fusefs: Fusefs, dataset: SmallDataset, mountpoint: Path) -> Callable[..., int]:
    """Mounts the dataset at `mountpoint`; the daemon's pid."""

    def mount_it(*options: str | Path) -> int:
        fusefs("mount", "--cache", dataset.cache, *options, dataset.oid, mountpoint, check=True)
        (pid,) = list_daemons(mountpoint)
        return pid

    return mount_it


@BOTH_MODES
def test_mount_returns_with_a_readable_tree(
    mount: Callable[..., int], dataset: SmallDataset, mountpoint: Path
) -> None:
    mount()
    for path, data in dataset.files.items():
        assert (mountpoint / path).read_bytes() == data


@BOTH_MODES
def test_the_kernel_shows_type_source_and_flags(
    mount: Callable[..., int], dataset: SmallDataset, mountpoint: Path, mode: str
) -> None:
    mount()
    (line,) = [
        line
        for line in Path("/proc/self/mounts").read_text(errors="surrogateescape").splitlines()
        if str(mountpoint) in line
    ]
    source, _, fstype, options = line.split()[:4]
    if mode == "native":
        assert (source, fstype) == (dataset.oid, "overlay")
    else:
        assert (source, fstype) == (dataset.oid, "fuse.fusefs")
        assert "default_permissions" in options.split(",")
    assert {"ro", "nosuid", "nodev"} <= set(options.split(","))
    assert "allow_other" not in options


@BOTH_MODES
def test_the_daemon_has_nothing_of_the_caller(mount: Callable[..., int], tmp_path: Path) -> None:
    held = os.open(tmp_path, os.O_RDONLY)
    os.set_inheritable(held, True)
    pid = mount()
    os.close(held)
    assert os.getsid(pid) == int(status_of(pid, "PPid")) != os.getsid(0)
    assert Path(f"/proc/{pid}/cwd").readlink() == Path("/")
    targets = {}
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # it was closed meanwhile
            targets[int(fd.name)] = str(fd.readlink())
    assert {targets[fd] for fd in (0, 1, 2)} == {"/dev/null"}
    assert str(tmp_path) not in targets.values()
    assert sum(target == "/dev/fuse" for target in targets.values()) == 1
    limits = Path(f"/proc/{pid}/limits").read_text().splitlines()
    (files,) = [line.split() for line in limits if line.startswith("Max open files")]
    assert files[3] == files[4]


def read_aheads() -> Counter[int]:
    """How many file systems have what read-ahead, in KiB."""
    found: Counter[int] = Counter()
    for setting in Path("/sys/class/bdi").glob("*/read_ahead_kb"):
        with contextlib.suppress(OSError):  # it was unmounted meanwhile
            found[int(setting.read_text())] += 1
    return found


@BOTH_MODES
def test_read_ahead_is_raised(mount: Callable[..., int], mountpoint: Path, mode: str) -> None:
    """Of what is read through the daemon. In native mode that is mounted where nobody sees it."""
    before = read_aheads()
    raised = next(size for size in range(2048 + os.getpid() % 512 * 4, 8192, 4) if not before[size])  # pages
    mount(f"--read-ahead={raised}K")
    found = mountinfo.mount_at(str(mountpoint), mountinfo.read_mounts())
    assert found is not None
    if mode == "fuse":
        assert int(Path(f"/sys/class/bdi/{found.device}/read_ahead_kb").read_text()) == raised
    assert read_aheads()[raised] == 1


@BOTH_MODES
def test_umount_returns_when_the_daemon_is_gone(
    mount: Callable[..., int], fusefs: Fusefs, mountpoint: Path
) -> None:
    pid = mount()
    fusefs("umount", mountpoint, check=True)
    assert not is_mounted(mountpoint)
    assert pid not in list_daemons(mountpoint)


def test_a_daemon_that_is_slow_to_answer_is_waited_for(
    mount: Callable[..., int], mountpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By commands about its mount alone; who asks all of them goes on."""
    pid = mount()
    monkeypatch.setattr(survey, "SECONDS", 0)
    (found,) = survey.survey([umount.find_mount(str(mountpoint))])
    assert found.state is survey.State.HUNG
    umount.unmount_path(str(mountpoint), lazy=False)
    assert pid not in list_daemons(mountpoint)


@BOTH_MODES
def test_plain_umount_ends_the_daemon(mount: Callable[..., int], mountpoint: Path) -> None:
    pid = mount()
    subprocess.run(["umount", mountpoint], check=True, timeout=SECONDS)
    assert await_end(pid)


@BOTH_MODES
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_unmounts(mount: Callable[..., int], mountpoint: Path, number: signal.Signals) -> None:
    pid = mount()
    os.kill(pid, number)
    assert await_end(pid)
    assert not is_mounted(mountpoint)
    assert list(mountpoint.iterdir()) == []


@BOTH_MODES
def test_hangup_opens_the_log_anew(mount: Callable[..., int], tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    pid = mount("--log", log)
    assert log.stat().st_mode & 0o777 == 0o600
    moved = tmp_path / "moved.log"
    log.rename(moved)
    os.kill(pid, signal.SIGHUP)
    until(log.exists, "the log is opened anew")  # two signals that come at once have no order
    os.kill(pid, signal.SIGTERM)
    assert await_end(pid)
    assert "SIGTERM" in log.read_text()
    assert "ended after" in log.read_text()


@BOTH_MODES
@pytest.mark.parametrize("clear", ["umount", "mount"])
def test_a_killed_daemon_leaves_a_dead_mount_that_is_cleared(
    mount: Callable[..., int], fusefs: Fusefs, mountpoint: Path, clear: str
) -> None:
    pid = mount()
    kill_for_good(pid)
    assert await_end(pid)
    with pytest.raises(OSError, match="not connected"):
        list(mountpoint.iterdir())
    listed = json.loads(fusefs("list", "--json", check=True).stdout)
    (dead,) = [status for status in listed if status["mountpoint"] == str(mountpoint)]
    assert (dead["state"], dead["pid"], dead["hits"]) == ("dead", None, None)
    assert "dead" in fusefs("status", mountpoint / "a", check=True).stdout
    if clear == "umount":
        fusefs("umount", mountpoint, check=True)
        assert not is_mounted(mountpoint)
    else:
        mount()
        assert sorted(path.name for path in mountpoint.iterdir()) == ["a", "b"]


@BOTH_MODES
def test_a_hung_daemon_hangs_nobody(mount: Callable[..., int], fusefs: Fusefs, mountpoint: Path) -> None:
    pid = mount()
    os.kill(pid, signal.SIGSTOP)
    try:
        listed = json.loads(fusefs("list", "--json", check=True).stdout)
        assert [one["state"] for one in listed if one["mountpoint"] == str(mountpoint)] == ["hung"]
        done = fusefs("mount", "x.dvc", mountpoint)
        assert (done.returncode, "mounted already" in done.stderr) == (1, True)
    finally:
        os.kill(pid, signal.SIGCONT)
    fusefs("umount", mountpoint, check=True)


HOLD = """
import mmap, os, sys
os.chdir(sys.argv[1])
file = open("a/0.txt", "rb")
mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
print("holding", flush=True)
sys.stdin.read()
"""


@BOTH_MODES
def test_a_busy_mount_names_its_holders(mount: Callable[..., int], fusefs: Fusefs, mountpoint: Path) -> None:
    daemon = mount()
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(mountpoint)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None and holder.stdin is not None
        assert holder.stdout.readline() == "holding\n"
        done = fusefs("umount", mountpoint)
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1
        assert f"({holder.pid}: working directory, open file, mapped file)" in done.stderr
        assert is_mounted(mountpoint)
        fusefs("umount", "--lazy", mountpoint, check=True)
        assert not is_mounted(mountpoint)
        assert Path(f"/proc/{daemon}").exists()  # it serves its last reader
        holder.stdin.close()
    assert await_end(daemon)


def test_who_only_looks_into_a_mount_for_a_moment_is_waited_for(
    mount: Callable[..., int], mountpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon = mount()
    with contextlib.ExitStack() as looks:
        looks.enter_context(open(mountpoint / "a/0.txt", "rb"))
        monkeypatch.setattr(umount.time, "sleep", lambda _: looks.close())
        umount.unmount_path(str(mountpoint), lazy=False)
    assert await_end(daemon)


@BOTH_MODES
def test_the_foreground_speaks_to_its_service_manager(
    fusefs: Fusefs, dataset: SmallDataset, mountpoint: Path, tmp_path: Path
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        address = f"\0fusefs-test-{os.getpid()}-{tmp_path.name}"
        manager.bind(address)
        manager.settimeout(SECONDS)
        environment = {**fusefs.environment, "NOTIFY_SOCKET": "@" + address[1:]}
        with subprocess.Popen(
            fusefs.command("mount", "--foreground", "--cache", dataset.cache, dataset.oid, mountpoint),
            env=environment,
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert manager.recv(4096).startswith(b"READY=1\n")
            (daemon,) = list_daemons(mountpoint)
            assert status_of(daemon, "PPid") == str(process.pid)
            assert (mountpoint / "a/0.txt").read_bytes() == dataset.files["a/0.txt"]
            os.kill(daemon, signal.SIGKILL)  # which is nothing to tell the manager of
            assert (mountpoint / "b/1.txt").read_bytes() == dataset.files["b/1.txt"]
            process.send_signal(signal.SIGHUP)
            assert manager.recv(4096) == b"STOPPING=1"
            _, log = process.communicate(timeout=SECONDS)
    assert process.returncode == 0
    assert "serving" in log and "SIGHUP: unmounting" in log
    assert not is_mounted(mountpoint)


@BOTH_MODES
def test_the_daemons_error_is_the_commands_own(
    fusefs: Fusefs, dataset: SmallDataset, mountpoint: Path, tmp_path: Path
) -> None:
    """A daemon that cannot even start: what it said last is shown, and nothing stays mounted."""
    broken = tmp_path / "broken" / "trio"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise RuntimeError('trio is broken')")
    # Found before the real one by the daemon alone: the command does not import it.
    environment = {**fusefs.environment, "PYTHONPATH": f"{fusefs.environment['PYTHONPATH']}:{broken.parent}"}
    done = Fusefs(environment, tmp_path, fusefs.mode)(
        "mount", "--cache", dataset.cache, dataset.oid, mountpoint
    )
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "trio is broken" in done.stderr
    assert not is_mounted(mountpoint)


@BOTH_MODES
def test_a_signal_while_it_starts_leaves_nothing(
    fusefs: Fusefs, dataset: SmallDataset, mountpoint: Path, tmp_path: Path, mode: str
) -> None:
    stuck = tmp_path / "stuck" / "trio"
    stuck.mkdir(parents=True)
    started = tmp_path / "started"
    os.mkfifo(started)
    (stuck / "__init__.py").write_text(
        f"import signal\nopen({str(started)!r}, 'w').close()\nsignal.pause()\n"
    )
    environment = {**fusefs.environment, "PYTHONPATH": f"{fusefs.environment['PYTHONPATH']}:{stuck.parent}"}
    with Fusefs(environment, tmp_path, mode).start(
        "mount", "--cache", dataset.cache, dataset.oid, mountpoint
    ) as command:
        started.read_bytes()  # returns when the daemon is there
        assert is_mounted(mountpoint) == (mode == "fuse")  # what is native is mounted when it is served
        command.send_signal(signal.SIGTERM)
        assert command.wait(SECONDS) == 128 + signal.SIGTERM
    assert not is_mounted(mountpoint)
    assert list_daemons(mountpoint) == []


@BOTH_MODES
def test_data_cannot_pass_for_the_status(fusefs: Fusefs, mountpoint: Path, tmp_path: Path) -> None:
    lie = {field.name: None for field in fields(Status)} | {"mountpoint": "/", "pid": 1, "oid": "a lie"}
    dataset = small_dataset(tmp_path / "cache", {".fusefs/status": json.dumps(lie).encode()})
    fusefs("mount", "--cache", dataset.cache, dataset.oid, mountpoint, check=True)
    status = json.loads(fusefs("status", "--json", mountpoint, check=True).stdout)
    assert (status["oid"], [status["pid"]]) == (dataset.oid, list_daemons(mountpoint))
    fusefs("umount", mountpoint, check=True)


@BOTH_MODES
def test_status_of_a_path_in_the_mount(
    mount: Callable[..., int], fusefs: Fusefs, dataset: SmallDataset, mountpoint: Path, mode: str
) -> None:
    pid = mount()
    status = json.loads(fusefs("status", "--json", mountpoint / "a", check=True).stdout)
    assert (status["pid"], status["oid"], status["mode"]) == (pid, dataset.oid, mode)
    assert (status["mountpoint"], status["state"]) == (str(mountpoint), "ok")
    shown = fusefs("status", mountpoint, check=True).stdout
    assert f"process {pid}" in shown


WATCH = """
import sys
from fusefs.cli import main, status
status.WATCH_SECONDS = 0.01
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.modes("fuse")  # what nothing is fetched for has no hits in native mode
def test_mounts_are_listed_and_watched(
    mount: Callable[..., int], fusefs: Fusefs, dataset: SmallDataset, mountpoint: Path
) -> None:
    mount()
    lines = fusefs("list", check=True).stdout.splitlines()
    assert [mountpoint.as_posix(), dataset.oid, dataset.oid] in [line.split() for line in lines]
    for words, rate in ([], "hits  (0/s)"), (["--json"], ""):
        with subprocess.Popen(
            [sys.executable, "-c", WATCH, "status", "--watch", *words, str(mountpoint)],
            env=fusefs.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as watch:
            assert watch.stdout is not None
            first = watch.stdout.readline()
            if words:
                assert json.loads(first)["mountpoint"] == str(mountpoint)
                assert json.loads(watch.stdout.readline())["hits"] == 0
            else:
                assert first == f"{mountpoint}  {dataset.oid}\n"
                assert any(rate in line for line in watch.stdout)  # the second time
            watch.send_signal(signal.SIGINT)
            _, said = watch.communicate(timeout=SECONDS)
            assert (watch.returncode, said) == (128 + signal.SIGINT, "")


def test_a_source_cannot_smuggle_options(mountpoint: Path) -> None:
    source = "a,allow_other,user_id=7\nb\\,c d"
    mounted = kernel_mount.mount_fuse(str(mountpoint), source, allow_other=False)
    os.close(mounted.fd)
    assert mounted.mount.source == source
    (line,) = [
        line
        for line in Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines()
        if str(mountpoint) in line
    ]
    assert line.split(" - ")[1].split()[-1] == "ro,user_id=0,group_id=0,default_permissions"


def test_only_our_own_mount_is_unmounted(mountpoint: Path) -> None:
    first = kernel_mount.mount_fuse(str(mountpoint), "first", allow_other=False)
    second = kernel_mount.mount_fuse(str(mountpoint), "second", allow_other=False)
    kernel_mount.unmount(first.mount)  # hidden below the second: not to be taken for it
    assert mountinfo.is_still_there(second.mount)
    kernel_mount.unmount(second.mount)
    assert mountinfo.is_still_there(first.mount)
    for mounted in (first, second):
        os.close(mounted.fd)
