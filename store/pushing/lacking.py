"""Which of many objects a remote lacks, by the fewest requests: listings of their directories, or questions.

A page of a listing tells of a thousand objects, wanted or not, a question of one. One directory of two
hundred and fifty-six is listed, which tells what the others would cost. An object of another length than ours
counts as lacking: it is put again. Blocking; by the threads of a `Crew`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from store.errors import RemoteAbsent, RemoteDenied, RemoteMissing
from store.oid import Oid
from store.pushing.asking import Patience
from store.pushing.crew import Crew
from store.remotes.remote import Remote

PAGE_OBJECTS: Final = 1000
NOT_HERE: Final = -1


class Item(NamedTuple):
    """An object and its length in bytes; `NOT_HERE` where no cache has it."""

    oid: Oid
    size: int


@dataclass(frozen=True, slots=True)
class Part:
    """Objects that lie in one directory of a remote."""

    algorithm: str
    prefix: str
    objects: Mapping[str, int]
    """Oids as DVC prints them, and lengths."""

    def items(self) -> Iterator[Item]:
        for text, size in self.objects.items():
            yield Item(Oid.parse(text, self.algorithm), size)


class Survey:
    """Looks through one remote."""

    def __init__(self, remote: Remote, crew: Crew, patience: Patience, jobs: int) -> None:
        self._remote = remote
        self._crew = crew
        self._patience = patience
        self._jobs = jobs
        self._lock = threading.Lock()
        self._lacking: list[Item] = []

    def find(self, parts: Sequence[Part]) -> list[Item]:
        """What the remote lacks. Raises `RemoteError`, `Stopped`."""
        try:
            try:
                others = self._list(parts)
            except RemoteDenied:  # who may not list may still ask
                self._lacking.clear()
                others = parts
            self._crew.each([item for part in others for item in part.items()], self._ask, self._jobs)
        except RemoteAbsent:  # the first object that is put makes it
            return [item for part in parts for item in part.items()]
        return self._lacking

    def _list(self, parts: Sequence[Part]) -> Sequence[Part]:
        """List what is cheaper listed; what is left to be asked for."""
        wanted = sum(len(part.objects) for part in parts)
        if wanted <= len(parts) or not self._patience.run(lambda: self._remote.can_list):
            return parts
        first, *others = parts
        pages = self._list_part(first)
        if len(others) * pages >= wanted - len(first.objects):
            return others
        self._crew.each(others, self._list_part, self._jobs)
        return []

    def _list_part(self, part: Part) -> int:
        """Learn from one directory; how many pages its listing has."""

        def look() -> tuple[dict[str, int], int]:
            found, count = {}, 0
            for oid, size in self._remote.list_sizes(part.algorithm, part.prefix):
                self._crew.check()
                count += 1
                if str(oid) in part.objects:
                    found[str(oid)] = size
            return found, count

        try:
            found, count = self._patience.run(look)
        except RemoteMissing:
            found, count = {}, 0  # a remote that has nothing there may say so
        lacking = [item for item in part.items() if not _is_there(item, found.get(str(item.oid)))]
        self._note(lacking)
        return max(1, -(-count // PAGE_OBJECTS))

    def _ask(self, item: Item) -> None:
        size: int | None
        try:
            size = self._patience.run(lambda: self._remote.size(item.oid))
        except RemoteMissing:
            size = None
        if not _is_there(item, size):
            self._note([item])

    def _note(self, lacking: Sequence[Item]) -> None:
        with self._lock:
            self._lacking.extend(lacking)


def _is_there(item: Item, size: int | None) -> bool:
    return size is not None and item.size in (size, NOT_HERE)
