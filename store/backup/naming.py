"""`Naming`: which object bytes are that come one after the other. Blocking; one thread at a time."""

from __future__ import annotations

import hashlib

from store.hashing import Hasher
from store.oid import MD5, Oid


class Naming:
    """The object that the bytes must be, if that is known, or any."""

    def __init__(self, oid: Oid | None) -> None:
        self._oid = oid
        self._hash = hashlib.md5(usedforsecurity=False)
        self._hasher = None if oid is None or oid.algorithm == MD5 else Hasher(oid.algorithm)

    def update(self, data: bytes) -> None:
        """Take in the bytes that come next."""
        (self._hash if self._hasher is None else self._hasher).update(data)

    def digits(self) -> str:
        """The object's; empty where it is not the one that it must be. To be asked once, at the end."""
        if self._hasher is not None and self._oid is not None:
            return str(self._oid) if self._hasher.matches(self._oid) else ""
        digits = self._hash.hexdigest()
        return digits if self._oid is None or digits == str(self._oid) else ""
