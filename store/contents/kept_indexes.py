"""`KeptIndexes`: archives' indexes of one remote, kept in a directory of the user's own for the next process.

What is in an index never changes, so it is found by its archive's name. It is kept as the remote gave it, and
believed no more: whoever finds it wrong drops it, and asks the remote. The keeper sweeps what nobody uses.

Blocking; any thread and process.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path
from typing import Final

INDEXES: Final = "indexes"
"""Below the user's own directory; there, a directory for each remote."""
LIMIT: Final = 16 << 20
"""Bytes of an index."""


class KeptIndexes:
    """Below `directory`, which is made when the first one is kept. Where that cannot be none are."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def read(self, name: str) -> bytes | None:
        """The index of the archive of that name; None where there is none."""
        try:
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            with open(os.open(self._directory / name, flags), "rb") as file:
                is_own = os.fstat(file.fileno()).st_uid == os.geteuid()
                data = file.read(LIMIT + 1) if is_own else b""
        except OSError:
            return None
        return data if 0 < len(data) <= LIMIT else None

    def keep(self, name: str, data: bytes) -> None:
        """Keep an index that is sound."""
        temporary = self._directory / f".{secrets.token_hex(8)}"
        with contextlib.suppress(OSError):
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                temporary.write_bytes(data)
                temporary.replace(self._directory / name)
            finally:
                temporary.unlink(missing_ok=True)

    def drop(self, name: str) -> None:
        with contextlib.suppress(OSError):
            (self._directory / name).unlink()
