"""What this machine can do for fusefs, why not, and the remedy: the checks behind `fusefs doctor`.

Blocking; call it from the main thread of a command, never from a daemon. What can only be known
by trying is tried in child processes (`fusefs/probes.py`) with a deadline. A check that goes
wrong is a row that says so, never an exception, and nothing is left behind.
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import platform
import resource
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from importlib import metadata
from pathlib import Path
from typing import Final

from fusefs import mountinfo
from store.dvc.project import default_cache_dir, find_project
from store.errors import StoreError
from store.openat2 import HAS_CACHED, HAS_OPENAT2

DEADLINE: Final = 10.0
"""Seconds that one child process may take."""
ENOUGH_FILES: Final = 8192
"""Descriptors with which a daemon can serve many readers at once."""
FICLONE: Final = 0x40049409
"""`ioctl` that makes one file share another's blocks (linux/fs.h)."""

_PROBES = Path(__file__).with_name("probes.py")
_SYSCTLS = (
    # (file below /proc/sys, value that forbids, remedy), most specific first
    (
        "kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "sysctl kernel.apparmor_restrict_unprivileged_userns=0 (as root)",
    ),
    ("kernel/unprivileged_userns_clone", "0", "sysctl kernel.unprivileged_userns_clone=1 (as root)"),
    ("user/max_user_namespaces", "0", "sysctl user.max_user_namespaces=15000 (as root)"),
)
_IN_CONTAINER = "in a container: give it --cap-add SYS_ADMIN --security-opt apparmor=unconfined"


class State(StrEnum):
    OK = "ok"
    LIMITED = "limited"
    NO = "no"


@dataclass(frozen=True, slots=True)
class Check:
    """One row: `detail` says what was found, `remedy` what would make it better (or nothing)."""

    name: str
    state: State
    detail: str
    remedy: str = ""


def can_mount(checks: list[Check]) -> bool:
    """Whether a dataset can be mounted in some way: for everybody to see, or for one command."""
    return any(check.state is State.OK for check in checks if check.name in ("mount", "private mount"))


def check_machine() -> Iterator[Check]:
    """Every check in turn, as it is made."""
    for name, check in _CHECKS.items():
        try:
            state, detail, remedy = check()
        except (OSError, ValueError, StoreError, subprocess.SubprocessError) as error:
            state, detail, remedy = State.NO, f"could not be found out: {error}", ""
        yield Check(name, state, " ".join(detail.split()), remedy)


Finding = tuple[State, str, str]


