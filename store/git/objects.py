"""`Objects`: the objects of a git repository, each verified before it is handed out.

Two `git cat-file` processes, for contents and for headers alone, stay open once they are needed: a
question takes tens of microseconds instead of the milliseconds of a process each. git checks the
compression of a blob that it reads but not that it is the object of that name, so everything is hashed
here again; only `read_beginning` cannot, and says so.

Callers: the other modules of `store.git`. Blocking; any thread. Deadlines as in `store.git.cat_file`.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

from store.errors import ObjectCorrupt, ObjectMissing, RepositoryUnusable
from store.git import command
from store.git.cat_file import AT_ONCE, CatFile, Header

SECONDS: Final = 60.0
"""Deadline for one question, in seconds; what is fetched for it has a deadline of its own."""

SIZE_LIMIT: Final = 256 << 20
"""Bytes of an object that is held in memory: a directory of some two million names."""

_PART: Final = 1 << 17
_OID: Final = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_OID_LENGTHS: Final = {"sha1": 40, "sha256": 64}
"""The hashes that git knows."""

Fetch = Callable[[Sequence[str]], None]
"""Brings objects that are not here. Raises `RepositoryUnusable`, `StoreTimeout`."""


class _Longer(Exception):
    """The object has more bytes than are wanted of it."""


def is_oid(text: str) -> bool:
    """Whether `text` is a whole object name, of sha1 or sha256, in lower case."""
    return _OID.fullmatch(text) is not None


class Objects:
    """The objects of a repository, from its object directory; `hash_name` is `sha1` or `sha256`.

    `fetch` brings those that a partial clone lacks.
    """

    def __init__(self, directory: Path, hash_name: str, fetch: Fetch | None = None) -> None:
        self._directory = directory
        self._hash_name = hash_name
        self._fetch = fetch
        self._contents = CatFile(directory, hash_name, "--batch")
        self._headers = CatFile(directory, hash_name, "--batch-check")

    def close(self) -> None:
        """End the processes. What is asked later starts them again."""
        self._contents.close()
        self._headers.close()

    def header(self, oid: str) -> Header:
        """Kind and size of an object.

        Raises `ObjectMissing`, `ObjectCorrupt`, `RepositoryUnusable` and `StoreTimeout`.
        """
        (found,) = self._all_headers([oid])
        if found is None and self._fetch is not None:
            self._fetch([oid])
            (found,) = self._all_headers([oid])
        if found is None:
            raise self._missing(oid)
        return found

    def size(self, oid: str) -> int:
        """The length of an object in bytes. Raises as `header` does."""
        return self.header(oid).size

    def sizes(self, oids: Sequence[str]) -> list[int | None]:
        """The lengths of many objects; None for what is not here, which is not fetched."""
        return [None if header is None else header.size for header in self._all_headers(oids)]

    def read(self, oid: str, kind: str = "blob", limit: int = SIZE_LIMIT) -> bytes:
        """An object whole, verified.

        Raises as `header` does; `ObjectCorrupt` also if it is of another kind, and
        `RepositoryUnusable` if it is larger than `limit` bytes.
        """
        return self.read_any(oid, (kind,), limit)[1]

    def read_any(self, oid: str, kinds: Sequence[str], limit: int = SIZE_LIMIT) -> tuple[str, bytes]:
        """Kind and bytes of an object of one of `kinds`. Raises as `read` does."""

        def admit(header: Header) -> None:
            if header.kind not in kinds:
                raise _unexpected(oid, header.kind, " or ".join(kinds))
            if header.size > limit:
                raise RepositoryUnusable(
                    f"git object {oid} has {header.size} bytes; at most {limit} are read"
                )

        return self._read_whole(oid, admit)

    def read_beginning(self, oid: str, length: int) -> bytes:
        """At most `length` bytes of a blob, not verified unless they are all of it.

        For what is refused anyway, because there is more of it. Raises as `header` does.
        """

        def admit(header: Header) -> None:
            if header.kind != "blob":
                raise _unexpected(oid, header.kind, "blob")
            if header.size > length:
                raise _Longer

        try:
            return self._read_whole(oid, admit)[1]
        except _Longer:
            pass
        beginning = bytearray()
        process = CatFile(self._directory, self._hash_name, "--batch")
        try:
            with process.asking(oid, seconds=SECONDS):
                process.take_header(oid)
                while len(beginning) < length:
                    beginning += process.take(oid, length - len(beginning))
        finally:
            process.close()
        return bytes(beginning)

    def copy(self, oid: str, descriptor: int, seconds: float = SECONDS) -> int:
        """Write a blob to an open file, however large; returns its length in bytes.

        A process of its own, so that nobody else waits. It is verified when it is whole: the caller
        throws away what is written if this raises. Raises as `read` does, and `OSError` from writing.
        """
        header = Header("blob", self._size_of(oid, "blob"))
        process = CatFile(self._directory, self._hash_name, "--batch")
        try:
            # Closed first: a stream that is left in the middle holds the process.
            with closing(self._stream(process, oid, header, seconds)) as parts:
                for part in parts:
                    view = memoryview(part)
                    while view:
                        view = view[os.write(descriptor, view) :]
        finally:
            process.close()
        return header.size

    def prefetch(self, oids: Sequence[str]) -> None:
        """Fetch at once what is not here of `oids`; nothing where there is nowhere to fetch from.

        Raises `RepositoryUnusable` and `StoreTimeout`.
        """
        if self._fetch is None:
            return
        wanted = list(dict.fromkeys(oids))
        headers = self._all_headers(wanted)
        lacking = [oid for oid, header in zip(wanted, headers, strict=True) if header is None]
        if lacking:
            self._fetch(lacking)

    def _size_of(self, oid: str, kind: str) -> int:
        header = self.header(oid)
        if header.kind != kind:
            raise _unexpected(oid, header.kind, kind)
        return header.size

    def _read_whole(self, oid: str, admit: Callable[[Header], None]) -> tuple[str, bytes]:
        """Kind and verified bytes of an object that `admit` does not refuse by raising.

        Its answer begins with what it is, so that nothing else need be asked before.
        """
        self._check_name(oid)
        for fetch in (self._fetch, None):
            with self._contents.asking(oid, seconds=SECONDS):
                header = self._contents.take_header(oid)
                if header is not None:
                    admit(header)
                    return header.kind, b"".join(self._take(self._contents, oid, header))
            if fetch is None:
                break
            fetch([oid])
        raise self._missing(oid)

    def _stream(
        self, process: CatFile, oid: str, header: Header, seconds: float
    ) -> Generator[bytes, None, None]:
        """The bytes of an object that was asked about before."""
        with process.asking(oid, seconds=seconds):
            if process.take_header(oid) != header:
                raise ObjectCorrupt(f"git object {oid} changed while it was read")
            yield from self._take(process, oid, header)

    def _take(self, process: CatFile, oid: str, header: Header) -> Generator[bytes, None, None]:
        """The bytes behind a header; the last part comes after the whole of it was found right."""
        hashed = hashlib.new(self._hash_name, usedforsecurity=False)
        hashed.update(f"{header.kind} {header.size}\0".encode())
        left = header.size
        last = b""
        while left:
            part = process.take(oid, min(left, _PART))
            hashed.update(part)
            left -= len(part)
            if last:
                yield last
            last = part
        process.finish(oid)
        if hashed.hexdigest() != oid:
            raise ObjectCorrupt(
                f"git object {oid} in {self._directory} is not what its name says; try git fsck"
            )
        yield last

    def _check_name(self, oid: str) -> None:
        if not is_oid(oid) or len(oid) != _OID_LENGTHS[self._hash_name]:
            raise RepositoryUnusable(f"{command.printable(oid)!r} is not the name of a git object")

    def _all_headers(self, oids: Sequence[str]) -> list[Header | None]:
        for oid in oids:
            self._check_name(oid)
        headers: list[Header | None] = []
        for start in range(0, len(oids), AT_ONCE):
            some = oids[start : start + AT_ONCE]
            with self._headers.asking(*some, seconds=SECONDS):
                headers += [self._headers.take_header(oid) for oid in some]
        return headers

    def _missing(self, oid: str) -> ObjectMissing:
        return ObjectMissing(
            f"git object {oid} is not in {self._directory}; if that is a partial or shallow clone, "
            "check the revision out there once, or name the URL it was cloned from"
        )


def _unexpected(oid: str, kind: str, wanted: str) -> ObjectCorrupt:
    return ObjectCorrupt(f"git object {oid} is a {kind}, where a {wanted} is named")
