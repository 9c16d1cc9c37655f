"""`send_hint`, which is `fusefs.hint`: a sampler tells a mount which files it will read next.

Paths go to the daemon over its control socket, which hears only the mount's owner and root. Blocking, but the
daemon answers at once. Any thread, any process.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from fusefs.control_socket import LINE_BYTES, ask

StrPath = str | bytes | os.PathLike[str] | os.PathLike[bytes]

STATUS_FILES: Final = (".fusefs/status", ".fusefs-control/status")
SECONDS: Final = 30.0
_ROOM: Final = LINE_BYTES - 256
"""Bytes of a message that paths may take."""

_names: dict[str, str] = {}
_lock = threading.Lock()


def send_hint(mountpoint: StrPath, paths: Iterable[StrPath]) -> int:
    """As `fusefs.hint` says."""
    place = str(Path(os.fsdecode(mountpoint)).absolute())
    taken = 0
    for some in _batches(place, paths):
        answer = _tell(place, {"hint": some})
        if "error" in answer:
            error = PermissionError if answer.get("denied") else ValueError
            raise error(f"{place}: {answer['error']}")
        taken += int(answer["taken"])
        if int(answer["taken"]) + int(answer["unknown"]) < len(some):
            break
    return taken


def _batches(place: str, paths: Iterable[StrPath]) -> Iterator[list[str]]:
    """The paths, from the mount's root, as many at a time as a message has room for."""
    prefix = place.rstrip("/") + "/"
    batch: list[str] = []
    room = _ROOM
    for given in paths:
        path = os.path.normpath(os.fsdecode(given)).removeprefix(prefix)
        size = len(json.dumps(path)) + 2
        if size > room and batch:
            yield batch
            batch, room = [], _ROOM
        if size <= room:  # what is longer is no path
            batch.append(path)
            room -= size
    if batch:
        yield batch


def _tell(place: str, message: dict[str, Any]) -> dict[str, Any]:
    with _lock:
        known = _names.get(place)
    if known is not None:
        try:
            return ask(known, message, SECONDS)
        except (OSError, ValueError):
            pass  # another daemon may be there by now
    name = _find_socket(place)
    with _lock:
        _names[place] = name
    return ask(name, message, SECONDS)


def _find_socket(place: str) -> str:
    for status in STATUS_FILES:
        try:
            name = json.loads(Path(place, status).read_bytes()).get("control")
        except FileNotFoundError:
            continue
        except (ValueError, AttributeError):
            break
        if isinstance(name, str) and name.startswith("@fusefs-"):
            return name
    raise FileNotFoundError(f"{place} is not the mountpoint of a mount of fusefs")
