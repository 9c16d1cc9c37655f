"""What a commit tells while it works. Called by the thread that commits, a few times a second."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Somebody who watches a commit."""

    def begin(self, files: int, size: int) -> None:
        """So many files, of so many bytes together, will be read."""

    def update(self, files: int, size: int) -> None:
        """So many files and bytes were read until now."""

    def end(self) -> None:
        """All are read, or the commit was given up."""


class Silence:
    """Nobody watches."""

    def begin(self, files: int, size: int) -> None: ...

    def update(self, files: int, size: int) -> None: ...

    def end(self) -> None: ...
