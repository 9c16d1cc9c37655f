"""Our mounts and what each says of itself, asked without trust: a daemon may be dead, hung or a stranger's.

Called by `fusefs status`, `list` and `umount`. All mounts are asked at the same time, by children
with a deadline (`fusefs.bounded`).
"""

from __future__ import annotations

import errno
import json
import os
import select
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import msgspec

from fusefs.bounded import Outcome, call_all_bounded
from fusefs.mountinfo import Mount
from fusefs.status import Status

SECONDS: Final = 3.0
NAMED_SECONDS: Final = 15.0
"""For one mount that the user has named: nobody else's answer waits for it, and the machine may be busy."""
STATUS_FILES: Final = (".fusefs/status", ".fusefs-control/status")
"""Where a mount's status is; the second if the data takes the first name."""
CONTROL_INODES: Final = 1 << 48
"""The control directory's inodes are above this, those of data, which could lie, far below."""
STATUS_BYTES: Final = 1 << 16


class State(StrEnum):
    OK = "ok"
    DEAD = "dead"
    """The daemon is gone; readers get ENOTCONN."""
    HUNG = "hung"
    """The daemon did not answer in time."""
    DENIED = "denied"
    """Another user's mount, which does not let us in."""
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Found:
    """A mount and what it says of itself; `None` in `status` is not known."""

    mount: Mount
    state: State
    status: Status

    def to_dict(self) -> dict[str, Any]:
        """The status object of `--json`, with `state` before the fields of `.fusefs/status`."""
        values = asdict(self.status)
        return {"mountpoint": values.pop("mountpoint"), "state": self.state.value, **values}


def survey(mounts: Sequence[Mount]) -> list[Found]:
    """Ask every one of `mounts` (ours) how it is doing; in the order given."""
    return _ask(mounts, SECONDS)


def survey_named(mount: Mount) -> Found:
    """Ask the mount that a command is about."""
    (found,) = _ask([mount], NAMED_SECONDS)
    return found


def _ask(mounts: Sequence[Mount], seconds: float) -> list[Found]:
    outcomes = call_all_bounded([_Question(mount.mountpoint) for mount in mounts], seconds)
    return [_judge(mount, outcome) for mount, outcome in zip(mounts, outcomes, strict=True)]


@dataclass(frozen=True, slots=True)
class _Question:
    mountpoint: str

    def __call__(self) -> bytes:
        for name in STATUS_FILES:
            try:
                fd = os.open(Path(self.mountpoint, name), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            except (FileNotFoundError, NotADirectoryError):
                continue
            if os.fstat(fd).st_ino >= CONTROL_INODES:
                return os.read(fd, STATUS_BYTES)
        return b""


def _parse(data: bytes) -> Status | None:
    try:
        # Python's own reader, because it takes names that are not UTF-8.
        return msgspec.convert(json.loads(data), Status)
    except (ValueError, RecursionError, msgspec.MsgspecError):
        return None  # another version's status, or a stranger's


def _judge(mount: Mount, outcome: Outcome) -> Found:
    state = State.UNKNOWN
    if isinstance(outcome, bytes):
        status = _parse(outcome)
        if status is not None:
            # What the kernel says of the place holds, whatever a daemon of somebody else's claims.
            return Found(mount, State.OK, replace(status, mountpoint=mount.mountpoint))
    elif isinstance(outcome, TimeoutError):
        state = State.HUNG
    elif outcome.errno in (errno.ENOTCONN, errno.ECONNABORTED):
        state = State.DEAD
    elif outcome.errno in (errno.EACCES, errno.EPERM):
        state = State.DENIED
    unknown = dict.fromkeys(field.name for field in fields(Status))
    known = {"mountpoint": mount.mountpoint, "target": mount.target}
    return Found(mount, state, Status(**(unknown | known)))  # type: ignore[arg-type]  # None by construction


def await_end(pid: int, seconds: float) -> bool:
    """Wait until process `pid` has ended, for `seconds` at most; whether it has."""
    try:
        fd = os.pidfd_open(pid)
    except OSError as error:
        return error.errno == errno.ESRCH
    try:
        return bool(select.select([fd], [], [], seconds)[0])
    finally:
        os.close(fd)
