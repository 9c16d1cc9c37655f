"""`/dev/fuse`, mounted and unmounted: mount(2) with the right to it, else `fusermount3`.

Called by the command before a daemon exists, and by the daemon when it is told to end. Blocking,
with deadlines. The descriptor that comes back is the mount's life: when its last copy is closed,
readers get ENOTCONN.
"""

from __future__ import annotations

import array
import ctypes
import errno
import logging
import os
import re
import shutil
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fusefs import mountinfo
from fusefs.fuse_control import connection_directory
from fusefs.mountinfo import Mount
from store.errors import StoreError

DEVICE: Final = "/dev/fuse"
FUSE_CONF: Final = "/etc/fuse.conf"
HELPER: Final = "fusermount3"
HELPER_PATH: Final = "/usr/bin:/bin:/usr/local/bin:/usr/sbin:/sbin:/usr/local/sbin"
HELPER_SECONDS: Final = 20.0
MAX_SOURCE: Final = 1024
"""Bytes of the target that mountinfo shows; the kernel takes a page at most."""
MAX_BACKGROUND: Final = 64
"""Buffered reads that the kernel sends at once; its default of 12 starves parallel readers."""

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MNT_DETACH, UMOUNT_NOFOLLOW = 2, 8
CAP_SYS_ADMIN: Final = 21

_log = logging.getLogger(__name__)
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = (
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_ulong,
    ctypes.c_char_p,
)
_libc.umount2.argtypes = (ctypes.c_char_p, ctypes.c_int)


class MountFailed(StoreError):
    """The kernel or `fusermount3` would not mount or unmount."""


class MountBusy(MountFailed):
    """A mount cannot be unmounted because something in it is in use."""


@dataclass(frozen=True, slots=True)
class Mounted:
    """A mount of ours that waits for its daemon. `fd` is `/dev/fuse`, owned by the caller."""

    fd: int
    mount: Mount | None
    """None in native mode, where it comes when the daemon serves."""
    session: int = -1
    """In native mode the FUSE mount that is attached nowhere, owned by the caller; -1 where it is not ours to
    attach anything to it."""


def has_capability(number: int) -> bool:
    """Whether this process has the capability in effect, in its user namespace."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> number & 1)
    return False


def mount_fuse(mountpoint: str, source: str, *, allow_other: bool, noexec: bool = False) -> Mounted:
    """Mount FUSE, read-only, at `mountpoint` (absolute, without symlinks); nobody serves it yet.

    Raises `MountFailed` with the reason and the remedy.
    """
    if has_capability(CAP_SYS_ADMIN):
        fd = _mount_directly(mountpoint, source, allow_other, noexec)
    else:
        fd = _mount_by_helper(mountpoint, source, allow_other, noexec)
    mount = mountinfo.mount_at(mountpoint, mountinfo.read_mounts())
    if mount is None or not mount.is_ours:
        os.close(fd)
        raise MountFailed(f"{mountpoint}: the mount is gone again: something unmounted it")
    return Mounted(fd, mount)


def call_mount(source: str, target: str, fstype: str, flags: int, data: str = "") -> None:
    """mount(2). Raises OSError."""
    arguments = [os.fsencode(text) for text in (source, target, fstype)]
    if _libc.mount(*arguments, flags, data.encode()):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), target)


def shorten_source(source: str, most: int = MAX_SOURCE) -> str:
    """What mountinfo shows as the source: the end of a name that is too long for the kernel."""
    raw = os.fsencode(source)
    return source if len(raw) <= most else os.fsdecode(b"..." + raw[3 - most :])


def _mount_directly(mountpoint: str, source: str, allow_other: bool, noexec: bool) -> int:
    try:
        fd = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise MountFailed(explain_device(error)) from error
    # Only numbers go into the option string: the target, which may hold commas, is an argument
    # of its own. `max_read` must not be passed: libfuse negotiates it.
    data = f"fd={fd},rootmode=40000,user_id={os.geteuid()},group_id={os.getegid()},default_permissions"
    if allow_other:
        data += ",allow_other"
    flags = MS_RDONLY | MS_NOSUID | MS_NODEV | (MS_NOEXEC if noexec else 0)
    try:
        call_mount(shorten_source(source), mountpoint, mountinfo.FSTYPE, flags, data)
    except OSError as error:
        os.close(fd)
        if error.errno == errno.ENODEV:
            raise MountFailed("this kernel does not know FUSE: load it with `modprobe fuse`") from error
        raise MountFailed(
            f"cannot mount on {mountpoint}: {error.strerror}{_hint(error.strerror or '')}"
        ) from error
    return fd


def explain_device(error: OSError) -> str:
    """Why `/dev/fuse` cannot be opened, and the remedy."""
    if error.errno in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
        return (
            f"there is no {DEVICE}: load it with `modprobe fuse`; "
            "a container needs --device /dev/fuse --cap-add SYS_ADMIN"
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"no permission to open {DEVICE}: as root, `chmod 0666 {DEVICE}`"
    return f"cannot open {DEVICE}: {error.strerror}"


def _hint(complaint: str) -> str:
    """A remedy for what containers forbid even to root."""
    forbidden = os.geteuid() == 0 and any(
        os.strerror(number) in complaint for number in (errno.EPERM, errno.EACCES)
    )
    return "; a container needs --cap-add SYS_ADMIN --security-opt apparmor=unconfined" if forbidden else ""


def find_helper() -> str:
    """The absolute path of `fusermount3`, also where PATH is empty. Raises `MountFailed`."""
    found = shutil.which(HELPER, path=os.environ.get("PATH", "") + ":" + HELPER_PATH)
    if found is None:
        raise MountFailed(f"there is no {HELPER}, which mounts for ordinary users: install the package fuse3")
    return str(Path(found).absolute())


def _escape_option(value: str) -> str:
    """A value for fusermount3's option string, which splits at commas and has backslash escapes."""
    return re.sub(r"([\\,])", r"\\\1", value)


