"""Remotes with content directories, laid out by hand at any depth; and storages that count requests."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio
import xxhash

from store.contents.archiving import Archive, build_archive, grouped
from store.contents.catalogue import Catalogue
from store.contents.index import Piece, encode_parts
from store.contents.names import (
    ARCHIVE,
    ARCHIVE_INDEX,
    CATALOGUE,
    PARTS_INDEX,
    WHOLE,
    WRITTEN_DEPTH,
    ContentName,
)
from store.engine import Engine, Settings, open_engine
from store.errors import RemoteMissing
from store.fetching.remote_set import RemoteSet
from store.oid import Oid
from store.remotes.opening import open_remote
from store.remotes.remote import Remote
from store.remotes.spec import RemoteSpec
from store.remotes.storage import Address, Body, Listed, WritableStorage
from store.tree import UNKNOWN
from tests.mount.datasets import entries_of, manifest_bytes

SECONDS = 60
PIECE = 256 << 10


def oid_of(data: bytes) -> Oid:
    return Oid(hashlib.md5(data, usedforsecurity=False).hexdigest())


@dataclass(frozen=True, slots=True)
class ContentRemote:
    """The layout below a directory."""

    root: Path

    def place(self, name: ContentName, file: str, depth: int = WRITTEN_DEPTH) -> Path:
        return self.root / name.key(file, depth)

    def put(self, name: ContentName, file: str, data: bytes, depth: int = WRITTEN_DEPTH) -> Path:
        place = self.place(name, file, depth)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
        return place

    def put_whole(self, data: bytes, depth: int = WRITTEN_DEPTH) -> Path:
        return self.put(ContentName.of(oid_of(data)), WHOLE, data, depth)

    def put_parts(self, data: bytes, depth: int = WRITTEN_DEPTH, piece: int = PIECE) -> list[Piece]:
        pieces = []
        for start in range(0, len(data), piece):
            part = data[start : start + piece]
            name = hashlib.sha256(part).hexdigest()
            pieces.append(Piece(start, len(part), name, xxhash.xxh3_128_digest(part)))
            self.put(ContentName.of_part(name), WHOLE, part, depth)
        oid = oid_of(data)
        self.put(ContentName.of(oid), PARTS_INDEX, encode_parts(oid, pieces), depth)
        return pieces

    def put_archive(self, contents: Iterable[bytes], depth: int = WRITTEN_DEPTH) -> Archive:
        archive = build_archive([(oid_of(data), data) for data in contents])
        name = ContentName.of_archive(archive.name)
        self.put(name, ARCHIVE, archive.data, depth)
        self.put(name, ARCHIVE_INDEX, archive.index, depth)
        return archive

    def put_version(
        self,
        archived: Mapping[str, bytes],
        *,
        whole: Mapping[str, bytes] | None = None,
        in_parts: Mapping[str, bytes] | None = None,
        depth: int = WRITTEN_DEPTH,
        catalogue: bool = True,
    ) -> Oid:
        """A version's contents, its catalogue and its manifest."""
        whole, in_parts = whole or {}, in_parts or {}
        contents = {data: len(data) for _, data in sorted(archived.items())}
        archives = [self.put_archive(group, depth) for group in grouped(contents.items())]
        for data in whole.values():
            self.put_whole(data, depth)
        for data in in_parts.values():
            self.put_parts(data, depth)
        manifest = manifest_bytes(entries_of({**archived, **whole, **in_parts}))
        oid = Oid(oid_of(manifest).digest, is_tree=True)
        if catalogue:
            told = Catalogue(
                oid,
                tuple(archive.name for archive in archives),
                {oid_of(data).raw: len(data) for data in whole.values()},
                {oid_of(data).raw: len(data) for data in in_parts.values()},
            )
            self.put(ContentName.of(oid), CATALOGUE, told.to_bytes(), depth)
        self.put(ContentName.of(oid), WHOLE, manifest, depth)
        return oid


@dataclass
class Counted:
    """A storage that notes what it is asked for."""

    storage: WritableStorage
    requests: list[tuple[str, str, int]] = field(default_factory=list)
    """What was asked, the key, and how many bytes came."""

    @property
    def can_list(self) -> bool:
        return self.storage.can_list

    @property
    def moved(self) -> int:
        return sum(size for _, _, size in self.requests)

    def of(self, kind: str, ending: str = "") -> list[str]:
        return [key for asked, key, _ in self.requests if asked == kind and key.endswith(ending)]

    def size(self, address: Address) -> int:
        self.requests.append(("size", address.key, 0))
        return self.storage.size(address)

    @contextlib.contextmanager
    def read(
        self, address: Address, offset: int = 0, length: int | None = None, validator: str = ""
    ) -> Iterator[Body]:
        try:
            answer = self.storage.read(address, offset, length, validator)
            with contextlib.ExitStack() as stack:
                body = stack.enter_context(answer)
                self.requests.append(("read", address.key, body.length))
                yield body
        except RemoteMissing:
            self.requests.append(("missed", address.key, 0))
            raise

    def list(self, prefix: str) -> Iterator[Listed]:
        self.requests.append(("list", prefix, 0))
        return self.storage.list(prefix)

    def put(self, key: str, parts: Iterable[bytes], size: int, *, if_absent: bool = False) -> bool:
        return self.storage.put(key, parts, size, if_absent=if_absent)

    def delete(self, keys: Any) -> None:
        self.storage.delete(keys)

    def close(self) -> None:
        self.storage.close()


@dataclass
class Reader:
    """An engine that reads remotes in directories."""

    engine: Engine
    remotes: RemoteSet

    async def read(self, oid: Oid, known: int = UNKNOWN, offset: int = 0, length: int = -1) -> bytes:
        store = self.engine.store
        opened = await store.open(oid, known, None, self.remotes)
        try:
            end = opened.size if length < 0 else offset + length
            parts = []
            while offset < end:
                part = bytes(await store.read(opened, offset, min(end - offset, 128 << 10)))
                if not part:
                    break
                parts.append(part)
                offset += len(part)
            return b"".join(parts)
        finally:
            store.close(opened)


@contextlib.asynccontextmanager
async def reading(
    tmp_path: Path, *roots: Path, manifests: tuple[Oid, ...] = (), **settings: Any
) -> AsyncIterator[tuple[Reader, list[Counted]]]:
    """Remotes `remote0`, `remote1`, … in these directories, and what each of them is asked."""
    storages = {
        str(root): Counted(open_remote(RemoteSpec(f"remote{number}", str(root))).storage)
        for number, root in enumerate(roots)
    }
    specs = [
        RemoteSpec(f"remote{number}", str(root), manifests=manifests) for number, root in enumerate(roots)
    ]
    settled = Settings((tmp_path / "cache",), tmp_path / "blobs", tmp_path / "own", **settings)
    with trio.fail_after(SECONDS):
        async with open_engine(settled, lambda spec: Remote(spec.name, storages[spec.url])) as made:
            yield Reader(made, made.remote_set(specs)), list(storages.values())
