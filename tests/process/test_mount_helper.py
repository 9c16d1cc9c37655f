"""`mount -t fusefs`, lines in fstab, and the helper with nothing in its environment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, SECONDS, SmallDataset
from tests.patience import until
from tests.process.conftest import LEAVE_OTHERS, PATH, await_end, list_daemons

pytestmark = [pytest.mark.fuse, pytest.mark.root]
WHY_AUTOMOUNTED = "an automounter lets nobody mount there but the command that it has started"


def run(
    command: Sequence[str | Path], directory: Path, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=directory,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def helper(directory: Path, *arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fusefs.cli.mount_helper", *map(str, arguments)]
    return run(command, directory, PYTHONPATH=str(ROOT), **environment)


@pytest.fixture
def options(dataset: SmallDataset, tmp_path: Path, mode: str) -> str:
    return f"mode={mode},cache={dataset.cache},log={tmp_path}/the.log"


GENERIC = "rw,nofail,_netdev,user,dev,suid,x-gvfs-show"
"""What mount(8) hands to every file system."""


@pytest.mark.parametrize(("fstype", "name"), [("fusefs", "data.dir"), ("fuse.fusefs", "a name, with:all=1")])
def test_mount_by_type(
    dataset: SmallDataset, mountpoint: Path, tmp_path: Path, options: str, fstype: str, name: str
) -> None:
    """Both are named from where one stands."""
    manifest = dataset.cache / "files/md5" / dataset.oid[:2] / dataset.oid[2:]
    (tmp_path / name).symlink_to(manifest)
    done = run(
        ["/bin/mount", "-t", fstype, "-o", f"{options},{GENERIC}", name, mountpoint.name],
        tmp_path,
        XDG_CACHE_HOME=str(tmp_path / "trees"),
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert (mountpoint / "a/0.txt").read_bytes() == dataset.files["a/0.txt"]
    assert os.statvfs(mountpoint).f_flag & (os.ST_RDONLY | os.ST_NOSUID | os.ST_NODEV) == (
        os.ST_RDONLY | os.ST_NOSUID | os.ST_NODEV
    )
    assert run(["/bin/umount", mountpoint], tmp_path).returncode == 0


def test_a_line_in_fstab(dataset: SmallDataset, mountpoint: Path, tmp_path: Path, options: str) -> None:
    manifest = dataset.cache / "files/md5" / dataset.oid[:2] / dataset.oid[2:]
    fstab = tmp_path / "fstab"
    fstab.write_text(
        f"{manifest} {mountpoint} fusefs {options},ro,auto,nofail,_netdev,users,"
        "uid=12,umask=027,x-systemd.automount 0 0\n"
    )
    done = run(["/bin/mount", "-T", fstab, mountpoint], Path("/"), XDG_CACHE_HOME=str(tmp_path / "trees"))
    assert (done.returncode, done.stderr) == (0, "")
    status = (mountpoint / "a/0.txt").stat()
    assert (status.st_uid, status.st_mode & 0o777) == (12, 0o640)
    (line,) = [
        line
        for line in Path("/proc/self/mounts").read_text(errors="surrogateescape").splitlines()
        if str(mountpoint) in line
    ]
    assert "noexec" in line  # as `users` asks for
    # Who mounts all that is missing sees that this is not.
    done = run(["/bin/mount", "-T", fstab, "--all"], Path("/"), XDG_CACHE_HOME=str(tmp_path / "trees"))
    assert (done.returncode, done.stderr) == (0, "")
    assert run(["/bin/umount", mountpoint], tmp_path).returncode == 0  # which keeps a list of its own


def test_an_empty_environment(dataset: SmallDataset, mountpoint: Path, tmp_path: Path, options: str) -> None:
    done = helper(
        tmp_path, dataset.oid, mountpoint, "-sn", "-o", options, XDG_CACHE_HOME=str(tmp_path / "trees")
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (mountpoint / "a/0.txt").read_bytes() == dataset.files["a/0.txt"]


def test_a_relative_name_says_where_it_was_sought(mountpoint: Path, tmp_path: Path) -> None:
    done = helper(Path("/"), "data.dvc", mountpoint, XDG_CACHE_HOME=str(tmp_path / "trees"))
    assert (done.returncode, done.stderr.count("\n")) == (32, 1)
    assert "seen from /" in done.stderr and "absolute" in done.stderr


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("frobnicate", "-o frobnicate: there is no such option"),
        ("uid", "uid needs a value"),
        ("allow_other=1", "takes no value"),
        ("umask=9", "not a umask"),
        ("remount", "cannot be remounted"),
    ],
)
def test_bad_options_are_one_line(mountpoint: Path, tmp_path: Path, given: str, words: str) -> None:
    done = helper(tmp_path, "x.dvc", mountpoint, "-o", given)
    assert (done.returncode, done.stderr.count("\n")) == (32, 1)
    assert words in done.stderr


def test_sloppy_passes_over_unknown_options(mountpoint: Path, tmp_path: Path) -> None:
    assert helper(tmp_path, "x.dvc", mountpoint, "-s", "-f", "-o", "frobnicate").returncode == 0


def test_wrong_usage(tmp_path: Path) -> None:
    done = helper(tmp_path, "only-one")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


def test_another_mount_namespace(
    dataset: SmallDataset, mountpoint: Path, tmp_path: Path, options: str
) -> None:
    with subprocess.Popen(
        [
            "unshare",
            "--mount",
            "--propagation=private",
            "sh",
            "-c",
            f"{LEAVE_OTHERS}; echo up; read x",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "up\n"
        namespace = f"/proc/{other.pid}/ns/mnt"
        done = helper(
            tmp_path,
            dataset.oid,
            mountpoint,
            "-N",
            namespace,
            "-o",
            options,
            XDG_CACHE_HOME=str(tmp_path / "trees"),
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert list(mountpoint.iterdir()) == []
        (daemon,) = list_daemons(mountpoint)
        enter = ["nsenter", f"--mount={namespace}"]
        shown = run([*enter, "cat", mountpoint / "a/0.txt"], tmp_path).stdout
        assert shown == dataset.files["a/0.txt"].decode()
        assert run([*enter, "umount", mountpoint], tmp_path).returncode == 0
        assert await_end(daemon)
        other.communicate("\n", timeout=SECONDS)


needs_autofs = pytest.mark.skipif(
    "autofs" not in Path("/proc/filesystems").read_text().split(), reason="this kernel has no autofs"
)


def automount(place: Path, reader: Sequence[str | Path], mounter: Sequence[str | Path]) -> dict[str, Any]:
    """What came of it when `reader` looked at a place that `mounter` is to mount on."""
    words = [json.dumps([str(word) for word in command]) for command in (reader, mounter)]
    script = Path(__file__).with_name("automounter.py")
    line = ["unshare", "--mount", "--propagation=private", "sh", "-ec", f'{LEAVE_OTHERS}\nexec "$@"', "sh"]
    done = subprocess.run(
        [*line, sys.executable, script, place, *words],
        env={"PYTHONPATH": str(ROOT), "PATH": PATH, "XDG_CACHE_HOME": str(place.parent / "trees")},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@needs_autofs
def test_an_automounter_has_it_mounted_on_demand(
    dataset: SmallDataset, mountpoint: Path, tmp_path: Path, options: str
) -> None:
    """As `x-systemd.automount` does: who looks waits, and gets the version. In native mode the daemon's child
    would have to mount, which the kernel would keep waiting, too."""
    automatic = options.replace("mode=native", "mode=auto").replace("mode=fuse", "mode=auto")
    reader = ["cat", mountpoint / "a/0.txt", mountpoint / ".fusefs/status"]
    found = automount(
        mountpoint, reader, ["/bin/mount", "-t", "fusefs", "-o", automatic, dataset.oid, mountpoint]
    )
    assert found["mounter"] == [0, "", ""]
    assert found["types"] == ["autofs", "fuse.fusefs"]
    status, said, complaint = found["reader"]
    assert (status, complaint) == (0, "")
    content = dataset.files["a/0.txt"].decode()
    assert said.startswith(content)
    assert json.loads(said.removeprefix(content))["why_fuse"] == WHY_AUTOMOUNTED
    until(lambda: list_daemons(mountpoint) == [])
    assert "Traceback" not in (tmp_path / "the.log").read_text()


@needs_autofs
def test_an_automounter_is_told_what_is_wrong(
    dataset: SmallDataset, mountpoint: Path, tmp_path: Path, options: str
) -> None:
    mounter = ["/bin/mount", "-t", "fusefs", "-o", f"{options},mode=native", dataset.oid, mountpoint]
    found = automount(mountpoint, ["cat", mountpoint / "a/0.txt"], mounter)
    status, _, complaint = found["mounter"]
    assert status != 0
    assert complaint == f"fusefs: native mode is not possible: {WHY_AUTOMOUNTED}\n"
    assert found["reader"][0] != 0  # and does not wait any longer
    assert found["types"] == ["autofs"]


@needs_autofs
def test_who_is_not_the_automounter_finds_it_mounted(
    dataset: SmallDataset, mountpoint: Path, options: str
) -> None:
    by_hand = [sys.executable, "-m", "fusefs.cli", "mount", "-o", options, dataset.oid, mountpoint]
    found = automount(mountpoint, by_hand, ["mount", "-t", "tmpfs", "theirs", mountpoint])
    assert found["reader"] == [1, "", f"fusefs: {mountpoint} is mounted already: tmpfs from theirs\n"]
    assert found["types"] == ["autofs", "tmpfs"]
