"""HTTP and HTTPS remotes: whole objects and ranges from any server of files. They cannot be listed.

Objects are sent to it by POST or, if the remote's `method` says so, PUT: as DVC does it. It is the server's
part then that nobody sees half of one. What is sent is not redirected.

A server that does no ranges still serves: it says so by answering whole, and whoever asked for a part is told
(`RangeRefused`) before the bytes come. Redirects are followed, but never from https to http, and neither
credentials nor a client's certificate go to another origin than the remote's own.

Any thread; a call asks once.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final, NamedTuple
from urllib.parse import quote, urljoin, urlsplit

from urllib3 import BaseHTTPResponse
from urllib3.exceptions import HTTPError

from store.errors import (
    InputError,
    RangeRefused,
    RemoteCorrupt,
    RemoteCut,
    RemoteDenied,
    RemoteMissing,
    RemoteSlow,
    RemoteUnreachable,
)
from store.remotes.connections import Connections, phase, sending, tls_context
from store.remotes.http_answers import (
    error_of_failure,
    error_of_status,
    is_transformed,
    length_of,
    range_of,
    size_refused,
    strong_tag,
)
from store.remotes.http_credentials import credentials_of
from store.remotes.object_options import ANSWER_SECONDS, narrowed, trust_of, unused
from store.remotes.spec import RemoteSpec
from store.remotes.storage import CHUNK_BYTES, Address, Limits, Listed, measured

REDIRECTS: Final = 5
SLOWEST_RATE: Final = 50_000
"""Bytes a second, from `ANSWER_SECONDS` on: a server that drips keeps no thread for hours."""
MOST_DRAINED: Final = 1 << 16
"""An answer that nobody wants is read to its end up to here, to keep the connection."""
_PORTS: Final = {"http": 80, "https": 443}
_REDIRECTED: Final = frozenset({301, 302, 303, 307, 308})
_SENDING: Final = frozenset({"POST", "PUT"})
_DONE: Final = frozenset({200, 201, 204})
_NO_HEAD: Final = frozenset({403, 405, 501})
_PATH_CHARACTERS: Final = "/!$&'()*+,;=:@~"


class Origin(NamedTuple):
    """Whom credentials belong to."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> Origin:
        """Raises `ValueError`."""
        parts = urlsplit(url)
        if parts.scheme not in _PORTS or not parts.hostname:
            raise ValueError("no http(s) URL")
        return cls(parts.scheme, parts.hostname.lower(), parts.port or _PORTS[parts.scheme])


class HttpBody:
    """An answer's bytes. Used by one thread at a time."""

    def __init__(
        self, answer: BaseHTTPResponse, size: int, length: int, stall: float, who: str, what: str
    ) -> None:
        self._answer = answer
        self._stall = stall
        self._who = who
        self._what = what
        self.size = size
        self.length = length
        self.validator = strong_tag(answer.headers)

    def __iter__(self) -> Iterator[bytes]:
        left, came, began = self.length, 0, time.monotonic()
        while left:
            part = self._part(min(left, CHUNK_BYTES) if left > 0 else CHUNK_BYTES)
            if not part:
                break
            if left > 0:
                left -= len(part)
            came += len(part)
            yield part
            if time.monotonic() - began > ANSWER_SECONDS + came / SLOWEST_RATE:
                raise RemoteSlow(f"{self._who} sends {self._what} too slowly")
        if left > 0:
            raise RemoteCut(f"{self._who} ended its answer for {self._what} too early")
        # Only an answer without a length can go on, and only its end frees the connection.
        if left == 0 and length_of(self._answer.headers) < 0 and self._part(1):
            raise RemoteCorrupt(f"{self._who} sent more of {self._what} than was asked for")

    def _part(self, most: int) -> bytes:
        try:
            with phase(self._stall):
                return self._answer.read1(most) or b""
        except (HTTPError, OSError, ValueError) as error:
            raise error_of_failure(error, self._who, self._what) from None


