"""Servers and networks that fail, one way each: which error a reader gets, and that no wait is endless."""

from __future__ import annotations

import contextlib
import email.utils
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from store.errors import (
    RangeRefused,
    RemoteCorrupt,
    RemoteCut,
    RemoteDenied,
    RemoteError,
    RemoteMissing,
    RemoteSlow,
    RemoteUnreachable,
)
from store.remotes import http
from store.remotes.http_answers import LONGEST_WAIT, retry_after
from store.remotes.opening import open_remote
from store.remotes.spec import RemoteSpec
from store.remotes.storage import Address, Limits, Storage
from tests.patience import until
from tests.servers.nginx import nginx
from tests.servers.proxy import Proxy
from tests.store.remotes.contract import LIMITS, pattern, read
from tests.store.remotes.places import FilePlace

SHORT = Limits(connect=0.4, first_byte=0.4, stall=0.4)
"""For who is not waited for. Who answers may be as late on a busy machine."""
DATA = pattern(300_000)


def opened(url: str, limits: Limits = LIMITS) -> Storage:
    return open_remote(RemoteSpec("here", url), limits).storage


def comes(storage: Storage) -> bool:
    """Whether the object does, and that in time."""
    with contextlib.suppress(RemoteSlow):
        return read(storage, "object") == DATA
    return False


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[Proxy]:
    FilePlace(tmp_path / "root", "").put("object", DATA)
    with nginx(tmp_path / "nginx", tmp_path / "root") as server, Proxy(("127.0.0.1", server.port)) as made:
        yield made


FAULTS = [
    pytest.param({"refuse": True}, RemoteUnreachable, "refused", id="refuses"),
    pytest.param({"stall_after": 0}, RemoteSlow, "in time", id="stalls before the first byte"),
    pytest.param({"stall_after": 40}, RemoteSlow, "in time", id="stalls in the head"),
    pytest.param({"stall_after": 100_000}, RemoteSlow, "in time", id="stalls in the middle"),
    pytest.param({"cut_after": 0}, RemoteUnreachable, "broke", id="ends without an answer"),
    pytest.param({"cut_after": 100_000}, RemoteCut, "too early", id="ends in the middle"),
    pytest.param({"reset_after": 0}, RemoteUnreachable, "broke", id="resets at once"),
    pytest.param({"reset_after": 100_000}, RemoteUnreachable, "broke", id="resets in the middle"),
]


@pytest.mark.parametrize(("faults", "error", "message"), FAULTS)
def test_a_network_that_fails_is_told_by_its_kind_and_heals(
    proxy: Proxy, faults: dict[str, float], error: type[RemoteError], message: str
) -> None:
    storage = opened(proxy.url, SHORT if error is RemoteSlow else LIMITS)
    proxy.fail(**faults)
    with pytest.raises(error, match=message) as caught:
        read(storage, "object")
    assert type(caught.value) is error
    assert "object" in str(caught.value) or "here" in str(caught.value)
    proxy.fail()
    until(lambda: comes(storage))
    storage.close()


def test_a_size_is_asked_within_limits_too(proxy: Proxy) -> None:
    storage = opened(proxy.url, SHORT)
    proxy.fail(stall_after=0)
    with pytest.raises(RemoteSlow):
        storage.size(Address("object"))
    storage.close()


class RawServer:
    """Answers each connection with the same bytes, then ends it; or does what `drip` says."""

    def __init__(self, answer: bytes, drip: Callable[[socket.socket], None] | None = None) -> None:
        self._answer = answer
        self._drip = drip
        self.requests: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with client:
                request = b""
                while b"\r\n\r\n" not in request and (part := client.recv(65536)):
                    request += part
                self.requests.append(request)
                try:
                    client.sendall(self._answer)
                    if self._drip:
                        self._drip(client)
                except OSError:
                    pass  # the client has gone

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)


@pytest.fixture
def serve() -> Iterator[Callable[..., RawServer]]:
    servers: list[RawServer] = []

    def make(answer: bytes, drip: Callable[[socket.socket], None] | None = None) -> RawServer:
        servers.append(RawServer(answer, drip))
        return servers[-1]

    yield make
    for server in servers:
        server.close()


