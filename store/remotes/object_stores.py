"""`ObjectStorage`: a bucket, by obstore. What S3, Google Cloud Storage and Azure have in common.

Blocking; any thread. obstore's blocking calls leave the interpreter's lock while they wait, and are several
times faster from many threads than its coroutines. Nothing is opened, and neither obstore nor what finds
credentials is imported, before the first question is asked.

Waiting is bounded by the HTTP client's own timeouts (`object_options.client_options`): for the next part of
an answer, and, because a stream may drip, for an answer as a whole.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from store.errors import InputError, RemoteCorrupt, RemoteCut, RemoteMissing, RemoteUnreachable
from store.remotes.kept import FOREVER, Kept
from store.remotes.object_errors import translated
from store.remotes.object_options import Bucket
from store.remotes.storage import (
    CHUNK_BYTES,
    SENT_AT_ONCE,
    Address,
    Body,
    Limits,
    Listed,
    measured,
)

if TYPE_CHECKING:
    from obstore import BytesStream, GetOptions, GetResult, ListStream, ObjectMeta
    from obstore.store import ObjectStore

MOST_PARTS: Final = 9000
"""Of a multipart upload; S3 takes ten thousand."""
PARTS_AT_ONCE: Final = 2
Failures = list[Exception]
PART_BYTES: Final = 256 << 10
"""What obstore collects of an answer before it hands it on, by copying it to memory that is fresh each time.
It is about what one read of a fast connection gives, so most parts are handed on as they came."""
PAGE: Final = 1000
"""Keys in a page of a listing."""
_NO_KEY: Final = re.compile(r"(?:^|/)\.{0,2}(?:/|$)|[\x00-\x1f\x7f]")


def nothing() -> None:
    """What needs no renewing."""


@dataclass(frozen=True, slots=True)
class Connection:
    """A bucket that is open."""

    bodies: ObjectStore
    questions: ObjectStore
    """The same bucket by another client, whose answers must be whole within a time."""
    open_uploads: Callable[[], ObjectStore]
    """Makes a third one, for what is sent. Raises `RemoteError`."""
    renew: Callable[[], object] = nothing
    """Called before each request: has credentials at hand that are good for it, or raises `RemoteError`."""
    hint: str = ""
    """What a denial may come from, to be shown after it."""


class ObjectStorage:
    """A bucket as a `Storage`."""

    def __init__(self, name: str, bucket: Bucket, limits: Limits, connect: Callable[[], Connection]) -> None:
        """`connect` runs in the first thread that asks something; it must keep to `limits`."""
        self._who = f"remote {name}"
        self._prefix = bucket.prefix
        patience = 3 * (limits.connect + limits.first_byte)
        late = f"{self._who} took too long to be opened"

        def opened() -> tuple[Connection, float]:
            try:
                return connect(), FOREVER
            except InputError as error:  # in what the surroundings say
                raise RemoteUnreachable(str(error)) from None

        self._connection = Kept(opened, patience, late)
        self._uploads: Kept[ObjectStore] = Kept(
            lambda: (self._ready().open_uploads(), FOREVER), 2 * patience, late
        )
        self._closed = False

    @property
    def can_list(self) -> bool:
        return True

    def size(self, address: Address) -> int:
        return int(self._head(address)["size"])

    @contextmanager
    def read(
        self, address: Address, offset: int = 0, length: int | None = None, validator: str = ""
    ) -> Iterator[Body]:
        if length == 0:  # there is no way to ask for nothing
            meta = self._head(address, validator)
            self._check_state(address, meta, validator)
            yield _Body(self, address, meta, 0, None)
            return
        key = self._key(address)
        options = _options(address, validator)
        if length is not None:
            options["range"] = (offset, offset + length)
        elif offset:
            options["range"] = {"offset": offset}
        connection = self._ready()
        try:
            result = connection.bodies.get(key, options=options)
            meta, (start, end) = result.meta, result.range
        except Exception as error:
            raise self._translated(error, connection, address) from None
        if start != offset or end != (meta["size"] if length is None else offset + length):
            raise RemoteCorrupt(
                f"{self._who} answered with another range of {address.key!r} than was asked for"
            )
        self._check_state(address, meta, validator)
        body = _Body(self, address, meta, end - start, result)
        del result  # so that leaving closes the connection of an answer that was not read
        try:
            yield body
        finally:
            body.close()

    def list(self, prefix: str) -> Iterator[Listed]:
        connection = self._ready()
        place = Address(prefix)
        start = len(self._prefix)
        pages: ListStream[Any] = connection.questions.list(self._prefix + prefix, chunk_size=PAGE)
        while True:
            try:
                page = next(pages, None)
            except Exception as error:
                raise self._translated(error, connection, place) from None
            if page is None:
                return
            for meta in page:
                if meta["path"].startswith(self._prefix + prefix):
                    modified = meta["last_modified"].timestamp()
                    yield Listed(meta["path"][start:], meta["size"], modified)
            self._ready()

    def put(self, key: str, parts: Iterable[bytes], size: int, *, if_absent: bool = False) -> bool:
        """As `WritableStorage.put`: in one request, or as a multipart upload, which is ended if it fails."""
        address = Address(key)
        path = self._key(address)
        connection, uploads = self._ready(), self._uploads.get()
        if size > SENT_AT_ONCE:
            if if_absent and self._has(address):
                return False
            part_bytes = max(SENT_AT_ONCE, -(-size // MOST_PARTS))
            failures: Failures = []
            try:
                uploads.put(
                    path,
                    self._renewing(measured(parts, size), failures),
                    use_multipart=True,
                    chunk_size=part_bytes,
                    max_concurrency=PARTS_AT_ONCE,
                )
            except Exception as error:
                if failures:
                    raise failures[0] from None
                raise self._translated(error, connection, address, "write") from None
            self._check_length(address, size)
            return True
        data = b"".join(measured(parts, size))
        from obstore.exceptions import AlreadyExistsError

        try:
            result = uploads.put(path, data, mode="create" if if_absent else "overwrite", use_multipart=False)
        except AlreadyExistsError:
            return False
        except Exception as error:
            raise self._translated(error, connection, address, "write") from None
        digest = hashlib.md5(data, usedforsecurity=False).hexdigest()
        if (result["e_tag"] or "").strip('"') != digest:  # where it is one, the bytes are proved by it
            self._check_length(address, size)
        return True

    def delete(self, keys: Sequence[str]) -> None:
        """As `WritableStorage.delete`."""
        for key in keys:
            address = Address(key)
            path = self._key(address)
            connection, uploads = self._ready(), self._uploads.get()
            try:
                uploads.delete(path)
            except FileNotFoundError:
                continue
            except Exception as error:
                raise self._translated(error, connection, address, "delete") from None

    def close(self) -> None:
        self._closed = True
        self._connection.forget()
        self._uploads.forget()

    def _ready(self) -> Connection:
        if self._closed:
            raise RemoteUnreachable(f"{self._who} has been closed")
        connection = self._connection.get()
        connection.renew()
        return connection

    def _key(self, address: Address) -> str:
        if _NO_KEY.search(address.key):  # obstore refuses them, too, in other words
            raise RemoteMissing(f"{self._who} cannot have {address.key!r}: no key may look like that")
        return self._prefix + address.key

    def _head(self, address: Address, validator: str = "") -> ObjectMeta:
        key = self._key(address)
        options = _options(address, validator)
        options["head"] = True
        connection = self._ready()
        try:
            return connection.questions.get(key, options=options).meta
        except Exception as error:
            raise self._translated(error, connection, address) from None

    def _check_state(self, address: Address, meta: ObjectMeta, validator: str) -> None:
        if validator and _strong(meta) != validator:
            raise RemoteCorrupt(f"{self._who}: {address.key!r} has changed since it was first read")
        if address.version and (meta.get("version") or address.version) != address.version:
            raise RemoteMissing(f"{self._who} gave another version of {address.key!r} than was asked for")

    def _renewing(self, parts: Iterator[bytes], failures: Failures) -> Iterator[bytes]:
        """`parts`, with credentials at hand for each; what goes wrong with them is kept in `failures`."""
        try:
            for part in parts:
                self._ready()
                yield part
        except Exception as error:
            failures.append(error)
            raise

    def _has(self, address: Address) -> bool:
        try:
            self._head(address)
        except RemoteMissing:
            return False
        return True

    def _check_length(self, address: Address, size: int) -> None:
        if self.size(address) != size:
            raise RemoteCorrupt(f"{self._who} has kept another length of {address.key!r} than it was sent")

    def _translated(
        self, error: Exception, connection: Connection, address: Address, verb: str = "read"
    ) -> Exception:
        what, version = repr(address.key), address.version
        return translated(error, self._who, what, hint=connection.hint, version=version, verb=verb)

    def _broken(self, error: Exception, address: Address) -> Exception:
        return translated(error, self._who, repr(address.key))

    def _wrong_length(self, address: Address, how: str) -> Exception:
        kind = RemoteCut if how == "early" else RemoteCorrupt
        return kind(f"{self._who} ended its answer for {address.key!r} too {how}")


class _Body:
    """An answer; used by one thread at a time."""

    def __init__(
        self,
        storage: ObjectStorage,
        address: Address,
        meta: ObjectMeta,
        length: int,
        result: GetResult | None,
    ) -> None:
        self._storage = storage
        self._address = address
        self._size = int(meta["size"])
        self._length = length
        self._validator = _strong(meta)
        self._result = result

    @property
    def size(self) -> int:
        return self._size

    @property
    def length(self) -> int:
        return self._length

    @property
    def validator(self) -> str:
        return self._validator

    def close(self) -> None:
        self._result = None

    def __iter__(self) -> Iterator[bytes]:
        result, self._result = self._result, None
        if result is None:
            return
        if self._length > CHUNK_BYTES:
            yield from self._parts(result.stream(min_chunk_size=PART_BYTES))
            return
        # In one call: each further one would let go of the interpreter and wait for it again.
        try:
            whole = result.bytes()
        except Exception as error:
            raise self._storage._broken(error, self._address) from None
        if len(whole) != self._length:
            how = "late" if len(whole) > self._length else "early"
            raise self._storage._wrong_length(self._address, how)
        yield whole.to_bytes()

    def _parts(self, stream: BytesStream) -> Iterator[bytes]:
        left = self._length
        while True:
            try:
                part = next(stream, None)
            except Exception as error:
                raise self._storage._broken(error, self._address) from None
            if part is None:
                break
            left -= len(part)
            if left < 0:
                raise self._storage._wrong_length(self._address, "late")
            if len(part) <= CHUNK_BYTES:
                yield part
            else:
                yield from (part[at : at + CHUNK_BYTES] for at in range(0, len(part), CHUNK_BYTES))
        if left:
            raise self._storage._wrong_length(self._address, "early")


def _options(address: Address, validator: str) -> GetOptions:
    options: GetOptions = {}
    if address.version:
        options["version"] = address.version
    if validator:
        options["if_match"] = validator
    return options


def _strong(meta: ObjectMeta) -> str:
    etag = meta.get("e_tag") or ""
    return "" if etag.startswith("W/") else etag
