"""Private mount namespaces by system call: what one is entered with, and what it must not give away.

Called by `fusefs run`, in the child that becomes COMMAND, and by `mount.fusefs -N`. Blocking, for
a process with one thread. As root a mount namespace is enough; anybody else needs a user namespace
around it, in which the caller's uid and gid stay what they are. See user_namespaces(7).
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from fusefs import kernel_mount

CLONE_NEWNS: Final = 0x0002_0000
CLONE_NEWUSER: Final = 0x1000_0000
MS_REC: Final = 0x4000
MS_SLAVE: Final = 1 << 19
PR_SET_PDEATHSIG: Final = 1
PR_CAPBSET_READ: Final = 23
PR_CAPBSET_DROP: Final = 24

_libc = ctypes.CDLL(None, use_errno=True)


def _call(function: Callable[..., int], *arguments: int) -> int:
    result = function(*arguments)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def _prctl(option: int, argument: int) -> int:
    # Variadic in C: what is not given an explicit width is garbage in the upper half.
    return _call(_libc.prctl, *(ctypes.c_ulong(number) for number in (option, argument, 0, 0, 0)))  # type: ignore[arg-type]  # ctypes takes its own numbers


def enter_private_namespace() -> None:
    """Move this process into a mount namespace of its own, where what it mounts stays unseen.

    Raises OSError where that is refused; the process must then not go on, since it may be half-way.
    """
    if kernel_mount.has_capability(kernel_mount.CAP_SYS_ADMIN):
        _call(_libc.unshare, CLONE_NEWNS)
    else:
        uid, gid = os.geteuid(), os.getegid()
        _call(_libc.unshare, CLONE_NEWUSER | CLONE_NEWNS)
        # The kernel lets an ordinary user map a gid only when setgroups is given up; the
        # supplementary groups that the process has stay in force.
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    # Slave, not private: what is unmounted outside must go here too, where the system shares its
    # mounts, or a long command would keep every other mount and its daemon alive.
    kernel_mount.call_mount("none", "/", "none", MS_REC | MS_SLAVE)


def bounding_set() -> frozenset[int]:
    """The capabilities that this process, or anything it executes, could ever have."""
    capabilities = set()
    for number in range(64):
        try:
            if _prctl(PR_CAPBSET_READ, number):
                capabilities.add(number)
        except OSError:
            break  # behind the last one that the kernel knows
    return frozenset(capabilities)


def drop_capabilities(keep: frozenset[int]) -> None:
    """Give up, for this process's next program, every capability outside `keep`.

    A user namespace gives its maker all of them. An ordinary user's are gone at the next exec; a
    user 0 without the capability to mount would keep them.
    """
    for number in bounding_set() - keep:
        _prctl(PR_CAPBSET_DROP, number)


def die_with_parent(signal_number: int, parent: int) -> None:
    """Have the kernel send `signal_number` to this process when its parent ends; survives exec."""
    _prctl(PR_SET_PDEATHSIG, signal_number)
    if os.getppid() != parent:  # it ended before we asked
        os.kill(os.getpid(), signal_number)


def enter_mount_namespace(path: str) -> None:
    """Move this process into the mount namespace that the file `path` stands for. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _call(_libc.setns, fd, CLONE_NEWNS)
    except OSError as error:
        raise OSError(error.errno, f"cannot enter the namespace: {error.strerror}", path) from error
    finally:
        os.close(fd)