def _mount_by_helper(mountpoint: str, source: str, allow_other: bool, noexec: bool) -> int:
    helper = find_helper()
    if not Path(DEVICE).exists():
        raise MountFailed(explain_device(FileNotFoundError(errno.ENOENT, "")))
    if allow_other and os.getuid() != 0 and not _others_allowed():
        raise MountFailed(
            f"--allow-other is not permitted: root must put the line user_allow_other into {FUSE_CONF}"
        )
    options = ["ro", "nosuid", "nodev", "default_permissions", "subtype=fusefs"]
    options += ["allow_other"] * allow_other + ["noexec"] * noexec
    options.append(f"fsname={_escape_option(shorten_source(source))}")
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours, theirs:
        ours.settimeout(HELPER_SECONDS)
        try:
            done = subprocess.run(
                [helper, "-o", ",".join(options), "--", mountpoint],
                env={"_FUSE_COMMFD": str(theirs.fileno()), "PATH": HELPER_PATH, "LC_ALL": "C"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=[theirs.fileno()],
                cwd="/",
                timeout=HELPER_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise MountFailed(f"{helper} failed: {error}") from error
        theirs.close()
        fd = _receive_descriptor(ours) if done.returncode == 0 else -1
    if fd < 0:
        complaint = _complaint(done.stderr)
        raise MountFailed(f"cannot mount on {mountpoint}: {complaint}{_hint(complaint)}")
    os.set_inheritable(fd, False)
    return fd


def _receive_descriptor(sock: socket.socket) -> int:
    fds = array.array("i")
    _, ancillary, _, _ = sock.recvmsg(1, socket.CMSG_LEN(fds.itemsize), socket.MSG_CMSG_CLOEXEC)
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(data[: fds.itemsize])
    return fds[0] if fds else -1


def _complaint(stderr: bytes) -> str:
    lines = [line.strip() for line in os.fsdecode(stderr).splitlines() if line.strip()]
    return lines[-1].rpartition(f"{HELPER}: ")[2] if lines else f"{HELPER} gave no reason"


def _others_allowed() -> bool:
    try:
        with open(FUSE_CONF, encoding="utf-8", errors="replace") as file:
            return any(line.strip() == "user_allow_other" for line in file)
    except OSError:
        return False


def unmount(mount: Mount, *, lazy: bool = False) -> None:
    """Unmount `mount` if it is still the one at its path; one that is gone already is no error.

    Raises `MountBusy`, or `MountFailed` with the reason.
    """
    if not mountinfo.is_still_there(mount):
        return
    if has_capability(CAP_SYS_ADMIN):
        _unmount_directly(mount, lazy)
    else:
        _unmount_by_helper(mount, lazy)


def _unmount_directly(mount: Mount, lazy: bool) -> None:
    flags = UMOUNT_NOFOLLOW | (MNT_DETACH if lazy else 0)
    if _libc.umount2(os.fsencode(mount.mountpoint), flags) == 0:
        return
    number = ctypes.get_errno()
    if number == errno.EBUSY:
        raise MountBusy(f"{mount.mountpoint} is busy")
    if mountinfo.is_still_there(mount):  # not when somebody else was faster
        raise MountFailed(f"cannot unmount {mount.mountpoint}: {os.strerror(number)}")


def _unmount_by_helper(mount: Mount, lazy: bool) -> None:
    command = [find_helper(), "-u", *(["-z"] if lazy else []), "--", mount.mountpoint]
    try:
        done = subprocess.run(
            command,
            env={"PATH": HELPER_PATH, "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            cwd="/",
            timeout=HELPER_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MountFailed(f"cannot unmount {mount.mountpoint}: {error}") from error
    if done.returncode == 0 or not mountinfo.is_still_there(mount):
        return
    complaint = _complaint(done.stderr)
    if os.strerror(errno.EBUSY) in complaint:
        raise MountBusy(f"{mount.mountpoint} is busy")
    raise MountFailed(f"cannot unmount {mount.mountpoint}: {complaint}")


def tune(device: str, read_ahead: int) -> bool:
    """Raise what the kernel asks for ahead and at once, where that is permitted (root); best effort.

    `device` is `major:minor`, `read_ahead` is in bytes. To be called when the kernel has
    initialised the connection (a first request is answered): initialising sets both back. Returns
    whether the read-ahead is what was asked for.
    """
    minor = device.split(":")[1]
    raised = _write_setting(f"/sys/class/bdi/{device}/read_ahead_kb", read_ahead // 1024)
    try:
        with connection_directory(minor) as connection:
            _write_setting("max_background", MAX_BACKGROUND, connection)
            _write_setting("congestion_threshold", MAX_BACKGROUND * 3 // 4, connection)
    except OSError as error:
        _log.debug("the connection of %s has no settings: %s", device, error)
    return raised


def _write_setting(path: str, value: int, directory: int | None = None) -> bool:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC, dir_fd=directory)
        with open(descriptor, "w") as file:
            file.write(str(value))
    except OSError as error:
        _log.debug("cannot set %s to %d: %s", path, value, error.strerror)
        return False
    return True
