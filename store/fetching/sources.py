"""`Sources`: what is known of the remotes that gave an object's bytes. Any thread.

Only the hash of a whole object says that its bytes are right, and it cannot say which were wrong. So when it
does not match, whoever gave all of them is not asked for this object for a while; where several did, nobody
is blamed; and from then on all bytes come from one remote, so that the next time somebody can be.
"""

from __future__ import annotations

import threading

from store.errors import RemoteCorrupt, RemoteError
from store.fetching.suspicion import Suspicion


class Sources:
    """The remotes of one object, by name."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._convicted: dict[str, Suspicion] = {}
        self._gave: set[str] = set()
        self._found = False
        self._one_only = False
        self._validators: dict[str, str] = {}

    @property
    def has_convicted(self) -> bool:
        return bool(self._convicted)

    def check(self, name: str) -> None:
        """May the remote be asked? Raises `RemoteCorrupt` for one that was convicted, and `RemoteError` while
        the bytes of another are taken."""
        with self._lock:
            self._check(name)

    def begin(self, name: str, validator: str) -> None:
        """The remote begins to give bytes, with this entity tag. Raises as `check` does."""
        with self._lock:
            self._check(name)
            self._gave.add(name)
            if validator:
                self._validators.setdefault(name, validator)

    def validator(self, name: str) -> str:
        """The entity tag that the remote's further bytes must have; empty for any."""
        with self._lock:
            return self._validators.get(name, "")

    def recall(self, name: str, validator: str) -> None:
        """What a partial of earlier tells of the remote."""
        with self._lock:
            if validator and name not in self._validators:
                self._validators[name] = validator

    def note_found(self) -> None:
        """Some bytes were here already, from whomever."""
        self._found = True

    def convict(self) -> None:
        """The whole had the wrong hash; all bytes will be fetched anew."""
        with self._lock:
            if len(self._gave) == 1 and not self._found:
                for name in self._gave:
                    self._convicted.setdefault(name, Suspicion()).note()
        self.begin_anew()

    def begin_anew(self) -> None:
        """All bytes will be fetched anew, from one remote."""
        with self._lock:
            self._gave.clear()
            self._validators.clear()
            self._found = False
            self._one_only = True

    def let_others(self) -> None:
        """Whoever gave the bytes so far does not go on: others may, and then nobody can be blamed."""
        with self._lock:
            self._found = self._found or bool(self._gave)
            self._gave.clear()

    def _check(self, name: str) -> None:
        if name in self._convicted and self._convicted[name].lasts():
            raise RemoteCorrupt("it gave bytes that are not the object's")
        if self._one_only and self._gave and name not in self._gave:
            raise RemoteError("it is not asked for an object that another remote gives")
