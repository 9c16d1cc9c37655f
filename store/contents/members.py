"""Members of archives as answers: a run of them by one request, each held against its oid.

Blocking; any thread.
"""

from __future__ import annotations

import logging
from array import array
from collections.abc import Iterator, Mapping
from typing import Final

from store.contents.index import ArchiveIndex
from store.contents.windows import Brought, Run
from store.errors import RangeRefused, RemoteCorrupt, RemoteError
from store.hashing import bytes_match
from store.layouts import object_path
from store.oid import Oid
from store.remotes.storage import CHUNK_BYTES, Address, Storage
from store.shards.tar_format import BLOCK, padding

log = logging.getLogger(__name__)

_SIZE_FIELD: Final = slice(124, 136)
_NAME_BYTES: Final = 100


class MemberBody:
    """A part of a member, which is here already."""

    validator: Final = ""

    def __init__(self, data: bytes, offset: int, length: int, along: Mapping[Oid, bytes]) -> None:
        self.size = len(data)
        self.length = length
        self.along = along
        """Other members that the same request brought, for whoever can keep them; all are proved."""
        self._data = data
        self._offset = offset

    def __iter__(self) -> Iterator[bytes]:
        end = self._offset + self.length
        for at in range(self._offset, end, CHUNK_BYTES):
            yield self._data[at : min(at + CHUNK_BYTES, end)]


def ends_of(archive: ArchiveIndex) -> array[int]:
    """Where the members of an archive end, padding included."""
    both = zip(archive.offsets, archive.lengths, strict=True)
    return array("Q", (offset + length + padding(length) for offset, length in both))


def bring_run(storage: Storage, name: str, address: Address, archive: ArchiveIndex, run: Run) -> Brought:
    """The members of a run, from the archive at `address`. `name` is the remote's, for messages.

    Those that are not what their oids say are told in place of their bytes. Raises `RemoteError`.
    """
    begin = archive.offsets[run.first] - BLOCK
    stop = archive.offsets[run.stop - 1] + archive.lengths[run.stop - 1]
    where = f"{name}: archive {archive.name}"
    try:
        with storage.read(address, begin, stop - begin) as body:
            if body.size not in (-1, archive.size):
                raise RemoteCorrupt(f"{where} has {body.size} bytes, and its index says {archive.size}")
            data = b"".join(body)
    except RangeRefused:
        data = _read_past(storage, address, begin, stop)
    if len(data) != stop - begin:
        raise RemoteCorrupt(f"{where} gave {len(data)} bytes of the {stop - begin} that were asked for")
    brought: dict[int, bytes | RemoteError] = {}
    strange = 0
    for number in range(run.first, run.stop):
        member = archive.member(number)
        at = member.offset - begin
        found = data[at : at + member.length]
        if bytes_match(found, member.oid):
            brought[number] = found
            strange += not _is_header_of(data[at - BLOCK : at], member.oid, member.length)
        else:
            brought[number] = RemoteCorrupt(f"{where} has other bytes for object {member.oid} than its own")
    if strange:
        # They are proved by their hashes all the same; but `tar` would make something else of them.
        log.warning("%s: %d headers tell of their members what the index does not", where, strange)
    return brought


def _read_past(storage: Storage, address: Address, begin: int, stop: int) -> bytes:
    """A range of what a server gives only whole: what stands before it goes by, what follows is not asked."""
    parts = []
    at = 0
    with storage.read(address) as body:
        for part in body:
            parts.append(part[max(0, begin - at) : max(0, stop - at)])
            at += len(part)
            if at >= stop:
                break
    return b"".join(parts)


def _is_header_of(header: bytes, oid: Oid, size: int) -> bool:
    name = header[:_NAME_BYTES].rstrip(b"\0")
    return name == object_path(oid).encode() and header[_SIZE_FIELD].strip(b"\0 ") == b"%011o" % size
