"""Every object that lies on a remote, by listing it. Blocking; any thread."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from store.errors import InputError, RemoteMissing
from store.layouts import OBJECT_ROOTS, object_path
from store.oid import MD5, MD5_DOS2UNIX, Oid
from store.oplog.holdings import Key
from store.remotes.storage import Listed, Storage

_PLACES: Final = {
    MD5: (f"{OBJECT_ROOTS[MD5]}/",),
    MD5_DOS2UNIX: tuple(f"{number:02x}/" for number in range(256)),
}


def list_objects(storage: Storage, known: Iterable[Key]) -> Iterator[tuple[Oid, Listed]]:
    """The objects in DVC's layout. Keys that are none are passed over.

    DVC 2's are looked for where one is `known`: they lie in 256 places. Raises `RemoteError`."""
    is_old = any(name.startswith(f"{MD5_DOS2UNIX}:") for _, name in known)
    for algorithm in (MD5, MD5_DOS2UNIX) if is_old else (MD5,):
        for place in _PLACES[algorithm]:
            try:
                for listed in storage.list(place):
                    oid = object_at(listed.key, algorithm)
                    if oid is not None:
                        yield oid, listed
            except RemoteMissing:
                continue  # a remote that has nothing there may say so


def object_at(path: str, algorithm: str) -> Oid | None:
    """The object that lies at a key; None for a key that no object has."""
    root = OBJECT_ROOTS[algorithm]
    below = path.removeprefix(f"{root}/") if root else path
    try:
        oid = Oid.parse(below.replace("/", "", 1), algorithm)
    except InputError:
        return None
    return oid if object_path(oid) == path else None