class HttpStorage:
    """A remote below an http or https URL."""

    def __init__(
        self,
        spec: RemoteSpec,
        url: str,
        limits: Limits,
        *,
        headers: Mapping[str, str],
        client_certificate: tuple[str, str | None] | None = None,
    ) -> None:
        """`headers` are credentials: they go to the origin of `url` only. Raises `InputError`."""
        self.who = f"remote {spec.name}"
        self.limits = limits
        self._method = (spec.options.get("method") or "POST").upper()
        self._credentials = headers
        self._hint = unused(spec, ("password", "token")) if not headers else ""
        self.base, self._origin = _checked(spec, url)
        trust = trust_of(spec)
        try:
            context = tls_context(trust.verify, trust.authorities)
            self._others = Connections(context, limits, ambient=spec.ambient)
            self._own = self._others
            if client_certificate:
                context = tls_context(trust.verify, trust.authorities)
                context.load_cert_chain(*client_certificate, password=_no_password)
                self._own = Connections(context, limits, ambient=spec.ambient)
        except (OSError, ValueError):
            raise InputError(f"remote {spec.name}: its certificates or their key cannot be read") from None

    @property
    def can_list(self) -> bool:
        return False

    def size(self, address: Address) -> int:
        """Length in bytes, by HEAD; by a byte of the object where the server does not do that."""
        url = self._url(address)
        with self.asked("HEAD", url, {}, address.key) as answer:
            if answer.status == 200:
                self._check_form(answer, address.key)
                length = length_of(answer.headers)
                if length >= 0:
                    return length
            elif answer.status not in _NO_HEAD:
                raise self._refusal(answer, address.key)
        with self.asked("GET", url, {"Range": "bytes=0-0"}, address.key) as answer:
            if answer.status == 416 and size_refused(answer.headers) == 0:
                return 0
            if answer.status not in (200, 206):
                raise self._refusal(answer, address.key)
            self._check_form(answer, address.key)
            told = range_of(answer.headers) if answer.status == 206 else None
            size = told[2] if told else length_of(answer.headers)
            if size < 0 or (answer.status == 206 and told is None):
                raise RemoteCorrupt(f"{self.who} does not say how long {address.key} is")
            return size

    @contextmanager
    def read(
        self, address: Address, offset: int = 0, length: int | None = None, validator: str = ""
    ) -> Iterator[HttpBody]:
        """As `Storage.read`."""
        what = address.key
        ranged = offset > 0 or length is not None
        headers = {}
        if ranged:
            # Of an empty range, one byte is asked for and none is read.
            last = "" if length is None else str(offset + max(length, 1) - 1)
            headers["Range"] = f"bytes={offset}-{last}"
        if validator:
            headers["If-Match"] = validator
        with self.asked("GET", self._url(address), headers, what) as answer:
            if answer.status == 416 and not length and size_refused(answer.headers) == offset:
                yield HttpBody(answer, offset, 0, self.limits.stall, self.who, what)
                return
            if answer.status not in (200, 206) or (answer.status == 206 and not ranged):
                raise self._refusal(answer, what)
            self._check_form(answer, what)
            if validator and strong_tag(answer.headers) != validator:
                raise RemoteCorrupt(f"{self.who}: {what} has changed since it was first read")
            size, coming = self._extent(answer, offset, length, ranged, what)
            yield HttpBody(answer, size, coming, self.limits.stall, self.who, what)

    def list(self, prefix: str) -> Iterator[Listed]:
        """Never there (`can_list`)."""
        raise RemoteUnreachable(f"{self.who} cannot be listed")

    def put(self, key: str, parts: Iterable[bytes], size: int, *, if_absent: bool = False) -> bool:
        """As `WritableStorage.put`."""
        if self._method not in _SENDING:
            raise RemoteDenied(
                f"{self.who}: its `method` is neither POST nor PUT, so nothing can be sent to it"
            )
        address = Address(key)
        if if_absent and self.has(address):
            return False
        headers = {"If-None-Match": "*"} if if_absent else {}
        if not self.send(self._method, key, headers, parts, size):
            return False
        self.check_length(address, size)
        return True

    def delete(self, keys: Sequence[str]) -> None:
        """As `WritableStorage.delete`."""
        for key in keys:
            with self.asked("DELETE", self._url(Address(key)), {}, key) as answer:
                if answer.status not in (*_DONE, 202, 404, 410):
                    raise self._refusal(answer, key, "delete")

    def has(self, address: Address) -> bool:
        """Is there such an object? Raises `RemoteError`."""
        try:
            self.size(address)
        except RemoteMissing:
            return False
        return True

    def check_length(self, address: Address, size: int) -> None:
        """Look whether an object has the length that was sent. Raises `RemoteError`."""
        if self.size(address) != size:
            raise RemoteCorrupt(f"{self.who} has kept another length of {address.key} than it was sent")

    def send(
        self, method: str, key: str, headers: Mapping[str, str], parts: Iterable[bytes], size: int
    ) -> bool:
        """Send a body of `size` bytes; False for an answer that a condition of `headers` does not hold.

        What iterating `parts` raises is raised, after the connection was closed: the server has less than it
        was promised then.
        """
        failures: list[Exception] = []

        def guarded() -> Iterator[bytes]:
            try:
                yield from measured(parts, size)
            except Exception as error:
                failures.append(error)
                raise ConnectionAbortedError from None

        sent = {
            "Accept-Encoding": "identity",
            "User-Agent": "fusefs",
            "Content-Length": str(size),
            "Content-Type": "application/octet-stream",
            **headers,
            **self._credentials,
        }
        # Of nothing, the server has all before it is known that there is no more.
        whole = list(measured(parts, size)) if not size else guarded()
        body = sending(whole, self.limits.stall, self.limits.first_byte)
        try:
            answer = self._own.ask(method, self._url(Address(key)), sent, body)
        except (HTTPError, OSError, ValueError) as error:
            if failures:
                raise failures[0] from None
            raise error_of_failure(error, self.who, key) from None
        try:
            if failures:  # an answer that came before the body had ended
                raise failures[0]
            if answer.status == 412 and headers:
                return False
            if answer.status in _REDIRECTED:
                raise RemoteUnreachable(f"{self.who} redirects what is sent to it, which is not followed")
            if answer.status in (405, 501):
                hint = "; set the remote's `method` to PUT, if that is what it takes" * (method == "POST")
                raise RemoteDenied(f"{self.who} takes no {method} (status {answer.status}){hint}")
            if answer.status not in _DONE:
                raise self._refusal(answer, key, "write")
            self._drain(answer)
            return True
        finally:
            answer.close()

    def close(self) -> None:
        self._own.close()
        self._others.close()

    @contextmanager
    def asked(
        self, method: str, url: str, headers: Mapping[str, str], what: str, body: bytes | None = None
    ) -> Iterator[BaseHTTPResponse]:
        """The answer to a request, after redirects, whatever its status; closed at the end."""
        answer = self._follow(method, url, headers, what, body)
        try:
            yield answer
            self._drain(answer)
        finally:
            answer.close()

    def _follow(
        self, method: str, url: str, headers: Mapping[str, str], what: str, body: bytes | None
    ) -> BaseHTTPResponse:
        for _ in range(REDIRECTS + 1):
            own = Origin.of(url) == self._origin
            sent = {"Accept-Encoding": "identity", "User-Agent": "fusefs", **headers}
            if own:
                sent.update(self._credentials)
            try:
                answer = (self._own if own else self._others).ask(method, url, sent, body)
            except (HTTPError, OSError, ValueError) as error:
                raise error_of_failure(error, self.who, what) from None
            if answer.status not in _REDIRECTED or not answer.headers.get("Location"):
                return answer
            self._drain(answer)
            answer.close()
            url = self._next(url, answer.headers["Location"], what)
        raise RemoteUnreachable(f"{self.who} sends us in circles for {what}")

    def _next(self, url: str, location: str, what: str) -> str:
        try:
            found = urljoin(url, location).partition("#")[0]
            origin = Origin.of(found)
        except ValueError:
            raise RemoteUnreachable(f"{self.who} redirects us to what is no http(s) URL") from None
        if urlsplit(found).path == urlsplit(url).path + "/":
            raise RemoteMissing(f"{self.who} has no {what}: it is a directory")
        if origin.scheme == "http" and url.startswith("https:"):
            raise RemoteUnreachable(f"{self.who} redirects us from https to http")
        if "@" in urlsplit(found).netloc:
            raise RemoteUnreachable(f"{self.who} redirects us to a URL with a user name")
        return quote(found, safe=_PATH_CHARACTERS + "?%[]")

    def _drain(self, answer: BaseHTTPResponse) -> None:
        """Read what is left, where it is little, so that the connection serves again."""
        left = MOST_DRAINED + 1 if (answer.length_remaining or 0) <= MOST_DRAINED else 0
        try:
            with phase(self.limits.stall):
                while left > 0 and (part := answer.read1(MOST_DRAINED)):
                    left -= len(part)
        except (HTTPError, OSError, ValueError):
            pass

    def _extent(
        self, answer: BaseHTTPResponse, offset: int, length: int | None, ranged: bool, what: str
    ) -> tuple[int, int]:
        """(size of the whole, bytes to come), or what is wrong with the range that is answered."""
        size = length_of(answer.headers)
        if answer.status == 200:
            if not ranged or (offset == 0 and length == size):
                return size, size
            if 0 <= size < offset + (length or 0):
                raise RemoteCorrupt(f"{self.who} does not have that much of {what}")
            if length == 0:
                return size, 0
            raise RangeRefused(f"{self.who} gives objects only whole")
        told = range_of(answer.headers)
        if told is not None and told[0] == offset and size in (-1, told[1]):
            if length is None and told[2] == offset + told[1]:
                return told[2], told[1]
            if length is not None and told[1] == max(length, 1):
                return told[2], length
        raise RemoteCorrupt(f"{self.who} answered with another range of {what} than was asked for")

    def _check_form(self, answer: BaseHTTPResponse, what: str) -> None:
        if is_transformed(answer.headers):
            raise RemoteCorrupt(f"{self.who} gives {what} in an encoding that was not asked for")

    def _refusal(self, answer: BaseHTTPResponse, what: str, verb: str = "read") -> Exception:
        self._drain(answer)
        return error_of_status(answer.status, answer.headers, self.who, what, hint=self._hint, verb=verb)

    def _url(self, address: Address) -> str:
        if address.version:
            raise RemoteMissing(f"{self.who} keeps no versions of {address.key}")
        if not {".", ".."}.isdisjoint(address.key.split("/")):
            raise RemoteMissing(f"{self.who} can have no such key")
        return f"{self.base}/{quote(address.key, safe=_PATH_CHARACTERS)}"


def open_http(spec: RemoteSpec, limits: Limits) -> HttpStorage:
    """Raises `InputError`. Nothing is asked yet."""
    limits = narrowed(spec, limits, "connect_timeout", "read_timeout")
    return HttpStorage(spec, spec.url, limits, headers=credentials_of(spec))


def _checked(spec: RemoteSpec, url: str) -> tuple[str, Origin]:
    """The URL, quoted where it is not, without a slash at its end."""
    try:
        origin = Origin.of(url)
    except ValueError:
        raise InputError(
            f"remote {spec.name}: its URL must be of the form SCHEME://HOST[:PORT]/PATH"
        ) from None
    parts = urlsplit(url)
    if parts.query or parts.fragment or "@" in parts.netloc:
        raise InputError(f"remote {spec.name}: its URL must have no user name, query or fragment")
    host = f"[{origin.host}]" if ":" in origin.host else origin.host
    path = quote(parts.path.rstrip("/"), safe=_PATH_CHARACTERS + "%")
    return f"{origin.scheme}://{host}:{origin.port}{path}", origin


def _no_password() -> str:
    raise ssl.SSLError("the key is encrypted")
