"""Who holds a mount that cannot be unmounted: processes, and mounts upon it.

Called by `fusefs umount`. Everything is read from `/proc`, or asked of descriptors opened with
O_PATH, which the mount's daemon never hears of. Without root only one's own processes are seen.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fusefs.mountinfo import Mount, read_mounts

MAX_NAMED: Final = 10
"""Processes named in one message."""


@dataclass(frozen=True, slots=True)
class Holder:
    """A process and what it holds: `working directory`, `root directory`, `open file` or `mapped file`."""

    pid: int
    command: str
    holds: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.command} ({self.pid}: {', '.join(self.holds)})"


def find_holders(mount: Mount) -> list[Holder]:
    """The processes that hold `mount`, as far as we may look."""
    holders = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            holds = tuple(_find_holds(entry, mount))
            if holds:
                command = (entry / "comm").read_text(errors="replace").strip()
                holders.append(Holder(int(entry.name), command, holds))
        except OSError:
            continue  # it has ended, or is not ours to look at
    return sorted(holders, key=lambda holder: holder.pid)


def find_sharers(mount: Mount) -> list[Holder]:
    """The processes, one a mount namespace, for which the file system of `mount` is mounted still."""
    own = Path("/proc/self/ns/mnt").readlink()
    sharers: dict[Path, Holder] = {}
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            namespace = (process / "ns" / "mnt").readlink()
            if namespace == own or namespace in sharers:
                continue
            if any(other.device == mount.device for other in read_mounts(process.name)):
                command = (process / "comm").read_text(errors="replace").strip()
                sharers[namespace] = Holder(int(process.name), command, ("another mount namespace",))
        except OSError:
            continue
    return list(sharers.values())


def _find_holds(process: Path, mount: Mount) -> Iterator[str]:
    for name, what in (("cwd", "working directory"), ("root", "root directory")):
        if _mount_id_of(process / name) == mount.mount_id:
            yield what
    if any(_mount_id_in(file) == mount.mount_id for file in (process / "fdinfo").iterdir()):
        yield "open file"
    major, minor = (int(number) for number in mount.device.split(":"))
    device = f"{major:02x}:{minor:02x}"
    with open(process / "maps", errors="replace") as maps:
        if any(line.split(maxsplit=4)[3] == device for line in maps):
            yield "mapped file"


def _mount_id_of(link: Path) -> int:
    """The mount that a link of `/proc/PID` leads to; the link is followed by the kernel, not by name."""
    fd = os.open(link, os.O_PATH | os.O_CLOEXEC)
    try:
        return _mount_id_in(Path(f"/proc/self/fdinfo/{fd}"))
    finally:
        os.close(fd)


def _mount_id_in(fdinfo: Path) -> int:
    with contextlib.suppress(OSError):  # a descriptor that was closed meanwhile
        for line in fdinfo.read_text().splitlines():
            if line.startswith("mnt_id:"):
                return int(line.split()[1])
    return -1


def describe_holders(mount: Mount, holders: Sequence[Holder], mounts: Sequence[Mount]) -> str:
    """One line's worth of who is to blame."""
    names = [str(holder) for holder in holders[:MAX_NAMED]]
    if len(holders) > MAX_NAMED:
        names.append(f"and {len(holders) - MAX_NAMED} more")
    names += [f"the mount on {above.mountpoint}" for above in mounts if above.parent_id == mount.mount_id]
    if names:
        return "held by " + ", ".join(names)
    return "held by a process that only root can see" if os.geteuid() else "held by something out of sight"
