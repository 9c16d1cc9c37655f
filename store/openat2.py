"""`openat2(2)`: open beneath a directory, through no symlink, and without waiting for the disk.

The cache may be shared with other users, so a path in it is hostile: the kernel itself refuses
links and `..`. `open_beneath(..., cached=True)` answers only from the kernel's name cache, which
lets the event loop open hits without a thread. The standard library has no such call, hence
ctypes. Where the kernel or a seccomp filter lacks it, directories are walked one at a time.

Source: openat2(2), linux/openat2.h.
"""

from __future__ import annotations

import ctypes
import os
from errno import EAGAIN, EINVAL, ENOSYS, EPERM
from typing import Final

_SYSCALL_OPENAT2: Final = 437  # the same number on every architecture
_RESOLVE_NO_XDEV: Final = 0x01
_RESOLVE_NO_MAGICLINKS: Final = 0x02
_RESOLVE_NO_SYMLINKS: Final = 0x04
_RESOLVE_BENEATH: Final = 0x08
_RESOLVE_CACHED: Final = 0x20
_STRICT: Final = _RESOLVE_BENEATH | _RESOLVE_NO_SYMLINKS | _RESOLVE_NO_MAGICLINKS
_SAFE: Final = os.O_CLOEXEC | os.O_NOFOLLOW
_SAFE_TO_READ: Final = _SAFE | os.O_NOCTTY | os.O_NONBLOCK  # refused by openat2 beside O_PATH


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


_syscall = ctypes.CDLL(None, use_errno=True).syscall
# What answers from the kernel's caches does not wait, and so need not let go of the interpreter: between
# many threads, to have it back takes longer than the call.
_quick_syscall = ctypes.PyDLL(None, use_errno=True).syscall
for _function in (_syscall, _quick_syscall):
    _function.restype = ctypes.c_long
    _function.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_size_t)


def _safe(flags: int) -> int:
    return flags | (_SAFE if flags & os.O_PATH else _SAFE_TO_READ)


def _how(flags: int, resolve: int) -> _OpenHow:
    return _OpenHow(flags=_safe(flags), mode=0, resolve=resolve)


# The structures are constant and passed by address: nothing is built for a call.
_HOWS: Final = {
    (flags, cached, one_mount): _how(
        flags, _STRICT | (_RESOLVE_CACHED if cached else 0) | (_RESOLVE_NO_XDEV if one_mount else 0)
    )
    for flags in (os.O_RDONLY, os.O_PATH)
    for cached in (False, True)
    for one_mount in (False, True)
}
_ADDRESSES: Final = {key: ctypes.addressof(how) for key, how in _HOWS.items()}
_HOW_BYTES: Final = ctypes.sizeof(_OpenHow)


def _call(directory: int, path: bytes, flags: int, cached: bool, one_mount: bool = False) -> int:
    call = _quick_syscall if cached else _syscall
    how = _ADDRESSES[flags, cached, one_mount]
    descriptor: int = call(_SYSCALL_OPENAT2, directory, path, how, _HOW_BYTES)
    if descriptor < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), os.fsdecode(path))
    return descriptor


def _probe(cached: bool) -> bool:
    """Does the kernel have the call (5.6), with the flag (5.12), and do we get to make it?"""
    directory = os.open("/", os.O_PATH | os.O_DIRECTORY)
    try:
        os.close(_call(directory, b".", os.O_PATH, cached))
    except OSError as error:
        if error.errno in (ENOSYS, EPERM, EINVAL):
            return False
        return error.errno == EAGAIN
    finally:
        os.close(directory)
    return True


HAS_OPENAT2: Final = _probe(cached=False)
HAS_CACHED: Final = HAS_OPENAT2 and _probe(cached=True)


def open_beneath(
    directory: int,
    path: bytes,
    *,
    flags: int = os.O_RDONLY,
    cached: bool = False,
    one_mount: bool = False,
) -> int:
    """Open `path` (relative, `/`-separated) below the open `directory`; returns a descriptor.

    `flags` is `O_RDONLY` or `O_PATH`. With `cached`, raises `BlockingIOError` where the kernel
    would have to ask the disk, or cannot tell. Otherwise raises what open(2) raises; a symlink
    anywhere on the way is `OSError` with ELOOP. With `one_mount`, what is mounted on the way is EXDEV, where
    the kernel has the call.
    """
    if cached:
        if not HAS_CACHED:
            raise BlockingIOError(EAGAIN, os.strerror(EAGAIN))
        return _call(directory, path, flags, True, one_mount)
    if HAS_OPENAT2:
        return _call(directory, path, flags, False, one_mount)
    return _walk(directory, path, flags)


def _walk(directory: int, path: bytes, flags: int) -> int:
    """The same a step at a time, for old kernels: each component is opened without following links."""
    *parents, name = path.split(b"/")
    if b".." in (*parents, name):
        raise OSError(EINVAL, "the path leaves its directory", os.fsdecode(path))
    here = os.dup(directory)
    try:
        for parent in parents:
            below = os.open(parent, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
            os.close(here)
            here = below
        return os.open(name, _safe(flags), dir_fd=here)
    finally:
        os.close(here)
