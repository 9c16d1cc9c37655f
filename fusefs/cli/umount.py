"""`fusefs umount MOUNTPOINT…`: unmounts, and waits until the daemon is gone."""

from __future__ import annotations

import argparse
import time
from typing import Any

from fusefs import kernel_mount, mountinfo
from fusefs.bounded import call_bounded
from fusefs.cli import print_error
from fusefs.holders import MAX_NAMED, describe_holders, find_holders, find_sharers
from fusefs.kernel_mount import MountBusy, MountFailed
from fusefs.mountinfo import Mount
from fusefs.survey import State, await_end, survey_named
from store.errors import InputError, StoreError

MOMENT_SECONDS = 2.0
PAUSE_SECONDS = 0.02
SOON_SECONDS = 3.0
END_SECONDS = 60.0
LOOK_SECONDS = 10.0

EPILOG = """\
examples:
  fusefs umount /mnt/data
  fusefs umount --lazy /mnt/a /mnt/b   even if something in them is in use
"""


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "umount",
        help="unmount, also what a crashed daemon left behind",
        description="Unmount. Returns when the daemon is gone; says who holds a mount that is busy.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("mountpoints", metavar="MOUNTPOINT", nargs="+")
    parser.add_argument(
        "-z", "--lazy", action="store_true", help="detach a busy mount now; it ends when it is let go"
    )


def run(options: argparse.Namespace) -> int:
    status = 0
    for mountpoint in options.mountpoints:
        try:
            unmount_path(mountpoint, lazy=options.lazy)
        except StoreError as error:
            print_error(str(error))
            status = 1
    return status


def unmount_path(path: str, *, lazy: bool) -> None:
    """Unmount our mount at `path`. Raises `InputError` if there is none, `MountFailed` if it stays."""
    mount = find_mount(path)
    found = survey_named(mount)
    dead = found.state is State.DEAD
    _unmount(mount, lazy=lazy or dead)  # what holds a dead mount can do nothing with it
    if found.status.pid is not None and not lazy:
        _await_daemon(mount, found.status.pid, found.status.supervisor or found.status.pid)


def _unmount(mount: Mount, *, lazy: bool) -> None:
    """Anybody may look into a mount for a moment, `df` and `fusefs list` among them: they are waited for."""
    until = time.monotonic() + MOMENT_SECONDS
    while True:
        try:
            return kernel_mount.unmount(mount, lazy=lazy)
        except MountBusy as error:
            if time.monotonic() >= until:
                raise MountBusy(f"{error}: {_blame(mount)}; --lazy detaches it all the same") from error
        time.sleep(PAUSE_SECONDS)  # nobody is told when a mount is let go


def _await_daemon(mount: Mount, pid: int, last: int) -> None:
    """Wait until a daemon has ended, and its supervisor: `last` is who ends last."""
    if await_end(last, SOON_SECONDS):
        return
    sharers = find_sharers(mount)
    if sharers:
        names = ", ".join(str(sharer) for sharer in sharers[:MAX_NAMED])
        print_error(f"{mount.mountpoint} is unmounted here; its daemon ({pid}) still serves {names}")
    elif not await_end(last, END_SECONDS):
        raise MountFailed(f"{mount.mountpoint} is unmounted, but its daemon ({pid}) has not ended yet")


def find_mount(path: str) -> Mount:
    """Our mount at exactly `path`. Raises `InputError`."""
    mounts = mountinfo.read_mounts()
    place = mountinfo.resolve(path, mounts)
    mount = mountinfo.mount_at(place, mounts)
    if mount is None:
        raise InputError(f"{path} is not a mountpoint")
    if not mount.is_ours:
        raise InputError(f"{path} is not a mount of fusefs: {mount.fstype} from {mount.source}")
    return mount


def _blame(mount: Mount) -> str:
    def look() -> bytes:
        return describe_holders(mount, find_holders(mount), mountinfo.read_mounts()).encode(
            errors="backslashreplace"
        )

    try:
        # In a child: the memory map of a process that is stuck cannot always be read.
        return call_bounded(look, LOOK_SECONDS).decode()
    except OSError:
        return "its holders cannot be found out"
