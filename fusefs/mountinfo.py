"""What is mounted where, from `/proc/self/mountinfo`: text only, a mount is never touched.

Called by the command line and by the daemon when it ends. Blocking, but never for long: nothing
here looks inside a FUSE mount, whose daemon may be dead or hung. Format: proc_pid_mountinfo(5).
"""

# Paths are text as the kernel gave it; Path would fold what must stay.
# ruff: noqa: PTH109, PTH115, PTH116, PTH118, PTH120

from __future__ import annotations

import errno
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

FSTYPE: Final = "fuse.fusefs"
NATIVE_FSTYPE: Final = "overlay"
FETCH_LAYER: Final = "fusefs-fetch"
"""The last layer of a mount in native mode, by which it is known."""
NATIVE_SOURCE: Final = "fusefs:"
"""What its source begins with where the kernel does not say how layers are called (before Linux 6.13); what
the user named comes behind."""
AUTOMOUNT_FSTYPE: Final = "autofs"
MAX_LINKS: Final = 40
"""Symbolic links followed in one path; the kernel's own limit."""

_LAST_OPTION = re.compile(rb",datadir\+=/%b(,|$)" % FETCH_LAYER.encode())
_OCTAL = re.compile(rb"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of mountinfo. `device` is `major:minor`, as the kernel names the file system."""

    mount_id: int
    parent_id: int
    device: str
    mountpoint: str
    fstype: str
    source: str
    root: str = "/"
    """What of the file system is mounted, a path in it."""
    has_fetch_layer: bool = False

    @property
    def is_ours(self) -> bool:
        return self.fstype == FSTYPE or self.is_native

    @property
    def is_native(self) -> bool:
        """An overlay of ours (`fusefs.native.layers`)."""
        is_marked = self.has_fetch_layer or self.source.startswith(NATIVE_SOURCE)
        return self.fstype == NATIVE_FSTYPE and is_marked

    @property
    def is_automount(self) -> bool:
        """A place where an automounter has something mounted on top as soon as anybody looks."""
        return self.fstype == AUTOMOUNT_FSTYPE

    @property
    def target(self) -> str:
        """What the user named when he mounted it, if it is ours."""
        is_prefixed = self.is_native and not self.has_fetch_layer
        return self.source.removeprefix(NATIVE_SOURCE) if is_prefixed else self.source

    @property
    def st_dev(self) -> int:
        """The device as `stat` gives it."""
        major, minor = self.device.split(":")
        return os.makedev(int(major), int(minor))


def _unescape(field: bytes) -> str:
    return os.fsdecode(_OCTAL.sub(lambda found: bytes([int(found[1], 8)]), field))


def parse_mountinfo(data: bytes) -> list[Mount]:
    """The mounts in the kernel's order, parents before what is mounted on them."""
    mounts = []
    for line in data.splitlines():
        before, _, after = line.partition(b" - ")
        fields, kind = before.split(b" "), after.split(b" ")
        mounts.append(
            Mount(
                mount_id=int(fields[0]),
                parent_id=int(fields[1]),
                device=fields[2].decode(),
                mountpoint=_unescape(fields[4]),
                fstype=_unescape(kind[0]),
                source=_unescape(kind[1]),
                root=_unescape(fields[3]),
                has_fetch_layer=_LAST_OPTION.search(kind[2]) is not None,
            )
        )
    return mounts


def read_mounts(pid: int | str = "self") -> list[Mount]:
    """The mounts that process `pid` sees."""
    with open(f"/proc/{pid}/mountinfo", "rb") as file:
        return parse_mountinfo(file.read())


def mount_at(mountpoint: str, mounts: Sequence[Mount]) -> Mount | None:
    """The topmost mount at exactly `mountpoint`, or None."""
    stacked = [mount for mount in mounts if mount.mountpoint == mountpoint]
    covered = {mount.parent_id for mount in stacked}
    tops = [mount for mount in stacked if mount.mount_id not in covered]
    return tops[-1] if tops else None


def visible_mounts(mounts: Sequence[Mount]) -> list[Mount]:
    """Our mounts that can be reached by their path, in the kernel's order."""
    return [mount for mount in mounts if mount.is_ours and mount_at(mount.mountpoint, mounts) == mount]


def is_still_there(mount: Mount) -> bool:
    """Whether this very mount, and not another that took its place, is on top at its path."""
    return mount_at(mount.mountpoint, read_mounts()) == mount


def kind_below(path: str, mounts: Sequence[Mount]) -> str:
    """The type of the file system that a directory lies on; empty where mountinfo does not tell. It is looked
    at."""
    try:
        device = os.stat(path).st_dev
    except OSError:
        return ""
    return next((mount.fstype for mount in mounts if mount.st_dev == device), "")


def resolve(path: str, mounts: Sequence[Mount]) -> str:
    """`path` made absolute and free of symlinks, as realpath does, but without a look into our mounts.

    What lies below one of our mountpoints is appended as it stands. Raises OSError (ELOOP) for
    links that never end.
    """
    stops = {mount.mountpoint for mount in mounts if mount.is_ours}
    here = "/"
    rest = os.path.join(os.getcwd(), path).split("/")[::-1]
    links = 0
    while rest:
        name = rest.pop()
        if name in ("", "."):
            continue
        if name == "..":
            here = os.path.dirname(here)
            continue
        step = os.path.join(here, name)
        if step in stops:
            return os.path.normpath(os.path.join(step, *rest[::-1]))
        try:
            link = os.readlink(step)
        except OSError:
            here = step  # not a link, or not there: whoever uses the path will say so
            continue
        links += 1
        if links > MAX_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        if link.startswith("/"):
            here = "/"
        rest.extend(link.split("/")[::-1])
    return here


def mount_containing(path: str, mounts: Sequence[Mount]) -> Mount | None:
    """Our mount at or above `path` (resolved), or None."""
    while True:
        mount = mount_at(path, mounts)
        if mount is not None and mount.is_ours:
            return mount
        if path in ("/", ""):
            return None
        path = os.path.dirname(path)
