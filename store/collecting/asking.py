"""What of some objects a remote lacks, by the fewest requests. Blocking; by the threads of a `Crew`."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Final

from store.collecting.plan import Thing
from store.errors import RemoteMissing
from store.oid import DVC_ALGORITHMS, Oid
from store.pushing.asking import Patience
from store.pushing.crew import Crew
from store.pushing.lacking import NOT_HERE, Item, ObjectShelves, Survey, directories
from store.remotes.remote import Remote
from store.remotes.storage import Address

JOBS: Final = 16


def find_lacking(remote: Remote, items: Sequence[Item], crew: Crew) -> set[Oid]:
    """Those that it does not have, or, unless an item's size is `NOT_HERE`, has in another length.

    Raises `RemoteError`, `Stopped`.
    """
    wanted = []
    for algorithm in DVC_ALGORITHMS:
        lengths = [(str(item.oid), item.size) for item in items if item.oid.algorithm == algorithm]
        wanted += directories(algorithm, lengths)
    lacking = Survey(ObjectShelves(remote), crew, Patience(crew), JOBS).find(wanted)
    return {Oid.parse(one.name, one.kind) for one in lacking}


def find_gone(remote: Remote, things: Sequence[Thing], crew: Crew) -> list[Thing]:
    """Those that are not there. Raises `RemoteError`, `Stopped`."""
    patience, lock = Patience(crew), threading.Lock()
    gone: set[str] = set()

    def ask(thing: Thing) -> None:
        try:
            patience.run(lambda: remote.storage.size(Address(thing.path)))
        except RemoteMissing:
            with lock:
                gone.add(thing.path)

    items = [Item(thing.oid, NOT_HERE) for thing in things if thing.oid is not None]
    lacking = find_lacking(remote, items, crew) if items else set()
    crew.each([thing for thing in things if thing.oid is None], ask, JOBS)
    return [thing for thing in things if thing.oid in lacking or thing.path in gone]
