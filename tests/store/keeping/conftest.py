"""Caches with objects of all sorts."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from store.ledger import Ledger
from store.oid import Oid

REMOTE = "near 0123"


@dataclass(slots=True)
class Cache:
    """A cache and what a remote has."""

    root: Path
    remote: dict[Oid, int] = field(default_factory=dict)
    used: float = 0.0

    def path(self, oid: Oid) -> Path:
        return self.root / "files/md5" / oid.digest[:2] / str(oid)[2:]

    def put(self, data: bytes) -> Oid:
        """Somebody's own object."""
        oid = Oid(hashlib.md5(data, usedforsecurity=False).hexdigest())
        self.path(oid).parent.mkdir(parents=True, exist_ok=True)
        self.path(oid).write_bytes(data)
        self.path(oid).chmod(0o444)
        return oid

    def fetch(self, data: bytes, remote: str = REMOTE) -> Oid:
        """An object that we fetched, each used later than the one before."""
        oid = self.put(data)
        self.used += 100.0
        at = self.used
        ledger = Ledger(self.root, clock=lambda: at)
        ledger.arrived(oid, len(data), remote)
        ledger.close()
        self.remote[oid] = len(data)
        return oid


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    root = tmp_path / "cache"
    root.mkdir()
    return Cache(root)
