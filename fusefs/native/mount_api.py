"""The kernel's mount API of descriptors: file systems that are mounted before anybody can see them.

Source: fsopen(2), fsconfig(2), fsmount(2), move_mount(2), open_tree(2), linux/mount.h. The standard library
has none of them, hence ctypes. Blocking: a file system that is served by a daemon may be asked meanwhile.
Every failure is an `OSError` whose text is what the kernel said of it. Callers: `fusefs.native.layers`,
`fusefs.native.switching`.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable
from typing import Final

MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC = 1, 2, 4, 8

# The calls are younger than the common table of system calls: one number on every architecture.
_OPEN_TREE, _MOVE_MOUNT, _FSOPEN, _FSCONFIG, _FSMOUNT, _FSPICK = 428, 429, 430, 431, 432, 433
_CLOEXEC: Final = 1
_SET_FLAG, _SET_STRING, _SET_FD, _CREATE, _RECONFIGURE = 0, 1, 5, 6, 7
_OPEN_TREE_CLONE: Final = 1
_MOVE_EMPTY_PATH, _MOVE_BENEATH = 0x04, 0x200
_AT_FDCWD: Final = -100
_LOG_BYTES: Final = 4096

_libc = ctypes.CDLL(None, use_errno=True)

Option = tuple[str, str | int | None]
"""A name, and a text, a descriptor, or nothing."""


def mount_detached(kind: str, options: Iterable[Option], attributes: int) -> int:
    """Make a file system of `kind` and mount it nowhere; the mount's descriptor."""
    context = _call(_FSOPEN, kind.encode(), _CLOEXEC)
    try:
        try:
            for name, value in options:
                _set(context, name, value)
            _call(_FSCONFIG, context, _CREATE, None, None, 0)
            return _call(_FSMOUNT, context, _CLOEXEC, attributes)
        except OSError as error:
            raise OSError(error.errno, _explain(context, kind, error)) from None
    finally:
        os.close(context)


def clone_mount(path: str) -> int:
    """What is at `path`, alone and mounted nowhere, as a mount of its own; its descriptor."""
    return _call(_OPEN_TREE, _AT_FDCWD, os.fsencode(path), _OPEN_TREE_CLONE | os.O_CLOEXEC)


def attach(mount: int, path: str, *, beneath: bool = False) -> None:
    """Attach a detached mount at `path`; with `beneath`, under the mount that is on top there."""
    flags = _MOVE_EMPTY_PATH | (_MOVE_BENEATH if beneath else 0)
    _call(_MOVE_MOUNT, mount, b"", _AT_FDCWD, os.fsencode(path), flags)


def number_of(mount: int) -> int:
    """Of a mount's descriptor: the mount's number in mountinfo."""
    with open(f"/proc/self/fdinfo/{mount}") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("mnt_id:"))


def forget_unused(path: str) -> None:
    """Have the file system that is mounted at `path`, read-only, drop every name that nobody uses."""
    context = _call(_FSPICK, _AT_FDCWD, os.fsencode(path), _CLOEXEC)
    try:
        _set(context, "ro", None)  # what is not repeated would be changed
        _call(_FSCONFIG, context, _RECONFIGURE, None, None, 0)
    finally:
        os.close(context)


def _set(context: int, name: str, value: str | int | None) -> None:
    if value is None:
        _call(_FSCONFIG, context, _SET_FLAG, name.encode(), None, 0)
    elif isinstance(value, str):
        _call(_FSCONFIG, context, _SET_STRING, name.encode(), os.fsencode(value), 0)
    else:
        _call(_FSCONFIG, context, _SET_FD, name.encode(), None, value)


def _call(number: int, *arguments: int | bytes | None) -> int:
    # Variadic in C: what is not given an explicit width is garbage in the upper half.
    widened = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    result: int = _libc.syscall(ctypes.c_long(number), *widened)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def _explain(context: int, kind: str, error: OSError) -> str:
    """The kernel's own words, where it has any: they wait in the context."""
    said = []
    try:
        while line := os.read(context, _LOG_BYTES):
            said.append(line.decode(errors="replace").strip()[2:])  # behind "e " or "w "
    except OSError:
        pass  # that was all
    return "; ".join(filter(None, said)) or f"{kind}: {error.strerror}"
