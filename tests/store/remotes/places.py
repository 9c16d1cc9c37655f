"""Directories that servers show, for the tests of storages: what a test puts there is a file."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from store.remotes.opening import open_remote
from store.remotes.spec import RemoteSpec
from store.remotes.storage import Limits, Storage

_TIMES = itertools.count(1_700_000_000)


@dataclass(frozen=True, slots=True)
class FilePlace:
    """A directory below what a server shows, and how it is opened as a remote."""

    root: Path
    url: str
    options: Mapping[str, str] = field(default_factory=dict)
    ambient: bool = False

    def put(self, key: str, data: bytes) -> str:
        """A new file in the place of one that is there, as storages do it."""
        path = self.root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(".new")
        new.write_bytes(data)
        os.utime(new, (next(_TIMES), next(_TIMES)))  # nginx makes its tags of length and seconds
        new.replace(path)
        return ""

    def put_many(self, objects: Mapping[str, bytes]) -> None:
        for key, data in objects.items():
            self.put(key, data)

    def open(self, limits: Limits) -> Storage:
        spec = RemoteSpec("here", self.url, dict(self.options), self.ambient)
        return open_remote(spec, limits).storage


def fifo(path: Path) -> None:
    """Something that would block whoever opens it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(path)
