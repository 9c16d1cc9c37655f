"""The contract of a storage, held by nginx with WebDAV; listings that lie; and all ways to say who we are."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from store.errors import InputError, RemoteCorrupt, RemoteDenied, RemoteUnreachable
from store.remotes import webdav
from store.remotes.opening import open_remote
from store.remotes.spec import RemoteSpec
from store.remotes.webdav_listing import BODY, MOST_BYTES, Entry, ListingInvalid, below, parse
from tests.servers.certificates import make_certificate
from tests.servers.nginx import Nginx, nginx
from tests.store.remotes.contract import LIMITS, ODD_KEYS, Place, StorageContract, read
from tests.store.remotes.places import FilePlace

CANARY = "s3cr3t-canary"


def webdav_url(server: Nginx, path: str = "") -> str:
    return server.url.replace("http", "webdav", 1) + path


class TestContract(StorageContract):
    odd_keys = tuple(key for key in ODD_KEYS if not key.startswith("."))  # nginx lists no hidden files

    @pytest.fixture
    def place(self, tmp_path: Path) -> Iterator[Place]:
        root = tmp_path / "root/pre fix"
        root.mkdir(parents=True)
        with nginx(tmp_path / "nginx", tmp_path / "root", webdav=True) as server:
            yield FilePlace(root, webdav_url(server, "/pre fix"))


@pytest.fixture
def place(tmp_path: Path) -> FilePlace:
    made = FilePlace(tmp_path / "root", "")
    made.put("dir/object", b"bytes")
    return made


WAYS = [
    {"user": "user", "password": CANARY},
    {"token": CANARY},
    {"custom_auth_header": "X-Token", "password": CANARY},
    {"bearer_token_command": f"echo {CANARY}"},
]


@pytest.mark.parametrize("options", WAYS, ids=["password", "token", "header", "command"])
def test_who_we_are_can_be_said(place: FilePlace, tmp_path: Path, options: dict[str, str]) -> None:
    login = ("user", CANARY) if "user" in options else None
    header = None if login else ("Authorization", f"Bearer {CANARY}")
    if "custom_auth_header" in options:
        header = ("X-Token", CANARY)
    with nginx(tmp_path / "nginx", place.root, webdav=True, login=login, header=header) as server:
        url = webdav_url(server)
        with closing(FilePlace(place.root, url, options).open(LIMITS)) as storage:
            assert read(storage, "dir/object") == b"bytes"
            assert [one[:2] for one in storage.list("dir/")] == [("dir/object", 5)]
        with closing(FilePlace(place.root, url).open(LIMITS)) as storage:
            with pytest.raises(RemoteDenied):
                list(storage.list("dir/"))
            with pytest.raises(RemoteDenied):
                read(storage, "dir/object")


def test_a_command_is_run_again_for_a_remote_that_is_opened_again(place: FilePlace, tmp_path: Path) -> None:
    token = tmp_path / "token"
    options = {"bearer_token_command": f"cat {token}"}
    header = ("Authorization", f"Bearer {CANARY}")
    with nginx(tmp_path / "nginx", place.root, webdav=True, header=header) as server:
        token.write_text("out-of-date\n")
        with closing(FilePlace(place.root, webdav_url(server), options).open(LIMITS)) as storage:
            with pytest.raises(RemoteDenied) as caught:
                read(storage, "dir/object")
            assert "out-of-date" not in str(caught.value)
        token.write_text(f"  {CANARY}\n")
        with closing(FilePlace(place.root, webdav_url(server), options).open(LIMITS)) as storage:
            assert read(storage, "dir/object") == b"bytes"


def python(program: str) -> str:
    return shlex.join([sys.executable, "-c", program])


@pytest.mark.parametrize(
    ("command", "match"),
    [
        ("/not/there canary", "cannot be run"),
        ("", "cannot be run"),
        ("'", "cannot be run"),
        (python(f"print('{CANARY}'); raise SystemExit(3)"), "status 3"),
        ("true", "printed no token"),
        (python("print('canary' * 100000)"), "printed no token"),
        (python("print('two canaries')"), "no token may"),
        (python("import time; print('canary', flush=True); time.sleep(600)"), "did not end within"),
    ],
)
def test_a_command_that_gives_no_token_is_said(
    command: str, match: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "sleep" in command:
        monkeypatch.setattr(webdav, "COMMAND_SECONDS", 0.5)
    options = {"bearer_token_command": command or " "}
    with pytest.raises(InputError, match=match) as caught:
        open_remote(RemoteSpec("here", "webdav://host/", options))
    assert "canary" not in str(caught.value)


def test_a_command_has_no_shell(tmp_path: Path) -> None:
    options = {
        "bearer_token_command": f"echo $(touch {tmp_path}/ran)`touch {tmp_path}/ran`;touch {tmp_path}/ran"
    }
    with pytest.raises(InputError):
        open_remote(RemoteSpec("here", "webdav://host/", options))
    assert not (tmp_path / "ran").exists()


def test_a_clients_certificate_is_shown(place: FilePlace, tmp_path: Path) -> None:
    own, client = make_certificate(tmp_path / "own"), make_certificate(tmp_path / "client", client=True)
    with nginx(
        tmp_path / "nginx", place.root, webdav=True, certificate=own, client_certificate=client
    ) as server:
        trusting = {"ssl_verify": str(own.path)}
        shown = {**trusting, "cert_path": str(client.path), "key_path": str(client.key)}
        assert webdav_url(server).startswith("webdavs://")
        with closing(FilePlace(place.root, webdav_url(server), shown).open(LIMITS)) as storage:
            assert read(storage, "dir/object") == b"bytes"
        unknown = FilePlace(place.root, webdav_url(server), trusting)
        with closing(unknown.open(LIMITS)) as storage, pytest.raises(RemoteUnreachable, match="status 400"):
            read(storage, "dir/object")


def test_a_remote_that_is_not_there_has_no_empty_listing(place: FilePlace, tmp_path: Path) -> None:
    with nginx(tmp_path / "nginx", place.root, webdav=True) as server:
        gone = FilePlace(place.root, webdav_url(server, "/gone"))
        with closing(gone.open(LIMITS)) as storage, pytest.raises(RemoteUnreachable, match="not there"):
            list(storage.list("files/"))


def test_a_server_of_files_alone_cannot_be_listed(place: FilePlace, tmp_path: Path) -> None:
    with (
        nginx(tmp_path / "nginx", place.root) as server,
        closing(FilePlace(place.root, webdav_url(server)).open(LIMITS)) as storage,
    ):
        assert read(storage, "dir/object") == b"bytes"
        with pytest.raises(RemoteUnreachable, match="does no WebDAV"):
            list(storage.list("dir/"))


def test_a_listing_that_lies_is_corrupt(place: FilePlace, tmp_path: Path) -> None:
    (place.root / "lie").write_bytes(listing("/dir/", "/elsewhere/object"))
    extra = "location /dir/ { error_page 405 =207 /lie; return 405; }"
    with (
        nginx(tmp_path / "nginx", place.root, extra=extra) as server,
        closing(FilePlace(place.root, webdav_url(server)).open(LIMITS)) as storage,
        pytest.raises(RemoteCorrupt, match="does not lie there"),
    ):
        list(storage.list("dir/"))


def listing(*hrefs: str) -> bytes:
    entries = "".join(
        f"<D:response><D:href>{href}</D:href><D:propstat><D:prop><D:getcontentlength>5</D:getcontentlength>"
        "<D:getlastmodified>Tue, 14 Nov 2023 22:13:20 GMT</D:getlastmodified>"
        "<D:resourcetype/></D:prop><D:status>HTTP/1.1 200 OK</D:status></D:propstat></D:response>"
        for href in hrefs
    )
    return f'<?xml version="1.0"?><D:multistatus xmlns:D="DAV:">{entries}</D:multistatus>'.encode()


def test_listings_are_read_in_all_their_forms() -> None:
    assert parse([listing("/a%20b/%C3%BC", "http://host:1/x/", "/c:d")]) == [
        Entry("/a b/ü", False, 5, 1_700_000_000.0),
        Entry("/x", False, 5, 1_700_000_000.0),
        Entry("/c:d", False, 5, 1_700_000_000.0),
    ]
    other = (
        b'<multistatus xmlns="DAV:"><response><href> /d/ </href><propstat><prop>'
        b"<resourcetype><collection/></resourcetype><getcontentlength>-3</getcontentlength>"
        b"<getlastmodified>yesterday</getlastmodified>"
        b'<x xmlns="y"><collection/></x></prop></propstat></response></multistatus>'
    )
    assert parse(other[i : i + 1] for i in range(len(other))) == [Entry("/d", True, -1)]
    assert parse([BODY]) == []


BOMB = b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]><x>&b;</x>'


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"<html>",
        b"not xml",
        BOMB,
        b'<!DOCTYPE x SYSTEM "file:///etc/passwd"><x/>',
        b"<a>" * 100,
        b"<a>" + b"x" * 100_000 + b"</a>",
        listing(""),
        listing("http://["),
        b"<a>&undefined;</a>",
    ],
)
def test_documents_that_are_no_listings_are_refused(document: bytes) -> None:
    with pytest.raises(ListingInvalid):
        parse([document])


def test_a_listing_without_end_is_refused() -> None:
    def endless() -> Iterator[bytes]:
        yield b"<a>"
        while True:
            yield b"<b>" + b"x" * (1 << 15) + b"</b>" + b" <!--" + b"y" * (8 << 20) + b"-->"

    with pytest.raises(ListingInvalid, match="too long"):
        parse(endless())
    assert MOST_BYTES < 1 << 30


@pytest.mark.parametrize(
    "path", ["/base/../x", "/basement/x", "/", "/base//x", "/base/./x", "/base/a\0b", "x"]
)
def test_what_lies_elsewhere_is_refused(path: str) -> None:
    with pytest.raises(ListingInvalid):
        below(Entry(path, False, 1), "/base")
    assert below(Entry("/base", True, -1), "/base") is None
    assert below(Entry("/base/a/b", False, 1), "/base") == "a/b"
