"""What becomes of answers that are none: which error, how soon, and with what words."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

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
from store.remotes import object_options
from store.remotes.s3 import open_s3
from store.remotes.spec import RemoteSpec
from store.remotes.storage import CHUNK_BYTES, Address, Limits, Storage
from tests.servers.raw_answers import OBJECT_HEADERS, RawServer, Script, raw_server, reset, say, say_raw
from tests.store.remotes.contract import LIMITS, read

SHORT = Limits(connect=0.5, first_byte=0.3, stall=0.3)
"""For who is not waited for. Who answers may be as late on a busy machine."""
KEY = Address("files/md5/ab/cdef")
CANARY = "canary0123456789secret"
SECRETS = {
    "access_key_id": f"AKIA{CANARY}",
    "secret_access_key": f"secret{CANARY}",
    "session_token": f"token{CANARY}",
}


@pytest.fixture
def server() -> Iterator[RawServer]:
    with raw_server(reset) as server:
        yield server


def opened(server: RawServer, limits: Limits = LIMITS, **options: str) -> Storage:
    spec = RemoteSpec("mine", "s3://bucket/prefix", {"endpointurl": server.url, **options})
    return open_s3(spec, limits)


def xml(code: str) -> bytes:
    text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{CANARY}</Message></Error>"
    return text.encode()


def object_of(length: int, body: bytes, *, status: str = "200 OK", headers: str = "") -> Script:
    head = f"HTTP/1.1 {status}\r\n{OBJECT_HEADERS}{headers}Content-Length: {length}\r\n\r\n"
    return say_raw(head, body)


def partial(content_range: str, body: bytes) -> Script:
    return object_of(
        len(body), body, status="206 Partial Content", headers=f"Content-Range: {content_range}\r\n"
    )


ANSWERS: list[tuple[str, Script, type[RemoteError]]] = [
    ("404", say("404 Not Found", xml("NoSuchKey")), RemoteMissing),
    ("no bucket", say("404 Not Found", xml("NoSuchBucket")), RemoteMissing),
    ("401", say("401 Unauthorized"), RemoteDenied),
    ("403", say("403 Forbidden", xml("AccessDenied")), RemoteDenied),
    ("bad signature", say("403 Forbidden", xml("SignatureDoesNotMatch")), RemoteDenied),
    ("unknown code", say("403 Forbidden", xml(CANARY)), RemoteDenied),
    ("expired token", say("400 Bad Request", xml("ExpiredToken")), RemoteDenied),
    ("416", say("416 Range Not Satisfiable", xml("InvalidRange")), RemoteCorrupt),
    ("412", say("412 Precondition Failed"), RemoteCorrupt),
    ("429", say("429 Too Many Requests", headers="Retry-After: 7\r\n"), RemoteSlow),
    ("503", say("503 Slow Down", xml("SlowDown"), headers="Retry-After: 7\r\n"), RemoteSlow),
    ("request timeout", say("400 Bad Request", xml("RequestTimeout")), RemoteSlow),
    ("500", say("500 Internal Server Error", xml("InternalError")), RemoteUnreachable),
    ("302 in a circle", say("302 Found", headers="Location: /again\r\n"), RemoteUnreachable),
    ("301 to nowhere", say("301 Moved Permanently", xml("PermanentRedirect")), RemoteUnreachable),
    ("304", say("304 Not Modified"), RemoteUnreachable),
    ("reset", reset, RemoteUnreachable),
    ("end", lambda connection: None, RemoteUnreachable),
    ("no http", say_raw("hello, who is there?\r\n\r\n"), RemoteUnreachable),
    ("truncated", object_of(100, b"x" * 10), RemoteCut),
    ("no length", say_raw(f"HTTP/1.1 200 OK\r\n{OBJECT_HEADERS}\r\n", b"x" * 100), RemoteCorrupt),
]


@pytest.mark.parametrize(
    ("script", "kind"), [pair[1:] for pair in ANSWERS], ids=[pair[0] for pair in ANSWERS]
)
def test_an_answer_that_is_none(server: RawServer, script: Script, kind: type[RemoteError]) -> None:
    server.script = script
    with pytest.raises(RemoteError) as caught:
        read(opened(server, **SECRETS), KEY)
    assert type(caught.value) is kind
    told(caught.value)
    if "circle" not in str(caught.value):
        assert len(server.requests) == 1  # whoever calls decides whether to ask again


def told(error: RemoteError) -> None:
    """One line that names the remote and holds no secret, nor does anything that hangs on the error."""
    assert "remote mine" in str(error)
    assert "\n" not in str(error)
    seen: BaseException | None = error
    while seen is not None:
        assert CANARY not in str(seen) + repr(seen)
        seen = None if seen.__suppress_context__ else seen.__context__


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        (object_of(10, b"x" * 10), RangeRefused),
        (partial("bytes 3-6/100", b"xxxx"), RemoteCorrupt),
        (partial("bytes 2-3/4", b"xx"), RemoteCorrupt),
        (partial("bytes 2-5/*", b"xxxx"), RemoteCorrupt),
        (partial("bytes 2-5/100", b"x" * 40), RemoteCorrupt),
        (partial("bytes 2-5/100", b"x"), RemoteCorrupt),
        (object_of(4, b"xxxx", status="206 Partial Content"), RemoteCorrupt),
    ],
    ids=["whole", "another", "short", "no size", "longer than said", "shorter than said", "not said"],
)
def test_a_range_that_was_not_asked_for(server: RawServer, script: Script, kind: type[RemoteError]) -> None:
    server.script = script
    with pytest.raises(kind) as caught:
        read(opened(server), KEY, 2, 4)
    told(caught.value)


def test_a_state_that_was_not_asked_for(server: RawServer) -> None:
    """A server that ignores the condition."""
    server.script = partial("bytes 2-5/100", b"xxxx")
    with pytest.raises(RemoteCorrupt, match="changed"):
        read(opened(server), KEY, 2, 4, '"other"')
    assert 'if-match: "other"' in server.requests[0].lower()
    assert read(opened(server), KEY, 2, 4, '"abc"') == b"xxxx"


def test_a_weak_tag_is_no_validator(server: RawServer) -> None:
    head = 'HTTP/1.1 200 OK\r\nETag: W/"abc"\r\nContent-Length: 1\r\n\r\n'
    server.script = say_raw(head, b"x")
    with opened(server).read(KEY) as body:
        assert body.validator == ""


def test_another_version_than_that_asked_for(server: RawServer) -> None:
    server.script = object_of(1, b"x", headers="x-amz-version-id: two\r\n")
    with pytest.raises(RemoteMissing, match="version"):
        read(opened(server), Address("key", "one"))
    assert "GET /bucket/prefix/key?versionId=one " in server.requests[0]


@pytest.mark.parametrize(
    "ask",
    [lambda s: s.size(KEY), lambda s: read(s, KEY), lambda s: list(s.list("files/"))],
    ids=["size", "read", "list"],
)
def test_silence_before_the_first_byte(server: RawServer, ask: Callable[[Storage], object]) -> None:
    server.script = server.stall()
    with pytest.raises(RemoteSlow) as caught:
        ask(opened(server, SHORT))
    told(caught.value)


@pytest.mark.parametrize("said", [0, 10])
def test_silence_in_the_middle(server: RawServer, said: int) -> None:
    server.script = server.stall(
        f"HTTP/1.1 200 OK\r\n{OBJECT_HEADERS}Content-Length: 100\r\n\r\n", b"x" * said
    )
    with pytest.raises(RemoteSlow) as caught, opened(server, SHORT).read(KEY) as body:
        b"".join(body)
    told(caught.value)


@pytest.mark.parametrize("length", [100_000, 10 * CHUNK_BYTES])
def test_a_body_that_drips(server: RawServer, length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """No pause is too long, and yet it would take for ever."""
    monkeypatch.setattr(object_options, "ANSWER_SECONDS", 1.0)

    def drip(connection: socket.socket) -> None:
        head = f"HTTP/1.1 200 OK\r\n{OBJECT_HEADERS}Content-Length: {length}\r\n\r\n"
        connection.sendall(head.encode())
        for _ in range(1000):
            if server.released.wait(0.02):
                return
            connection.sendall(b"x")

    server.script = drip
    with pytest.raises(RemoteSlow), opened(server).read(KEY) as body:
        b"".join(body)


def test_nobody_listens() -> None:
    with socket.socket() as taken:  # bound and not listening: nobody else gets the port
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        spec = RemoteSpec("mine", "s3://bucket", {"endpointurl": f"http://127.0.0.1:{port}"})
        with pytest.raises(RemoteUnreachable, match="no connection"):
            open_s3(spec, LIMITS).size(KEY)


def test_a_name_that_is_none() -> None:
    spec = RemoteSpec("mine", "s3://bucket", {"endpointurl": "http://name.invalid"})
    with pytest.raises((RemoteUnreachable, RemoteSlow)):
        open_s3(spec, SHORT).size(KEY)


def test_a_denied_listing(server: RawServer) -> None:
    server.script = say("403 Forbidden", xml("AccessDenied"))
    with pytest.raises(RemoteDenied) as caught:
        list(opened(server, **SECRETS).list("files/"))
    told(caught.value)


def test_a_closed_storage_says_so(server: RawServer) -> None:
    storage = opened(server)
    storage.close()
    with pytest.raises(RemoteUnreachable, match="closed"):
        storage.size(KEY)
    assert not server.requests


@pytest.mark.parametrize("key", ["a//b", "a/../b", "a\nb", "/"])
def test_a_key_that_cannot_be(server: RawServer, key: str) -> None:
    """It must not become another key on its way."""
    storage = opened(server)
    with pytest.raises(RemoteMissing):
        read(storage, key)
    with pytest.raises(RemoteMissing):
        storage.size(Address(key))
    assert not server.requests


@pytest.mark.parametrize("body", [b"canary0123456789secret", b"<ListBucketResult><Contents>", b""])
def test_a_listing_that_is_none(server: RawServer, body: bytes) -> None:
    server.script = say("200 OK", body)
    with pytest.raises(RemoteUnreachable) as caught:
        list(opened(server).list("files/"))
    told(caught.value)
