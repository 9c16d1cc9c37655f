"""An EROFS image, mounted without a name: from the file itself (since Linux 6.12), or by a loop device.

Blocking. Source: the kernel's erofs.rst, linux/loop.h, loop(4). Caller: `fusefs.native.layers`.
"""

from __future__ import annotations

import fcntl
import os
import struct
from typing import Final

from fusefs.native import mount_api

_ATTRIBUTES: Final = mount_api.MOUNT_ATTR_RDONLY | mount_api.MOUNT_ATTR_NOSUID | mount_api.MOUNT_ATTR_NODEV
_LOOP_CONTROL: Final = "/dev/loop-control"
_LOOP_CTL_GET_FREE: Final = 0x4C82
_LOOP_CONFIGURE: Final = 0x4C0A
_LOOP_CONFIG: Final = struct.Struct("<II5Q4I64s64s32s2Q64x")
_READ_ONLY, _AUTOCLEAR = 1, 4
_TRIES: Final = 16
"""Others look for a free loop device at the same time."""


def mount_file(image: int) -> int:
    """Mount the image that is open as `image` and attach it nowhere; the mount's descriptor.

    Not before Linux 6.12, nor from tmpfs; and what lies on an overlay cannot be a layer of one then. Raises
    OSError with what the kernel said.
    """
    return _mount(f"/proc/self/fd/{image}")


def mount_by_loop(image: int) -> int:
    """The same by a loop device, which is free again when the mount has ended: it costs the pages twice, and
    takes what any disk may have. Raises OSError."""
    path, device = _open_loop(image)
    try:
        return _mount(path)
    finally:
        os.close(device)


def _mount(source: str) -> int:
    return mount_api.mount_detached("erofs", [("source", source), ("ro", None)], _ATTRIBUTES)


def _open_loop(file: int) -> tuple[str, int]:
    """A loop device that shows a file for as long as it is open or mounted."""
    flags = _READ_ONLY | _AUTOCLEAR
    config = _LOOP_CONFIG.pack(file, 0, 0, 0, 0, 0, 0, 0, 0, 0, flags, b"", b"", b"", 0, 0)
    control = os.open(_LOOP_CONTROL, os.O_RDWR | os.O_CLOEXEC)
    try:
        for tries_left in reversed(range(_TRIES)):
            path = f"/dev/loop{fcntl.ioctl(control, _LOOP_CTL_GET_FREE)}"
            device = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                fcntl.ioctl(device, _LOOP_CONFIGURE, config)
            except OSError:
                os.close(device)
                if not tries_left:
                    raise
            else:
                break
    finally:
        os.close(control)
    return path, device
