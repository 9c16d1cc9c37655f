"""`ContentGarbage`: what of a remote's content directories (`store.contents`) no kept revision names.

A content goes by itself, an archive when all of its members may go, a part when no index that stays names it.
Everything below `contents/` is put by pushes that write logs: what is in none of them is on its way or
nobody's, and stays, and what such a manifest names stays with it. An index that cannot be read keeps what it
may name.

Blocking; by the threads of a `Crew`.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from store.collecting.kept import Kept
from store.collecting.plan import ARCHIVES, FILES, INDEXES, MANIFESTS, PARTS, Amount, Thing
from store.contents import names
from store.contents.finding import read_whole
from store.contents.index import decode_archive, decode_parts
from store.contents.names import ContentName, Place, parse_key
from store.contents.sealing import DIGEST_BYTES, LARGEST, values
from store.errors import ObjectCorrupt, RemoteCorrupt, RemoteMissing
from store.oid import Oid
from store.pushing.asking import Patience
from store.pushing.crew import Crew
from store.remotes.storage import Address, Listed, Storage

JOBS: Final = 16
YOUNG: Final = "young"
UNLOGGED: Final = "unlogged"
UNREADABLE: Final = "unreadable"


@dataclass(frozen=True, slots=True)
class _File:
    """What lies at a key."""

    place: Place
    listed: Listed
    stays: str
    """Why it stays if nothing kept names it; empty for nothing."""


@dataclass(slots=True)
class Verdict:
    """What there is below `contents/`."""

    there: Amount = field(default_factory=Amount)
    kept: Amount = field(default_factory=Amount)
    garbage: list[Thing] = field(default_factory=list)
    stays: dict[str, Amount] = field(default_factory=dict)

    def add(self, file: _File, kind: str, why: str, *, is_kept: bool = False) -> None:
        """One more, which is kept, stays or goes."""
        size = Amount(1, file.listed.size)
        self.there = self.there.plus(size)
        if is_kept:
            self.kept = self.kept.plus(size)
        elif why:
            self.stays[why] = self.stays.get(why, Amount()).plus(size)
        else:
            self.garbage.append(Thing(file.listed.key, kind, file.listed.size, None))


class ContentGarbage:
    """Of one remote. First `list_all`, then `staying_manifests`, then `judge`."""

    def __init__(
        self, storage: Storage, kept: Kept, is_logged: Callable[[str], bool], since: float, crew: Crew
    ) -> None:
        """`is_logged` tells whether a log names something at a key; what came after `since` is young."""
        self._storage = storage
        self._kept = kept
        self._is_logged = is_logged
        self._since = since
        self._crew = crew
        self._patience = Patience(crew)
        self._lock = threading.Lock()
        self._files: dict[ContentName, dict[str, list[_File]]] = {}

    def list_all(self) -> None:
        """Raises `RemoteError`."""
        self._files.clear()
        with contextlib.suppress(RemoteMissing):
            for listed in self._storage.list(names.ROOT):
                self._crew.check()
                place = parse_key(listed.key)
                if place is None:
                    continue  # it is not of this layout, and not ours
                young = YOUNG if not 0 < listed.modified <= self._since else ""
                of_log = place.file not in (names.CATALOGUE, names.ARCHIVE_INDEX)
                unlogged = UNLOGGED if of_log and not self._is_logged(listed.key) else ""
                files = self._files.setdefault(place.name, {})
                files.setdefault(place.file, []).append(_File(place, listed, young or unlogged))

    def staying_manifests(self) -> Iterator[Oid]:
        """Manifests that no kept revision names and that stay, with what they name."""
        for name, files in self._files.items():
            oid = name.oid
            if oid is not None and oid.is_tree and oid not in self._kept and _reason(files):
                yield oid

    def judge(self, held: Kept) -> Verdict:
        """What goes, where `held` stays because such manifests name it. Raises `RemoteError`."""
        verdict = Verdict()
        indexes: list[tuple[Oid, _File]] = []
        for name, files in self._files.items():
            oid = name.oid
            if oid is None:
                continue
            is_kept, why = oid in self._kept, _reason(files) or (YOUNG if oid in held else "")
            for file in _all(files):
                verdict.add(file, _kind(oid, file), why, is_kept=is_kept)
                if file.place.file == names.PARTS_INDEX and (is_kept or why):
                    indexes.append((oid, file))
        self._judge_archives(held, verdict)
        self._judge_parts(indexes, verdict)
        return verdict

    def _judge_archives(self, held: Kept, verdict: Verdict) -> None:
        found: dict[ContentName, str] = {}
        kept: set[ContentName] = set()

        def look(name: ContentName) -> None:
            files = self._files[name]
            why = _reason(files)
            for file in files.get(names.ARCHIVE_INDEX, ()):
                try:
                    index = decode_archive(self._read(file), name.digest)
                except (ObjectCorrupt, RemoteCorrupt):
                    why = why or UNREADABLE
                    continue
                members = list(values(index.digests, DIGEST_BYTES))
                if self._kept.has_any(index.algorithm, members):
                    with self._lock:
                        kept.add(name)
                elif held.has_any(index.algorithm, members):
                    why = why or YOUNG
            with self._lock:
                found[name] = why

        archives = [name for name in self._files if name.namespace == names.ARCHIVES]
        self._crew.each(archives, look, JOBS)
        for name in archives:
            for file in _all(self._files[name]):
                kind = ARCHIVES if file.place.file == names.ARCHIVE else INDEXES
                verdict.add(file, kind, found[name], is_kept=name in kept)

    def _judge_parts(self, indexes: Collection[tuple[Oid, _File]], verdict: Verdict) -> None:
        """`indexes` are those that stay."""
        named: set[str] = set()
        unreadable = False

        def look(index: tuple[Oid, _File]) -> None:
            nonlocal unreadable
            oid, file = index
            try:
                parts = {piece.part for piece in decode_parts(self._read(file), oid).pieces()}
            except (ObjectCorrupt, RemoteCorrupt):
                unreadable = True
            else:
                with self._lock:
                    named.update(parts)

        self._crew.each(list(indexes), look, JOBS)
        for name, files in self._files.items():
            if name.namespace == names.PARTS:
                why = _reason(files) or (UNREADABLE if unreadable else "")
                for file in _all(files):
                    verdict.add(file, PARTS, why, is_kept=name.digest in named)

    def _read(self, file: _File) -> bytes:
        address = Address(file.listed.key)
        return self._patience.run(partial(read_whole, self._storage, address, LARGEST))


def _kind(oid: Oid, file: _File) -> str:
    if file.place.file != names.WHOLE:
        return INDEXES
    return MANIFESTS if oid.is_tree else FILES


def _all(files: dict[str, list[_File]]) -> Iterator[_File]:
    for some in files.values():
        yield from some


def _reason(files: dict[str, list[_File]]) -> str:
    """Why what lies in a directory stays together."""
    return next((file.stays for file in _all(files) if file.stays), "")
