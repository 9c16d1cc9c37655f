"""Which of some objects a remote lacks, by the fewest requests. Blocking; by the threads of a `Crew`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from store.oid import DVC_ALGORITHMS, Oid
from store.pushing.asking import Patience
from store.pushing.crew import Crew
from store.pushing.lacking import Item, ObjectShelves, Survey, directories
from store.remotes.remote import Remote

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
