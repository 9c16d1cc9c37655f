"""The logs that lie on a remote: its own, copies of other remotes' and those of caches; and which to bring.

What a remote lists is hostile input. Blocking; any thread.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from store.errors import RemoteAbsent, RemoteCorrupt, RemoteMissing
from store.oplog import log_files
from store.oplog.logs import DIRECTORY, LARGEST, LAST_LINE, LogName
from store.remotes.storage import Address, Storage

COPIES: Final = "META/copies/"
"""On a remote: logs of other remotes, in a directory each."""
CACHES: Final = "META/caches/"
"""On a remote: what caches have whose users have said so, in a directory each."""
MOST_LOGS: Final = 10_000
"""Of one remote; `fusefs remote fsck` makes one of them."""
MOST_BYTES: Final = 4 << 30
"""Of one remote's logs."""
MOST_REMOTES: Final = 256
_PLACE: Final = re.compile(rf"{DIRECTORY}|({COPIES}|{CACHES})[0-9a-f]{{32}}/")


def list_logs(storage: Storage) -> dict[str, dict[str, int]]:
    """The logs on a remote and their lengths, by the directories that they lie in. Raises `RemoteError`."""
    found: dict[str, dict[str, int]] = {}
    if storage.can_list:
        with contextlib.suppress(RemoteAbsent, RemoteMissing):
            for listed, size, _ in storage.list("META/"):
                directory, _, name = listed.rpartition("/")
                prefix = f"{directory}/"
                if not _PLACE.fullmatch(prefix) or LogName.parse(name) is None:
                    continue
                if prefix in found or len(found) < MOST_REMOTES:
                    found.setdefault(prefix, {})[name] = size
    return found


def owner_of(prefix: str, key: str) -> str:
    """Whose logs lie in a directory of the remote `key`."""
    return key if prefix == DIRECTORY else prefix.split("/")[-2]


def choose(logs: Mapping[str, int], here: Mapping[str, int], notes: list[str]) -> Sequence[str]:
    """Those that are to be read: new, of a bearable size, and no plans of what has ended."""
    wanted: list[str] = []
    total = 0
    for log, size in sorted(logs.items(), reverse=True):  # ends before their begins
        if here.get(log) == size or (log.startswith("begin==") and f"end=={log[7:]}" in logs):
            continue
        total += max(size, 0)
        if size > LARGEST or total > MOST_BYTES or len(wanted) >= MOST_LOGS:
            notes.append(f"{log} is left out: there are too many logs, or too large ones")
            continue
        wanted.append(log)
    return wanted


def bring(storage: Storage, prefix: str, log: str, place: int) -> bytes:
    """Copy a log of a remote's into a directory; what it ends with. Raises `RemoteError`, `OSError`."""
    tail = b""

    def parts() -> Iterator[bytes]:
        nonlocal tail
        total = 0
        with storage.read(Address(prefix + log)) as body:
            for part in body:
                total += len(part)
                if total > LARGEST:
                    raise RemoteCorrupt(f"the log {log} is longer than any may be")
                tail = (tail + part)[-LAST_LINE:]
                yield part

    log_files.write(place, log, parts())
    return tail
