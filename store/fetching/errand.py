"""`Errand`: what a courier is sent for (`store.fetching.courier`). Belongs to the event loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from store.fetching.download import Wanted
from store.remotes.remote import Remote

T = TypeVar("T")


class Sender(Protocol):
    """Who has sent it."""

    def forget(self, value: object) -> None: ...


class Errand(Generic[T]):
    """An object that the courier is to bring, or whose length it is to tell: a `Job` for who waits."""

    def __init__(
        self,
        sender: Sender,
        remote: Remote,
        wanted: Wanted,
        ended: Callable[[Errand[T]], object],
        *,
        question: bool = False,
    ) -> None:
        self.remote = remote
        self.question = question
        self.wanted = wanted
        self.reserved = 0
        """Bytes of memory that are set apart for it."""
        self._sender = sender
        self._ended = ended
        self._value: T | None = None
        self._error: Exception | None = None
        self._is_abandoned = False

    def value(self) -> T:
        """What came. Raises what the remote said, `CallLost`, `CacheUnusable`."""
        if self._value is None:
            assert self._error is not None  # one of the two is set
            raise self._error
        return self._value

    def abandon(self) -> None:
        """Nobody waits for it any longer: what comes is forgotten."""
        self._is_abandoned = True
        if self._value is not None:
            self._sender.forget(self._value)
        self._value = None

    def end(self, value: T | None, error: Exception | None = None) -> None:
        """It has been done, or could not be."""
        self._value, self._error = value, error
        if not self._is_abandoned:
            self._ended(self)
        elif value is not None:
            self.abandon()
