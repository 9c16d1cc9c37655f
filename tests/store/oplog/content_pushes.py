"""Versions that are pushed in content directories, with logs, and remotes that mix depths. No tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from store.cache_chain import CacheChain
from store.contents import archiving
from store.contents.names import ContentName, Place, parse_key
from store.contents.reading import Contents
from store.errors import RemoteError
from store.local_cache import LocalCache
from store.manifest import parse_manifest
from store.oid import Oid
from store.oplog.push_log import PushLog
from store.pushing.content_push import ContentPush
from store.remotes.remote import Remote
from tests.mount.datasets import Cache, filler, md5
from tests.store.oplog.remotes import Counted, User

SMALL = 1000
"""Bytes; what is larger goes into no archive, in these tests."""
FILES = {"a": b"a", "b": b"b", "whole": filler(2000, 1), "large": filler(200 << 10, 2)}
"""A version of every kind: an archive of two, one that is whole, one in parts."""


@pytest.fixture
def few_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that `FILES` has all kinds."""
    monkeypatch.setattr("store.pushing.content_push.WHOLE_BYTES", 1 << 17)
    monkeypatch.setattr("store.pushing.content_survey.WHOLE_BYTES", 1 << 17)
    monkeypatch.setattr(archiving, "SMALL_BYTES", SMALL)
    monkeypatch.setattr("store.pushing.content_push.SMALL_BYTES", SMALL)
    monkeypatch.setattr("store.pushing.content_survey.SMALL_BYTES", SMALL)


def push(user: User, *oids: Oid, storage: Counted | None = None) -> ContentPush:
    """As `User.push`, in content directories."""
    storage = storage or user.storage()
    log = PushLog(user.journal(storage))
    work = ContentPush(CacheChain(LocalCache(user.cache)), Remote(user.spec.name, storage), log=log)
    with log.running():
        work.run(oids)
    user.copies.compile(user.key)
    return work


def readable(user: User, *oids: Oid) -> set[str]:
    """The digests of what the versions have and anybody can read there, in either layout; each is proved."""
    found = set()
    storage = user.storage()
    remote = Remote("far", storage, contents=Contents("far", storage), manifests=oids)
    for oid in sorted({*oids, *(Oid(md5(data)) for data in contents_of(user, oids))}):
        try:
            with remote.read(oid) as body:
                data = b"".join(body)
        except RemoteError:
            continue
        if md5(data) == oid.digest:
            found.add(str(oid))
    return found


def contents_of(user: User, oids: tuple[Oid, ...]) -> Iterator[bytes]:
    """What versions consist of, as the user's cache has it."""
    cache = Cache(user.cache)
    for oid in oids:
        for entry in parse_manifest(cache.place(str(oid)).read_bytes(), str(oid)):
            yield cache.place(entry.md5).read_bytes()


def places(root: Path) -> Iterator[tuple[Path, Place]]:
    """The files of content directories that are there."""
    for path in sorted(path for path in (root / "contents").rglob("*") if path.is_file()):
        place = parse_key(path.relative_to(root).as_posix())
        assert place is not None, path
        yield path, place


def move(root: Path, depth: Callable[[ContentName], int]) -> None:
    """Have each content directory lie at another depth, as somebody else may have written it."""
    for path, place in places(root):
        there = root / place.name.key(place.file, depth(place.name))
        there.parent.mkdir(parents=True, exist_ok=True)
        path.rename(there)
