"""The contract of a storage, held by nginx with and without ranges; and who gets to see credentials."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from store.errors import InputError, RemoteDenied, RemoteMissing, RemoteUnreachable
from store.remotes.opening import open_remote
from store.remotes.spec import RemoteSpec
from store.remotes.storage import Address
from tests.servers.certificates import make_certificate
from tests.servers.nginx import nginx
from tests.servers.proxy import Proxy
from tests.store.remotes.contract import LIMITS, Place, StorageContract, read
from tests.store.remotes.places import FilePlace

CANARY = "s3cr3t-canary"


class TestWithRanges(StorageContract):
    listing = False

    @pytest.fixture
    def place(self, tmp_path: Path) -> Iterator[Place]:
        (tmp_path / "root/base").mkdir(parents=True)
        with nginx(tmp_path / "nginx", tmp_path / "root") as server:
            yield FilePlace(tmp_path / "root/base", f"{server.url}/base")


class TestWithoutRanges(StorageContract):
    listing = False
    ranges = False
    validators = False  # they are told apart by ranges

    @pytest.fixture
    def place(self, tmp_path: Path) -> Iterator[Place]:
        (tmp_path / "root").mkdir()
        with nginx(tmp_path / "nginx", tmp_path / "root", ranges=False) as server:
            yield FilePlace(tmp_path / "root", server.url + "/")


class Recorder:
    """A server that keeps the headers of what it is asked, and answers as it is told."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, dict[str, str]]] = []
        self.location = ""
        recorder = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                recorder.seen.append((self.command, self.path, dict(self.headers)))
                self.send_response(302 if recorder.location else 200)
                if recorder.location:
                    self.send_header("Location", recorder.location)
                self.send_header("Content-Length", "5" if not recorder.location else "0")
                self.end_headers()
                if self.command == "GET" and not recorder.location:
                    self.wfile.write(b"bytes")

            do_GET = do_HEAD = answer  # noqa: N815 (the base class's names)

            def log_message(self, *arguments: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    def __enter__(self) -> Recorder:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    with Recorder() as made:
        yield made


@pytest.fixture
def other() -> Iterator[Recorder]:
    with Recorder() as made:
        yield made


BASIC = {"auth": "basic", "user": "user", "password": CANARY}
CUSTOM = {"auth": "custom", "custom_auth_header": "X-Token", "password": CANARY}


def test_a_password_opens(tmp_path: Path) -> None:
    FilePlace(tmp_path / "root", "").put("object", b"bytes")
    with nginx(tmp_path / "nginx", tmp_path / "root", login=("user", CANARY)) as server:
        for options in (BASIC, {"user": "user", "password": CANARY}):
            storage = FilePlace(tmp_path, server.url, options).open(LIMITS)
            assert read(storage, "object") == b"bytes"
            storage.close()
        for options in ({**BASIC, "password": "wrong-canary"}, {}):
            storage = FilePlace(tmp_path, server.url, options).open(LIMITS)
            with pytest.raises(RemoteDenied, match="remote here does not let us read") as caught:
                read(storage, "object")
            storage.close()
            assert "canary" not in repr(caught.value) + str(caught.getrepr(chain=True).reprcrash)


def test_a_header_of_the_users_own_opens(tmp_path: Path) -> None:
    FilePlace(tmp_path / "root", "").put("object", b"bytes")
    with nginx(tmp_path / "nginx", tmp_path / "root", header=("X-Token", CANARY)) as server:
        storage = FilePlace(tmp_path, server.url, CUSTOM).open(LIMITS)
        assert read(storage, "object") == b"bytes"
        storage.close()


@pytest.mark.parametrize("options", [BASIC, CUSTOM])
def test_another_host_never_sees_credentials(
    recorder: Recorder, other: Recorder, options: dict[str, str]
) -> None:
    recorder.location = f"{other.url}/elsewhere?signature=1"
    storage = FilePlace(Path(), recorder.url, options).open(LIMITS)
    assert read(storage, "object") == b"bytes"
    assert storage.size(Address("object")) == 5
    storage.close()
    assert CANARY in str(recorder.seen) or "Basic" in str(recorder.seen)
    assert [path for _, path, _ in other.seen] == ["/elsewhere?signature=1"] * 2
    for _, _, headers in other.seen:
        assert "Authorization" not in headers
        assert "X-Token" not in headers
        assert CANARY not in str(headers)


def test_a_redirect_to_itself_ends(recorder: Recorder) -> None:
    recorder.location = "/again"
    storage = FilePlace(Path(), recorder.url).open(LIMITS)
    with pytest.raises(RemoteUnreachable, match="in circles"):
        read(storage, "object")
    storage.close()
    assert len(recorder.seen) == 6


@pytest.mark.parametrize(
    "location",
    ["ftp://127.0.0.1/x", "file:///etc/passwd", "http://user:pw@127.0.0.1/", "http://["],
)
def test_a_redirect_to_what_is_no_plain_url_is_not_followed(recorder: Recorder, location: str) -> None:
    recorder.location = location
    storage = FilePlace(Path(), recorder.url).open(LIMITS)
    with pytest.raises(RemoteUnreachable, match="redirects us"):
        read(storage, "object")
    storage.close()


def test_no_redirect_leads_from_https_to_http(tmp_path: Path, recorder: Recorder) -> None:
    certificate = make_certificate(tmp_path / "certificate")
    extra = f"location /r {{ return 302 {recorder.url}/object; }}"
    (tmp_path / "root").mkdir()
    with nginx(tmp_path / "nginx", tmp_path / "root", certificate=certificate, extra=extra) as server:
        options = {"ssl_verify": str(certificate.path)}
        storage = FilePlace(tmp_path, server.url, options).open(LIMITS)
        with pytest.raises(RemoteUnreachable, match="from https to http"):
            read(storage, "r")
        storage.close()
    assert recorder.seen == []


def test_tls_by_a_named_authority_by_none_and_by_an_expired_one(tmp_path: Path) -> None:
    FilePlace(tmp_path / "root", "").put("object", b"bytes")
    good = make_certificate(tmp_path / "good")
    expired = make_certificate(tmp_path / "expired", expired=True)
    with nginx(tmp_path / "nginx", tmp_path / "root", certificate=good) as server:
        for options in ({"ssl_verify": str(good.path)}, {"ssl_verify": "false"}):
            storage = FilePlace(tmp_path, server.url, options).open(LIMITS)
            assert read(storage, "object") == b"bytes"
            storage.close()
        storage = FilePlace(tmp_path, server.url).open(LIMITS)
        with pytest.raises(RemoteUnreachable, match="not trusted"):
            read(storage, "object")
        storage.close()
    with nginx(tmp_path / "nginx2", tmp_path / "root", certificate=expired) as server:
        storage = FilePlace(tmp_path, server.url, {"ssl_verify": str(expired.path)}).open(LIMITS)
        with pytest.raises(RemoteUnreachable, match="remote here shows a certificate that has expired"):
            read(storage, "object")
        storage.close()


def test_netrc_and_proxies_are_the_users_surroundings(
    recorder: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text(f"machine 127.0.0.1 login user password {CANARY}\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".netrc").symlink_to(netrc)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with Proxy(("127.0.0.1", recorder.port)) as proxy:
        monkeypatch.setenv("http_proxy", f"http://{proxy.url.removeprefix('http://')}")
        plain = FilePlace(tmp_path, recorder.url).open(LIMITS)
        assert read(plain, "object") == b"bytes"
        assert proxy.counts.connections == 0
        assert "Authorization" not in recorder.seen[-1][2]
        ambient = FilePlace(tmp_path, recorder.url, ambient=True).open(LIMITS)
        assert read(ambient, "object") == b"bytes"
        assert proxy.counts.connections == 1
        assert recorder.seen[-1][1] == f"{recorder.url}/object"
        assert "Authorization" in recorder.seen[-1][2]
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        direct = FilePlace(tmp_path, recorder.url, ambient=True).open(LIMITS)
        assert read(direct, "object") == b"bytes"
        assert proxy.counts.connections == 1
        for storage in (plain, ambient, direct):
            storage.close()


def test_connections_are_kept(tmp_path: Path) -> None:
    place = FilePlace(tmp_path / "root", "")
    place.put("object", b"bytes")
    with nginx(tmp_path / "nginx", tmp_path / "root") as server, Proxy(("127.0.0.1", server.port)) as proxy:
        storage = FilePlace(tmp_path, proxy.url).open(LIMITS)
        for _ in range(5):
            assert read(storage, "object") == b"bytes"
            assert read(storage, "object", 1, 2) == b"yt"
            assert storage.size(Address("object")) == 5
            with pytest.raises(RemoteMissing):
                read(storage, "missing")
            with storage.read(Address("object")):
                pass
        assert proxy.counts.connections == 1
        storage.close()
        proxy.wait(lambda counts: counts.open == 0)


@pytest.mark.parametrize(
    ("url", "options", "match"),
    [
        ("http://", {}, "URL"),
        ("http://host:99999/", {}, "URL"),
        ("http://user:canary@host/", {}, "URL"),
        ("http://host/path?token=canary", {}, "URL"),
        ("http://host", {"auth": "digest", "user": "u", "password": "canary"}, "basic or custom"),
        ("http://host", {"auth": "basic", "password": "canary"}, "`user`"),
        ("http://host", {"auth": "basic", "user": "u", "ask_password": "true"}, "cannot be asked"),
        ("http://host", {"auth": "custom", "custom_auth_header": "a b", "password": "canary"}, "header"),
        (
            "http://host",
            {"auth": "custom", "custom_auth_header": "a", "password": "canary\r\nx: y"},
            "header",
        ),
        ("http://host", {"ssl_verify": "/not/there"}, "ssl_verify"),
        ("http://host", {"connect_timeout": "canary"}, "connect_timeout"),
    ],
)
def test_options_that_cannot_be_used_are_said(url: str, options: dict[str, str], match: str) -> None:
    with pytest.raises(InputError, match=match) as caught:
        open_remote(RemoteSpec("here", url, options))
    assert "canary" not in str(caught.value)
    assert "\n" not in str(caught.value)
