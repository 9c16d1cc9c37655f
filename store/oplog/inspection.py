"""`Inspection`: what lies on a remote, by listing it or asking it, and whether it is what its names say.

Made by one thread, which can be interrupted; a `Crew` works.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Collection, Sequence
from typing import Final

from store.errors import RemoteAbsent, RemoteCorrupt, RemoteDenied, RemoteMissing
from store.hashing import Hasher
from store.layouts import object_path
from store.oplog.content_files import ContentFiles, is_archive, is_content
from store.oplog.holdings import Holdings, Key
from store.oplog.listing import list_objects
from store.oplog.logs import format_oid, parse_oid
from store.oplog.report import Finding, Report, Stray
from store.pushing.asking import Patience
from store.pushing.crew import Crew
from store.remotes.remote import Remote
from store.remotes.storage import UPLOADS, Address

JOBS: Final = 8


class Inspection:
    """Of one remote. `report` is told whether it can be listed, and how many objects were hashed."""

    def __init__(self, remote: Remote, crew: Crew, patience: Patience, report: Report) -> None:
        self._report = report
        self._remote = remote
        self._crew = crew
        self._patience = patience
        self._contents = ContentFiles(remote, crew, patience)
        self._lock = threading.Lock()
        self.moved: dict[Key, Key] = {}
        """What lies at another depth of prefix directories than logs say, and where they say that it lies."""

    def look(self, before: Holdings) -> dict[Key, int]:
        """What is on the remote, with its length, as far as it can be listed or logs tell of it.

        Raises `RemoteError`."""
        found: dict[Key, int] = {}
        try:
            if self._patience.run(lambda: self._remote.can_list):
                self._crew.run([lambda: found.update(self._patience.run(lambda: self._list(before)))])
                outside = [key for key in _expected(before) if not _is_object(key)]
                self._ask_all(outside, before, found)
                return found
        except RemoteAbsent:
            return {}
        except RemoteDenied as error:
            self._report.notes.append(str(error))
        self._report.can_list = False
        found.clear()
        self._ask_all(_expected(before), before, found)
        return found

    def _ask_all(self, keys: Sequence[Key], before: Holdings, found: dict[Key, int]) -> None:
        contents = [key for key in keys if is_content(key)]
        there = self._contents.look(contents, before.there, listing=self._report.can_list)
        found.update(((one.path, key[1]), one.size) for key, one in there.items())
        self.moved = {(one.path, key[1]): key for key, one in there.items() if one.path != key[0]}
        others = [key for key in keys if not is_content(key)]
        self._crew.each(others, lambda key: self._ask(key, found), JOBS)

    def _list(self, before: Holdings) -> dict[Key, int]:
        found: dict[Key, int] = {}
        for oid, listed in list_objects(self._remote.storage, _expected(before)):
            self._crew.check()
            found[object_path(oid), format_oid(oid)] = listed.size
        return found

    def _ask(self, key: Key, found: dict[Key, int]) -> None:
        try:
            size = self._patience.run(lambda: self._remote.storage.size(Address(key[0])))
        except RemoteMissing:
            return
        with self._lock:
            found[key] = size

    def find_strays(self, known: Collection[Key], *, adopt: bool) -> tuple[list[Stray], dict[Key, int]]:
        """What is in content directories and in no log, and what becomes known of it; uploads that have not
        ended. Where all was listed. Raises `RemoteError`."""
        strays, adopted = self._contents.strays(known, adopt=adopt)
        if self._report.can_list:
            self._crew.run([lambda: strays.extend(self._patience.run(self._uploads))])
        return strays, adopted

    def find_lost_catalogues(self, known: Collection[Key], *, deep: bool) -> list[Finding]:
        """Manifests of content directories that are there without what tells where their contents are."""
        lost = self._contents.lost_catalogues(known, deep=deep)
        return [Finding(oid, what, said, path) for oid, (path, what, said) in sorted(lost.items())]

    def _uploads(self) -> list[Stray]:
        try:
            listed = list(self._remote.storage.list(UPLOADS))
        except (RemoteAbsent, RemoteDenied, RemoteMissing):
            return []
        return [Stray(one.key, one.size, "an upload that runs, or has died") for one in listed]

    def find_damaged(self, keys: Sequence[Key]) -> set[Key]:
        """Those of the objects that do not have their hashes."""
        damaged: set[Key] = set()

        def read(key: Key) -> None:
            if not self._is_sound(key):
                with self._lock:
                    damaged.add(key)

        self._crew.each(keys, read, JOBS)
        return damaged

    def find_strange_archives(self, keys: Collection[Key]) -> set[str]:
        """The paths of archives among these that are not what their names say: of what is between their
        members readers know nothing, but `tar` does."""
        strange: set[str] = set()

        def read(key: Key) -> None:
            if not self._has_its_name(key):
                with self._lock:
                    strange.add(key[0])

        self._crew.each([key for key in keys if is_archive(key)], read, JOBS)
        return strange

    def _has_its_name(self, key: Key) -> bool:
        def read() -> bool:
            hasher = hashlib.sha256()
            with self._remote.storage.read(Address(key[0])) as body:
                for part in body:
                    self._crew.check()
                    hasher.update(part)
            return key[1] == f"sha256:{hasher.hexdigest()}"

        try:
            sound = self._patience.run(read)
        except RemoteMissing:
            return True  # somebody has removed it just now
        with self._lock:
            self._report.hashed += 1
        return sound

    def _is_sound(self, key: Key) -> bool:
        oid = parse_oid(key[1])
        if oid is None:
            return True
        named = oid

        def read() -> bool:
            hasher = Hasher(named.algorithm)
            with self._contents.open(key) as body:
                for part in body:
                    self._crew.check()
                    hasher.update(part)
            return hasher.matches(named)

        try:
            sound = self._patience.run(read)
        except RemoteMissing:
            if not self._contents.is_there(key):
                return True  # somebody has removed it just now
            sound = False  # no index tells of it
        except RemoteCorrupt:
            sound = False
        with self._lock:
            self._report.hashed += 1
        return sound


def _expected(before: Holdings) -> list[Key]:
    return [*before.there, *before.unsure]


def _is_object(key: Key) -> bool:
    oid = parse_oid(key[1])
    return oid is not None and object_path(oid) == key[0]
