"""What the kernel lets this user do, found by doing it. Run as a child process, never imported.

`fusefs.capabilities` starts this file by its path, with a deadline, once for each probe: a probe
that hangs is killed, and because everything is mounted in the child's own mount namespace, its
end takes all of it away. Only the standard library is used, so that it starts fast and without
`site`. One line on standard output says what was found; exit status 1 says that it cannot be done.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

CLONE_NEWNS: Final = 0x00020000
CLONE_NEWUSER: Final = 0x10000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_REC, MS_PRIVATE = 1, 2, 4, 16384, 1 << 18

# The new mount API came after the system call tables were unified: these numbers are the same on
# every architecture but alpha.
SYS_FSOPEN, SYS_FSCONFIG, SYS_FSMOUNT = 430, 431, 432
FSOPEN_CLOEXEC, FSMOUNT_CLOEXEC = 1, 1
FSCONFIG_SET_FLAG, FSCONFIG_SET_STRING, FSCONFIG_CMD_CREATE = 0, 1, 6

SANDBOX: Final = "/tmp"
"""Covered with a tmpfs in the private namespace: probes leave nothing on any disk."""

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def _syscall(number: int, what: str, *arguments: int | bytes | None) -> int:
    # Variadic integers must be passed as longs: the upper half of an int's register is undefined.
    widened = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    return _check(_libc.syscall(ctypes.c_long(number), *widened), what)


def _mount(source: str, target: str, kind: str | None, flags: int, data: str = "") -> None:
    result = _libc.mount(
        source.encode(),
        target.encode(),
        kind.encode() if kind else None,
        ctypes.c_ulong(flags),
        data.encode(),
    )
    _check(result, f"mount {kind or target}")


_kept: Final[list[int]] = []
"""Descriptors of directories that may lie below the sandbox."""


def _enter_private_namespace(new_user: bool, kept: Sequence[str] = ()) -> None:
    """Go into a mount namespace of our own, and first into a user namespace if `new_user`."""
    uid, gid = os.getuid(), os.getgid()
    _check(_libc.unshare(CLONE_NEWNS | (CLONE_NEWUSER if new_user else 0)), "unshare")
    if new_user:
        # The group map of an unprivileged process may only be written once setgroups is refused.
        for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
            Path("/proc/self", name).write_text(text)
    _mount("none", "/", None, MS_REC | MS_PRIVATE)
    _kept.extend(os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) for path in kept)
    _mount("fusefs-probe", SANDBOX, "tmpfs", MS_NOSUID | MS_NODEV, "size=1m,mode=700")


def _enter_user_namespace() -> str:
    _enter_private_namespace(new_user=True)
    return "with mounts of their own"


def _mount_fuse(new_user: bool) -> str:
    """Mount FUSE without a daemon: the kernel accepts it, and nothing may touch the directory."""
    _enter_private_namespace(new_user)
    directory = f"{SANDBOX}/mnt"
    Path(directory).mkdir()
    device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    options = f"fd={device},rootmode=40000,user_id={os.getuid()},group_id={os.getgid()}"
    _mount("fusefs-probe", directory, "fuse", MS_RDONLY | MS_NOSUID | MS_NODEV, options)
    os.close(device)
    return "in a user namespace" if new_user else "as root"


def _mount_overlay(new_user: bool) -> str:
    """Serve a file whose name comes from one layer and whose bytes from a data-only one; below that is the
    directory that the command line names, if any."""
    _enter_private_namespace(new_user, sys.argv[2:])
    tree, data, content = f"{SANDBOX}/tree", f"{SANDBOX}/data", b"fusefs"
    Path(tree).mkdir()
    Path(data).mkdir()
    Path(data, "object").write_bytes(content)
    with open(f"{tree}/name", "wb") as file:
        file.truncate(len(content))
    prefix = "user" if new_user else "trusted"
    os.setxattr(f"{tree}/name", f"{prefix}.overlay.metacopy", b"")
    os.setxattr(f"{tree}/name", f"{prefix}.overlay.redirect", b"/object")

    context = _syscall(SYS_FSOPEN, "fsopen", b"overlay", FSOPEN_CLOEXEC)
    strings = [("source", "fusefs-probe"), ("lowerdir+", tree), ("datadir+", data)]
    strings += [("datadir+", f"/proc/self/fd/{directory}") for directory in _kept]
    if not new_user:
        strings += [("redirect_dir", "on"), ("metacopy", "on")]
    flags = ["ro", "userxattr"] if new_user else ["ro"]
    for key in flags:
        _syscall(SYS_FSCONFIG, f"overlay option {key}", context, FSCONFIG_SET_FLAG, key.encode(), None, 0)
    for key, value in strings:
        what = f"overlay option {key}"
        _syscall(SYS_FSCONFIG, what, context, FSCONFIG_SET_STRING, key.encode(), value.encode(), 0)
    _syscall(SYS_FSCONFIG, "overlay", context, FSCONFIG_CMD_CREATE, None, None, 0)
    mounted = _syscall(SYS_FSMOUNT, "fsmount", context, FSMOUNT_CLOEXEC, MS_RDONLY | MS_NOSUID | MS_NODEV)
    served = os.read(os.open("name", os.O_RDONLY, dir_fd=mounted), 100)
    if served != content:
        raise OSError(f"the overlay served {len(served)} wrong bytes")
    return "in a user namespace" if new_user else "as root"


PROBES: Final[dict[str, Callable[[], str]]] = {
    "fuse-root": lambda: _mount_fuse(new_user=False),
    "fuse-user": lambda: _mount_fuse(new_user=True),
    "overlay-root": lambda: _mount_overlay(new_user=False),
    "overlay-user": lambda: _mount_overlay(new_user=True),
    "user-namespace": _enter_user_namespace,
}


def main() -> int:
    try:
        print(PROBES[sys.argv[1]]())
    except OSError as error:
        print(f"{error.filename}: {error.strerror}" if error.filename else error.strerror or error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