def head(status: str, *headers: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", *headers, "Connection: close", "", ""]).encode()


WHOLE = "Content-Length: 5"
STATUSES = [
    ("403 Forbidden", RemoteDenied),
    ("401 Unauthorized", RemoteDenied),
    ("407 Proxy Authentication Required", RemoteDenied),
    ("404 Not Found", RemoteMissing),
    ("410 Gone", RemoteMissing),
    ("408 Request Timeout", RemoteSlow),
    ("412 Precondition Failed", RemoteCorrupt),
    ("416 Range Not Satisfiable", RemoteCorrupt),
    ("429 Too Many Requests", RemoteSlow),
    ("500 Internal Server Error", RemoteUnreachable),
    ("502 Bad Gateway", RemoteUnreachable),
    ("503 Service Unavailable", RemoteSlow),
    ("504 Gateway Timeout", RemoteSlow),
    ("204 No Content", RemoteUnreachable),
    ("302 Found", RemoteUnreachable),
    ("999 Odd", RemoteUnreachable),
]


@pytest.mark.parametrize(("status", "error"), STATUSES, ids=[status for status, _ in STATUSES])
def test_a_status_has_its_error(
    serve: Callable[..., RawServer], status: str, error: type[RemoteError]
) -> None:
    server = serve(head(status, "Content-Length: 0"))
    storage = opened(server.url)
    for ask in (lambda: read(storage, "object"), lambda: read(storage, "object", 1, 2)):
        with pytest.raises(error) as caught:
            ask()
        assert type(caught.value) is error
    with pytest.raises(error):
        storage.size(Address("object"))
    storage.close()


@pytest.mark.parametrize("status", ["429 Too Many Requests", "503 Service Unavailable"])
def test_who_asks_us_to_wait_says_how_long(serve: Callable[..., RawServer], status: str) -> None:
    storage = opened(serve(head(status, "Retry-After: 17", "Content-Length: 0")).url)
    with pytest.raises(RemoteSlow) as caught:
        read(storage, "object")
    assert caught.value.retry_after == 17
    storage.close()


def test_times_to_wait() -> None:
    in_a_minute = email.utils.formatdate(time.time() + 60, usegmt=True)
    assert 50 < retry_after(in_a_minute) <= 60
    assert retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert retry_after("9" * 400) == LONGEST_WAIT
    for nonsense in ("", "-5", "soon", "1e9", "١٢", "Wed, 99 Foo 2015", "nan"):
        assert retry_after(nonsense) == 0


WRONG = [
    pytest.param(head("206 Partial Content", WHOLE) + b"bytes", RemoteCorrupt, id="no range"),
    pytest.param(
        head("206 Partial Content", "Content-Range: bytes 0-4/100", WHOLE) + b"bytes",
        RemoteCorrupt,
        id="another range",
    ),
    pytest.param(
        head("206 Partial Content", "Content-Range: bytes 10-13/100", "Content-Length: 4") + b"byte",
        RemoteCorrupt,
        id="a shorter range",
    ),
    pytest.param(
        head("206 Partial Content", "Content-Range: bytes 10-14/100", "Content-Length: 6") + b"bytes!",
        RemoteCorrupt,
        id="a length that is not the range's",
    ),
    pytest.param(
        head("206 Partial Content", "Content-Range: bytes 10-14/12", WHOLE) + b"bytes",
        RemoteCorrupt,
        id="a range that cannot be",
    ),
    pytest.param(
        head("206 Partial Content", "Content-Range: bytes 10-14/100", WHOLE) + b"byt",
        RemoteCut,
        id="too few bytes",
    ),
    pytest.param(
        head("206 Partial Content", "Content-Range: bytes 10-14/100") + b"bytes and more",
        RemoteCorrupt,
        id="too many bytes",
    ),
    pytest.param(
        head("206 Partial Content", "Content-Range: bytes 10-14/100", WHOLE, "Content-Encoding: gzip"),
        RemoteCorrupt,
        id="an encoding",
    ),
    pytest.param(head("200 OK", "Content-Length: 100"), RangeRefused, id="the whole"),
    pytest.param(
        head("200 OK", "Transfer-Encoding: chunked") + b"5\r\nbytes\r\n0\r\n\r\n",
        RangeRefused,
        id="the whole, of no length",
    ),
    pytest.param(head("200 OK", "Content-Length: 12"), RemoteCorrupt, id="something shorter"),
    pytest.param(b"SSH-2.0-OpenSSH_9.2\r\n", RemoteUnreachable, id="no HTTP"),
    pytest.param(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n", RemoteUnreachable, id="many headers"),
    pytest.param(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000, RemoteUnreachable, id="a long header"),
    pytest.param(
        head("200 OK", "Content-Length: 5", "Content-Length: 6"), RemoteUnreachable, id="two lengths"
    ),
]


@pytest.mark.parametrize(("answer", "error"), WRONG)
def test_an_answer_that_is_not_the_range_is_none(
    serve: Callable[..., RawServer], answer: bytes, error: type[RemoteError]
) -> None:
    storage = opened(serve(answer).url)
    with pytest.raises(error) as caught:
        read(storage, "object", 10, 5)
    assert type(caught.value) is error
    storage.close()


def test_a_whole_answer_serves_who_asked_for_all(serve: Callable[..., RawServer]) -> None:
    storage = opened(serve(head("200 OK", WHOLE) + b"bytes").url)
    assert read(storage, "object", 0, 5) == b"bytes"
    storage.close()


def test_a_chunked_answer_is_read_and_may_not_end_early(serve: Callable[..., RawServer]) -> None:
    chunked = head("200 OK", "Transfer-Encoding: chunked") + b"5\r\nbytes\r\n"
    storage = opened(serve(chunked + b"0\r\n\r\n").url)
    with storage.read(Address("object")) as body:
        assert (body.size, body.length) == (-1, -1)
        assert b"".join(body) == b"bytes"
    storage.close()
    storage = opened(serve(chunked).url)
    with pytest.raises(RemoteCorrupt):
        read(storage, "object")
    storage.close()


@pytest.mark.parametrize("status", ["405 Method Not Allowed", "501 Not Implemented", "403 Forbidden"])
def test_a_size_is_had_without_head(serve: Callable[..., RawServer], status: str) -> None:
    """One raw answer to both questions cannot be; the server tells them apart."""
    servers: list[RawServer] = []

    def answer(client: socket.socket) -> None:
        if servers[0].requests[-1].startswith(b"HEAD"):
            client.sendall(head(status, "Content-Length: 0"))
        else:
            client.sendall(
                head("206 Partial Content", "Content-Range: bytes 0-0/1234", "Content-Length: 1") + b"x"
            )

    servers.append(serve(b"", answer))
    storage = opened(servers[0].url)
    assert storage.size(Address("object")) == 1234
    storage.close()


def test_headers_that_drip_do_not_hold_a_reader(serve: Callable[..., RawServer]) -> None:
    """Each byte comes in time, and the head never ends."""
    left = threading.Event()

    def drip(client: socket.socket) -> None:
        while not left.wait(0.02):
            client.sendall(b"X")

    server = serve(b"HTTP/1.1 200 OK\r\n", drip)
    storage = opened(server.url, SHORT)
    try:
        with pytest.raises(RemoteSlow):
            read(storage, "object")
    finally:
        left.set()
        storage.close()


def test_a_body_that_drips_does_not_hold_a_reader(
    serve: Callable[..., RawServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each byte comes in time, and all of them would take for ever."""
    monkeypatch.setattr(http, "ANSWER_SECONDS", 0.1)
    left = threading.Event()

    def drip(client: socket.socket) -> None:
        while not left.wait(0.02):
            client.sendall(b"X")

    storage = opened(serve(head("200 OK", "Content-Length: 100000"), drip).url)
    try:
        with pytest.raises(RemoteSlow, match="too slowly"):
            read(storage, "object")
    finally:
        left.set()
        storage.close()


def test_a_name_that_is_not_known_is_unreachable() -> None:
    storage = opened("http://does-not-exist.invalid", Limits(connect=20))
    with pytest.raises(RemoteError) as caught:
        read(storage, "object")
    assert isinstance(caught.value, RemoteUnreachable | RemoteSlow)  # slow where no resolver answers
    storage.close()


def test_a_look_up_that_hangs_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """No resolver can be made to hang here, so the system's call is replaced."""
    asked, done = threading.Event(), threading.Event()

    def hang(*_: object, **__: object) -> list[object]:
        asked.set()
        done.wait(60)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    storage = opened("http://somewhere.example", SHORT)
    with pytest.raises(RemoteSlow):
        read(storage, "object")
    assert asked.wait(60)
    done.set()
    storage.close()


def test_a_proxy_that_is_dead_is_told_from_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as bound:  # bound and not listening: connections are refused
        bound.bind(("127.0.0.1", 0))
        monkeypatch.setenv("https_proxy", f"http://user:canary@127.0.0.1:{bound.getsockname()[1]}")
        monkeypatch.setenv("no_proxy", "")
        spec = RemoteSpec("here", "https://somewhere.example", {}, ambient=True)
        storage = open_remote(spec, LIMITS).storage
        with pytest.raises(RemoteUnreachable, match="the proxy on the way") as caught:
            read(storage, "object")
        assert "canary" not in str(caught.value)
        storage.close()


def test_a_proxy_that_wants_credentials_denies(
    serve: Callable[..., RawServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(head("407 Proxy Authentication Required", "Content-Length: 0"))
    monkeypatch.setenv("https_proxy", server.url)
    monkeypatch.setenv("no_proxy", "")
    storage = open_remote(RemoteSpec("here", "https://somewhere.example", {}, ambient=True), LIMITS).storage
    with pytest.raises(RemoteDenied, match="proxy"):
        read(storage, "object")
    storage.close()
