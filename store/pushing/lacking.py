"""Which of many objects a remote lacks, by the fewest requests: listings of their directories, or questions.

A page of a listing tells of a thousand objects, wanted or not, a question of one. One directory of two
hundred and fifty-six is listed, which tells what the others would cost. An object of another length than ours
counts as lacking: it is put again. Blocking; by the threads of a `Crew`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from store.errors import RemoteAbsent, RemoteDenied, RemoteMissing
from store.oid import Oid
from store.pushing.asking import Patience
from store.pushing.crew import Crew
from store.remotes.remote import Remote

PAGE_OBJECTS: Final = 1000
MOST_PAGES: Final = 16
"""Of a listing of everything, until directories are listed side by side."""
NOT_HERE: Final = -1


class Item(NamedTuple):
    """An object and its length in bytes; `NOT_HERE` where no cache has it."""

    oid: Oid
    size: int


class Wanted(NamedTuple):
    """What may be lacking: a name among those of its kind, and its length in bytes, or `NOT_HERE`."""

    kind: str
    name: str
    size: int


@dataclass(frozen=True, slots=True)
class Directory:
    """What is looked for in one of the 256 directories that things of a kind lie in."""

    kind: str
    """Of objects, the hash algorithm."""
    prefix: str
    """The first two digits of all names."""
    lengths: Mapping[str, int]
    """Names (of objects: as DVC prints oids), and lengths in bytes."""

    def wanted(self) -> Iterator[Wanted]:
        for name, size in self.lengths.items():
            yield Wanted(self.kind, name, size)


class Shelves(Protocol):
    """What is looked through: a remote, in one of its layouts. Any thread."""

    def can_list(self) -> bool:
        """Whether `list` is there at all. May raise `RemoteError`."""

    def list(self, kind: str, prefix: str) -> Iterator[tuple[str, int]]:
        """Names and lengths of all that is in a directory. Raises `RemoteError`."""

    def list_all(self, kind: str) -> Iterator[tuple[str, int]] | None:
        """The same of all directories, where there may be few; None where that is not likely."""

    def size(self, wanted: Wanted) -> int:
        """The length of what has that name. Raises `RemoteError`."""


class ObjectShelves:
    """Objects, as DVC lays them out."""

    def __init__(self, remote: Remote) -> None:
        self._remote = remote

    def can_list(self) -> bool:
        return self._remote.can_list

    def list(self, kind: str, prefix: str) -> Iterator[tuple[str, int]]:
        for oid, size in self._remote.list_sizes(kind, prefix):
            yield str(oid), size

    def list_all(self, kind: str) -> Iterator[tuple[str, int]] | None:
        return None

    def size(self, wanted: Wanted) -> int:
        return self._remote.size(Oid.parse(wanted.name, wanted.kind))


class Survey:
    """Looks through one remote."""

    def __init__(self, shelves: Shelves, crew: Crew, patience: Patience, jobs: int) -> None:
        self._shelves = shelves
        self._crew = crew
        self._patience = patience
        self._jobs = jobs
        self._lock = threading.Lock()
        self._lacking: list[Wanted] = []

    def find(self, directories: Sequence[Directory]) -> list[Wanted]:
        """What the remote lacks. Raises `RemoteError`, `Stopped`."""
        try:
            try:
                others = self._list(directories)
            except RemoteDenied:  # who may not list may still ask
                self._lacking.clear()
                others = directories
            wanted = [one for directory in others for one in directory.wanted()]
            self._crew.each(wanted, self._ask, self._jobs)
        except RemoteAbsent:  # the first object that is put makes it
            return [one for directory in directories for one in directory.wanted()]
        return self._lacking

    def _list(self, directories: Sequence[Directory]) -> Sequence[Directory]:
        """List what is cheaper listed; what is left to be asked for."""
        wanted = sum(len(directory.lengths) for directory in directories)
        if wanted <= len(directories) or not self._patience.run(self._shelves.can_list):
            return directories
        for kind in {directory.kind for directory in directories}:
            some = [directory for directory in directories if directory.kind == kind]
            if len(some) > MOST_PAGES and self._list_all(some):
                directories = [directory for directory in directories if directory.kind != kind]
                wanted -= sum(len(directory.lengths) for directory in some)
        if not directories:
            return []
        first, *others = directories
        pages = self._list_one(first)
        if len(others) * pages >= wanted - len(first.lengths):
            return others
        self._crew.each(others, self._list_one, self._jobs)
        return []

    def _list_one(self, directory: Directory) -> int:
        """Learn from one directory; how many pages its listing has."""

        def look() -> tuple[set[str], int]:
            listing = self._shelves.list(directory.kind, directory.prefix)
            return self._learn(listing, directory.lengths, None)

        found, count = self._patience.run(look)
        self._note([one for one in directory.wanted() if one.name not in found])
        return max(1, -(-count // PAGE_OBJECTS))

    def _list_all(self, directories: Sequence[Directory]) -> bool:
        """Learn all that is to be known of a kind, if its listing is short."""
        lengths = {name: size for directory in directories for name, size in directory.lengths.items()}
        most = MOST_PAGES * PAGE_OBJECTS

        def look() -> tuple[set[str], int] | None:
            listing = self._shelves.list_all(directories[0].kind)
            return None if listing is None else self._learn(listing, lengths, most)

        answer = self._patience.run(look)
        if answer is None or answer[1] > most:
            return False
        found, _ = answer
        self._note([one for directory in directories for one in directory.wanted() if one.name not in found])
        return True

    def _learn(
        self, listing: Iterator[tuple[str, int]], lengths: Mapping[str, int], most: int | None
    ) -> tuple[set[str], int]:
        """Which of the things are there in their lengths, and how many have been listed."""
        found: set[str] = set()
        count = 0
        try:
            for name, size in listing:
                self._crew.check()
                count += 1
                if name in lengths and lengths[name] in (size, NOT_HERE):
                    found.add(name)
                if most is not None and count > most:
                    break
        except RemoteMissing:  # a remote that has nothing there may say so
            return set(), 0
        return found, count

    def _ask(self, wanted: Wanted) -> None:
        try:
            size = self._patience.run(lambda: self._shelves.size(wanted))
        except RemoteMissing:
            self._note([wanted])
        else:
            if wanted.size not in (size, NOT_HERE):
                self._note([wanted])

    def _note(self, lacking: Sequence[Wanted]) -> None:
        with self._lock:
            self._lacking.extend(lacking)


def directories(kind: str, lengths: Iterable[tuple[str, int]]) -> list[Directory]:
    """Names and lengths, by the directories that they lie in."""
    found: dict[str, dict[str, int]] = {}
    for name, size in lengths:
        found.setdefault(name[:2], {})[name] = size
    return [Directory(kind, prefix, named) for prefix, named in sorted(found.items())]
