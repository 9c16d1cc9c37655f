"""`write_zip`: members of bytes and of objects as a zip that CVAT imports, written as a stream.

The bytes follow from the members alone. Every object is held against its hash on the way. Blocking; the
threads end with the call.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import BinaryIO, Final

from store.backup.writing import THREADS, read_all
from store.cache_chain import ObjectCache
from store.oid import Oid

_TIME: Final = (1980, 1, 1, 0, 0, 0)
_MODE: Final = 0o100644 << 16
_LARGE: Final = 1 << 31
"""Bytes from which on a member has the fields of a large one."""

Told = Callable[[int, int], None]
"""Told how many members, and bytes of them, have been written."""


@dataclass(frozen=True, slots=True)
class Member:
    """A file of the zip: its bytes, or the object that it is and its length."""

    name: str
    content: bytes | tuple[Oid, int]

    @property
    def size(self) -> int:
        return len(self.content) if isinstance(self.content, bytes) else self.content[1]


def write_zip(members: Sequence[Member], cache: ObjectCache, file: BinaryIO, told: Told) -> None:
    """Raises `ObjectCorrupt`, `ObjectMissing`, `CacheUnusable`, and `OSError` of the file."""
    objects = [member.content for member in members if not isinstance(member.content, bytes)]
    size = 0
    with (
        zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive,
        ThreadPoolExecutor(THREADS, thread_name_prefix="backup") as threads,
    ):
        coming = read_all(objects, cache, threads)
        for number, member in enumerate(members, 1):
            pieces: Iterable[bytes | memoryview]
            if isinstance(member.content, bytes):
                pieces = (member.content,)
            else:
                _, _, pieces = next(coming)
            info = zipfile.ZipInfo(member.name, _TIME)
            info.external_attr, info.create_system = _MODE, 3
            info.file_size = member.size
            with archive.open(info, "w", force_zip64=member.size >= _LARGE) as entry:
                for piece in pieces:
                    entry.write(piece)
                    size += len(piece)
                    told(number - 1, size)
            told(number, size)