def _run(command: list[str], pass_fd: int = -1, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a child without standard input to its end or the deadline."""
    return subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=DEADLINE,
        check=False,
        pass_fds=[] if pass_fd < 0 else [pass_fd],
        env={**os.environ, **environment},
    )


def _last_line(text: str) -> str:
    return text.strip().rpartition("\n")[2]


def _probe(name: str, *arguments: str) -> tuple[bool, str]:
    """Run one probe in a process of its own: whether it succeeded, and what it said."""
    try:
        done = _run([sys.executable, "-I", "-S", str(_PROBES), name, *arguments])
    except subprocess.TimeoutExpired:
        return False, f"no answer in {DEADLINE:g} s"
    said = done.stdout.strip() or _last_line(done.stderr)
    return done.returncode == 0, said or f"exit status {done.returncode}"


def _is_root() -> bool:
    return os.geteuid() == 0


def _check_kernel() -> Finding:
    return State.OK, f"{platform.system()} {platform.release()}", ""


def _check_pyfuse3() -> Finding:
    # Imported in a child: a library that does not fit the kernel's headers must not take us along.
    done = _run([sys.executable, "-c", "import pyfuse3; print(pyfuse3.__version__)"])
    if done.returncode:
        return (
            State.NO,
            f"cannot be loaded: {_last_line(done.stderr)}",
            "apt-get install fuse3, then scripts/setup",
        )
    return State.OK, done.stdout.strip(), ""


def _check_device() -> Finding:
    try:
        device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return State.NO, "/dev/fuse is not there", "modprobe fuse (in a container: --device /dev/fuse)"
    except PermissionError:
        mode = stat.filemode(Path("/dev/fuse").stat().st_mode)
        return State.NO, f"/dev/fuse may not be opened ({mode})", "chmod 0666 /dev/fuse (as root)"
    except OSError as error:
        return State.NO, f"/dev/fuse: {error.strerror}", "modprobe fuse (in a container: --device /dev/fuse)"
    os.close(device)
    return State.OK, "/dev/fuse can be opened", ""


def _check_mount() -> Finding:
    """A mount that all processes see: by root itself, or by the setuid helper of libfuse."""
    if _is_root():
        worked, said = _probe("fuse-root")
        return (State.OK, said, "") if worked else (State.NO, said, _IN_CONTAINER)
    helper = shutil.which("fusermount3")
    if helper is None:
        return State.NO, "fusermount3 is not installed", "apt-get install fuse3 (as root)"
    said = _mount_by_helper(helper)
    if said:
        mode = Path(helper).stat().st_mode
        remedy = "" if mode & stat.S_ISUID else f"chmod u+s {helper} (as root)"
        return State.NO, said, remedy
    return State.OK, "by fusermount3", ""


def _mount_by_helper(helper: str) -> str:
    """Mount and unmount through `fusermount3` in a directory of our own; what went wrong, or nothing."""
    directory = tempfile.mkdtemp(prefix="fusefs-doctor-")
    try:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            # The helper sends the mount's descriptor through the socket; closing ours ends the file system.
            options = "ro,nosuid,nodev,fsname=fusefs-doctor"
            command = [helper, "-o", options, "--", directory]
            done = _run(command, pass_fd=theirs.fileno(), _FUSE_COMMFD=str(theirs.fileno()))
        return done.stderr.strip() or (f"{helper}: exit status {done.returncode}" if done.returncode else "")
    except subprocess.TimeoutExpired:
        return f"{helper}: no answer in {DEADLINE:g} s"
    finally:
        _run([helper, "-u", "-q", "-z", "--", directory])
        Path(directory).rmdir()


def _user_namespace_remedy() -> str:
    for name, forbidding, remedy in _SYSCTLS:
        try:
            if Path("/proc/sys", name).read_text().strip() == forbidding:
                return remedy
        except OSError:
            continue
    return "in a container: give it --security-opt seccomp=unconfined"


def _check_private_mount() -> Finding:
    """A mount in a namespace of one command's own, which `fusefs run` prefers."""
    if _is_root():
        worked, said = _probe("fuse-root")
        return (State.OK, said, "") if worked else (State.NO, said, _IN_CONTAINER)
    worked, said = _probe("fuse-user")
    if worked:
        return State.OK, said, ""
    # What is wrong with the device is said, with its remedy, in a row of its own.
    return State.NO, said, "" if "/dev/fuse" in said else _user_namespace_remedy()


def _check_user_namespaces() -> Finding:
    # Root may be refused, too; a tmpfs in the namespace shows that its capabilities are real.
    worked, said = _probe("user-namespace")
    return (State.OK, said, "") if worked else (State.NO, said, _user_namespace_remedy())


def _check_allow_other() -> Finding:
    if _is_root():
        return State.OK, "root may let others in", ""
    try:
        lines = Path("/etc/fuse.conf").read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    if any(line.strip() == "user_allow_other" for line in lines):
        return State.OK, "user_allow_other is set in /etc/fuse.conf", ""
    remedy = "write user_allow_other on a line of its own into /etc/fuse.conf (as root)"
    return State.NO, "only root may let other users into a mount", remedy


def _cache_here() -> Path:
    """The cache that a mount from here would use: that of the project around us, or the user's own."""
    try:
        return find_project(Path.cwd()).cache_dir
    except (StoreError, OSError):  # which whoever mounts is told
        return default_cache_dir(os.environ)


def _check_native_layers() -> Finding:
    """Overlayfs with data-only layers that are given one by one (Linux 6.8; without root 6.16)."""
    probe = "overlay-root" if _is_root() else "overlay-user"
    worked, said = _probe(probe)
    if not worked:
        return State.NO, said, f"Linux {'6.8' if _is_root() else '6.16'} or newer with overlayfs"
    cache = _cache_here()
    fits, reason = _probe(probe, os.fspath(cache)) if cache.is_dir() else (True, "")
    if not fits:
        kind = mountinfo.kind_below(os.fspath(cache), mountinfo.read_mounts()) or "its file system"
        detail = f"{said}, but not with {cache}, on {kind}: {reason}"
        return State.LIMITED, detail, "a cache on a file system that overlays take, ext4 or xfs perhaps"
    how = "fusefs mount and run have" if _is_root() else "fusefs run has"
    return State.OK, f"{said}: {how} the kernel read what is cached, as fast as the disk", ""


def _check_mount_helper() -> Finding:
    names = ("mount.fusefs", "mount.fuse.fusefs")
    missing = [f"/sbin/{name}" for name in names if not os.access(f"/sbin/{name}", os.X_OK)]
    if not missing:
        return State.OK, f"/sbin/mount.fusefs is {os.path.realpath('/sbin/mount.fusefs')}", ""
    detail = f"{' and '.join(missing)} not there: no `mount -t fusefs`, no line in /etc/fstab"
    return State.LIMITED, detail, "scripts/setup as root, or link them to mount.fusefs"


def _check_git() -> Finding:
    if shutil.which("git") is None:
        return (
            State.LIMITED,
            "not installed: the revision of a mount stays unknown",
            "apt-get install git (as root)",
        )
    done = _run(["git", "--version"])
    if done.returncode:
        return (
            State.LIMITED,
            done.stderr.strip() or "git does not run",
            "apt-get install --reinstall git (as root)",
        )
    return State.OK, done.stdout.strip().removeprefix("git version "), ""


def _check_decoders() -> Finding:
    if importlib.util.find_spec("av") is None:
        return State.LIMITED, "PyAV is not installed: no frames or chunks of videos", "pip install av"
    return State.OK, f"PyAV {metadata.version('av')}", ""


def _check_reflinks() -> Finding:
    """Try to clone a block on the file system that holds (or would hold) the cache."""
    cache = _cache_here()
    try:
        place = next(path for path in (cache, *cache.parents) if path.is_dir())
        with tempfile.TemporaryFile(dir=place) as source, tempfile.TemporaryFile(dir=place) as copy:
            source.write(bytes(4096))
            source.flush()
            fcntl.ioctl(copy.fileno(), FICLONE, source.fileno())
    except PermissionError:
        return State.NO, f"{cache} may not be made or written", "set XDG_DATA_HOME, or use --cache"
    except OSError as error:
        detail = f"not on the file system of {cache} ({error.strerror}): commit copies"
        return State.LIMITED, detail, "a cache on btrfs, or on xfs made with reflink=1"
    return State.OK, f"on the file system of {cache}", ""


def _check_open_files() -> Finding:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard == resource.RLIM_INFINITY or hard >= ENOUGH_FILES:
        return State.OK, "no limit" if hard == resource.RLIM_INFINITY else f"up to {hard}", ""
    return State.LIMITED, f"only {hard}", f"raise the hard limit: ulimit -Hn {ENOUGH_FILES} (as root)"


def _check_openat2() -> Finding:
    if HAS_CACHED:
        return State.OK, "objects are opened in one call, cached ones without waiting", ""
    if HAS_OPENAT2:
        return State.LIMITED, "every open of an object takes a hop to a thread", "Linux 5.12 or newer"
    remedy = "Linux 5.6 or newer; a container's seccomp profile may forbid it, too"
    return State.LIMITED, "objects are opened a directory at a time", remedy


def _check_read_ahead() -> Finding:
    """Whether a mount's read-ahead can be raised above the kernel's 128 KiB."""
    settings = list(Path("/sys/class/bdi").glob("*/read_ahead_kb"))
    if any(os.access(setting, os.W_OK) for setting in settings):
        return State.OK, "can be raised for a mount", ""
    remedy = "mount as root where /sys is writable" if not _is_root() else "make /sys writable"
    return State.LIMITED, "stays at the kernel's default for a mount: large files are read slower", remedy


_CHECKS: Final[dict[str, Callable[[], Finding]]] = {
    "kernel": _check_kernel,
    "pyfuse3": _check_pyfuse3,
    "fuse device": _check_device,
    "mount": _check_mount,
    "private mount": _check_private_mount,
    "user namespaces": _check_user_namespaces,
    "allow_other": _check_allow_other,
    "mount helper": _check_mount_helper,
    "native layers": _check_native_layers,
    "openat2": _check_openat2,
    "read-ahead": _check_read_ahead,
    "open files": _check_open_files,
    "reflinks": _check_reflinks,
    "git": _check_git,
    "decoders": _check_decoders,
}
