"""What becomes of an object that a server does not take: which error, with what words, and what is left."""

from __future__ import annotations

import os
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from store.errors import (
    RemoteCorrupt,
    RemoteDenied,
    RemoteError,
    RemoteFull,
    RemoteMissing,
    RemoteSlow,
    RemoteUnreachable,
)
from store.remotes.apart import Apart
from store.remotes.gcs import open_gcs
from store.remotes.local_writing import DEAD_SECONDS
from store.remotes.opening import open_remote
from store.remotes.spec import RemoteSpec
from store.remotes.storage import CHUNK_BYTES, SENT_AT_ONCE, UPLOADS, Address, Limits, WritableStorage
from tests.patience import until
from tests.servers.certificates import make_certificate
from tests.servers.nginx import nginx
from tests.servers.proxy import Proxy
from tests.servers.raw_answers import RawServer, Script, raw_server, reset, say, say_raw
from tests.servers.sshd import Sshd, sshd
from tests.store.remotes.contract import LIMITS, pattern, read
from tests.store.remotes.places import FilePlace
from tests.store.remotes.test_ssh import place_on
from tests.store.remotes.writing_contract import cut, put

SHORT = Limits(connect=0.5, first_byte=0.4, stall=0.4, upload=0.4)
"""For who is not waited for. Who answers may be as late on a busy machine."""
CANARY = "canary0123456789secret"
KEY = "files/md5/ab/cdef"
DATA = b"some bytes"


@pytest.fixture
def server() -> Iterator[RawServer]:
    with raw_server(reset) as server:
        server.reads_bodies = True
        yield server


def s3(server: RawServer, limits: Limits = LIMITS, **options: str) -> WritableStorage:
    keys = {"access_key_id": f"AKIA{CANARY}", "secret_access_key": CANARY, "session_token": CANARY}
    spec = RemoteSpec("mine", "s3://bucket/prefix", {"endpointurl": server.url, **keys, **options})
    return open_remote(spec, limits).storage


def http(server: RawServer, limits: Limits = LIMITS) -> WritableStorage:
    options = {"auth": "basic", "user": "user", "password": CANARY, "method": "PUT"}
    return open_remote(RemoteSpec("mine", server.url, options), limits).storage


def webdav(server: RawServer, limits: Limits = LIMITS) -> WritableStorage:
    url = server.url.replace("http", "webdav", 1)
    return open_remote(RemoteSpec("mine", url, {"token": CANARY}), limits).storage


def xml(code: str) -> bytes:
    return f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{CANARY}</Message></Error>".encode()


ANSWERS: list[tuple[str, Script, type[RemoteError]]] = [
    ("401", say("401 Unauthorized"), RemoteDenied),
    ("403", say("403 Forbidden", xml("AccessDenied")), RemoteDenied),
    ("413", say("413 Payload Too Large"), RemoteFull),
    ("507", say("507 Insufficient Storage"), RemoteFull),
    ("429", say("429 Too Many Requests"), RemoteSlow),
    ("503", say("503 Slow Down", xml("SlowDown")), RemoteSlow),
    ("500", say("500 Internal Server Error", xml("InternalError")), RemoteUnreachable),
    ("302", say("302 Found", headers="Location: /again\r\n"), RemoteUnreachable),
    ("reset", reset, RemoteUnreachable),
    ("end", say_raw(""), RemoteUnreachable),
    ("nonsense", say_raw("nonsense\r\n\r\n"), RemoteUnreachable),
]


@pytest.mark.parametrize("family", [s3, http, webdav])
@pytest.mark.parametrize(("script", "kind"), [pytest.param(*row[1:], id=row[0]) for row in ANSWERS])
def test_errors_are_told_apart(
    server: RawServer,
    family: Callable[[RawServer], WritableStorage],
    script: Script,
    kind: type[RemoteError],
) -> None:
    server.choose = lambda head: say("201 Created") if head.startswith("MKCOL") else script
    with closing(family(server)) as storage, pytest.raises(kind) as caught:
        put(storage, KEY, DATA)
    assert CANARY not in str(caught.value) and "\n" not in str(caught.value)
    assert type(caught.value) is kind
    assert len([head for head in server.requests if head.startswith("PUT")]) == 1  # it asks once


@pytest.mark.parametrize("family", [s3, http, webdav])
def test_a_server_that_does_not_answer_is_slow(
    server: RawServer, family: Callable[[RawServer, Limits], WritableStorage]
) -> None:
    server.script = server.stall()
    with closing(family(server, SHORT)) as storage, pytest.raises(RemoteSlow):
        put(storage, KEY, DATA)


@pytest.mark.parametrize("family", [s3, http])
def test_a_server_that_takes_nothing_is_slow(
    server: RawServer, family: Callable[[RawServer, Limits], WritableStorage]
) -> None:
    """More than what the sockets between us hold."""
    server.reads_bodies = False
    server.script = server.stall()
    with closing(family(server, SHORT)) as storage, pytest.raises(RemoteSlow):
        put(storage, KEY, bytes(4 * SENT_AT_ONCE))


def test_a_server_that_takes_no_post_is_said(server: RawServer) -> None:
    server.script = say("405 Method Not Allowed")
    posting = open_remote(RemoteSpec("mine", server.url, {}), LIMITS).storage
    with closing(posting), pytest.raises(RemoteDenied, match="`method` to PUT"):
        put(posting, KEY, DATA)
    with closing(http(server)) as storage, pytest.raises(RemoteDenied, match="takes no PUT"):
        put(storage, KEY, DATA)


def test_a_denial_says_what_was_not_let(server: RawServer) -> None:
    server.script = say("403 Forbidden")
    for family in (s3, http):
        with closing(family(server)) as storage:
            with pytest.raises(RemoteDenied, match="does not let us write"):
                put(storage, KEY, DATA)
            with pytest.raises(RemoteDenied, match="does not let us delete"):
                storage.delete([KEY])


@pytest.mark.parametrize("family", [s3, http])
def test_a_write_that_is_acknowledged_and_lost_is_noticed(
    server: RawServer, family: Callable[[RawServer], WritableStorage]
) -> None:
    headers = 'Last-Modified: Tue, 15 Nov 1994 12:45:26 GMT\r\nETag: "abc"\r\n'
    short = say_raw(f"HTTP/1.1 200 OK\r\n{headers}Content-Length: 4\r\nConnection: close\r\n\r\n")
    server.choose = lambda head: say("200 OK", headers='ETag: "abc"\r\n') if head.startswith("PUT") else short
    with closing(family(server)) as storage, pytest.raises(RemoteCorrupt, match="another length"):
        put(storage, KEY, DATA)
    lost = say("404 Not Found")
    server.choose = lambda head: say("200 OK", headers='ETag: "abc"\r\n') if head.startswith("PUT") else lost
    with closing(family(server)) as storage, pytest.raises(RemoteMissing):
        put(storage, KEY, DATA)


def test_a_multipart_upload_that_fails_is_ended(server: RawServer) -> None:
    begun = (
        xml("")
        .replace(b"Error", b"InitiateMultipartUploadResult")
        .replace(b"<Code></Code>", b"<UploadId>7</UploadId>")
    )

    def choose(head: str) -> Script:
        if head.startswith("POST"):
            return say("200 OK", begun)
        if "partNumber=2" in head:
            return say("500 Internal Server Error")
        return say("200 OK", headers='ETag: "abc"\r\n') if head.startswith("PUT") else say("204 No Content")

    server.choose = choose
    with closing(s3(server)) as storage, pytest.raises(RemoteUnreachable, match="500"):
        put(storage, KEY, pattern(3 * SENT_AT_ONCE))
    ended = [head for head in server.requests if head.startswith("DELETE")]
    assert len(ended) == 1 and "uploadId=7" in ended[0]
    assert not any(head.startswith("POST") and "uploadId" in head.split()[1] for head in server.requests)


X = "9dd4e461268c8034f5c8564e155c67a6"
"""The MD5 of `x`."""


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, []),
        ({"sse": "AES256"}, ["x-amz-server-side-encryption: aes256"]),
        ({"sse": "aws:kms"}, ["x-amz-server-side-encryption: aws:kms"]),
        (
            {"sse_kms_key_id": "mine"},
            [
                "x-amz-server-side-encryption-aws-kms-key-id: mine",
                "x-amz-server-side-encryption: aws:kms",
            ],
        ),
    ],
)
def test_encryption_is_as_the_remote_says(
    server: RawServer, options: dict[str, str], expected: list[str]
) -> None:
    server.script = say("200 OK", headers=f'ETag: "{X}"\r\n')
    with closing(s3(server, **options)) as storage:
        put(storage, KEY, b"x")
    lines = server.requests[0].lower().splitlines()
    assert sorted(line for line in lines if line.startswith("x-amz-server-side")) == expected
    assert len(server.requests) == 1  # the tag proves the bytes


def test_nothing_is_sent_with_other_rights_than_the_remote_says(
    server: RawServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for option in ("acl", "grant_read"):
        with closing(s3(server, **{option: "x"})) as storage, pytest.raises(RemoteDenied, match=option):
            put(storage, KEY, DATA)
    monkeypatch.setenv("AWS_SERVER_SIDE_ENCRYPTION", "aws:kms")
    with closing(s3(server)) as storage, pytest.raises(RemoteDenied, match="unset AWS_SERVER"):
        put(storage, KEY, DATA)
    spec = RemoteSpec("mine", "gs://bucket/p", {"endpointurl": server.url})
    with closing(open_gcs(spec, LIMITS)) as google:
        with pytest.raises(RemoteDenied, match="without credentials"):
            google.put(KEY, cut(DATA), len(DATA))
        with pytest.raises(RemoteDenied, match="without credentials"):
            google.delete([KEY])
    assert server.requests == []


def test_http_posts_where_nothing_else_is_said(server: RawServer) -> None:
    def choose(head: str) -> Script:
        size = len(DATA) if head.startswith("HEAD") else 0
        return say_raw(f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\nConnection: close\r\n\r\n")

    server.choose = choose
    with closing(open_remote(RemoteSpec("mine", server.url, {}), LIMITS).storage) as storage:
        put(storage, KEY, DATA)
        assert [head.split()[0] for head in server.requests] == ["POST", "HEAD"]
        assert f"content-length: {len(DATA)}" in server.requests[0].lower()
    odd = open_remote(RemoteSpec("mine", server.url, {"method": "PATCH"}), LIMITS).storage
    with closing(odd), pytest.raises(RemoteDenied, match="`method`"):
        put(odd, KEY, DATA)


@pytest.mark.parametrize("key", ["../out", "a/../../out", "a/./b"])
@pytest.mark.parametrize("family", [s3, http, webdav])
def test_no_key_leads_out(
    server: RawServer, family: Callable[[RawServer], WritableStorage], key: str
) -> None:
    server.script = say("201 Created")
    with closing(family(server)) as storage:
        with pytest.raises(RemoteError):
            put(storage, key, DATA)
        with pytest.raises(RemoteError):
            storage.delete([key])
    assert not any("out" in head.split()[1] or "/./" in head.split()[1] for head in server.requests)


def test_a_bound_on_objects_is_told_though_most_is_not_sent_yet(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    certificate = make_certificate(tmp_path / "certificate")
    with nginx(
        tmp_path / "nginx",
        tmp_path / "root",
        webdav=True,
        certificate=certificate,
        extra="location /small/ { dav_methods PUT; client_max_body_size 1k; }",
    ) as server:
        options = {"method": "PUT", "ssl_verify": str(certificate.path)}
        with closing(open_remote(RemoteSpec("mine", server.url, options), LIMITS).storage) as storage:
            with pytest.raises((RemoteFull, RemoteUnreachable)):
                put(storage, "small/key", bytes(30 * CHUNK_BYTES))
            data = pattern(3 * CHUNK_BYTES)
            assert put(storage, "large/key", data)
            assert read(storage, "large/key") == data
    assert not (tmp_path / "root/small").exists()


def test_a_connection_that_breaks_in_the_middle_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    with (
        nginx(tmp_path / "nginx", tmp_path / "root", webdav=True) as server,
        Proxy(("127.0.0.1", server.port)) as proxy,
    ):
        for url, options in (
            (proxy.url, {"method": "PUT"}),
            (proxy.url.replace("http", "webdav", 1), {}),
        ):
            with closing(open_remote(RemoteSpec("mine", url, options), LIMITS).storage) as storage:
                with pytest.raises(RemoteUnreachable):
                    storage.put(KEY, broken(proxy), 12 * CHUNK_BYTES)
                assert put(storage, KEY, DATA)
                assert read(storage, KEY) == DATA
                storage.delete([KEY])
    left = [path for path in (tmp_path / "root").rglob("*") if path.is_file()]
    assert left == []


def broken(proxy: Proxy) -> Iterator[bytes]:
    """Twelve parts; after a few of them the network breaks."""
    for number in range(12):
        if number == 6:
            proxy.break_connections()
        yield bytes(CHUNK_BYTES)


@pytest.fixture(scope="module")
def ssh_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with sshd(tmp_path_factory.mktemp("sshd")) as running:
        yield running


@pytest.fixture
def known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The list of hosts that are known to a home directory of its own."""
    (tmp_path / "home/.ssh").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return tmp_path / "home/.ssh/known_hosts"


def test_an_ssh_connection_that_breaks_leaves_nothing_in_its_place(
    ssh_server: Sshd, known: Path, tmp_path: Path
) -> None:
    with Proxy(("127.0.0.1", ssh_server.port)) as proxy:
        known.write_text(ssh_server.known_host(proxy.port))
        place = place_on(ssh_server, tmp_path / "remote", proxy.port)
        with closing(place.open(LIMITS)) as opened:
            storage: WritableStorage = opened  # type: ignore[assignment]
            assert put(storage, "beside", DATA)
            with pytest.raises(RemoteUnreachable):
                storage.put(KEY, broken(proxy), 12 * CHUNK_BYTES)
            with pytest.raises(RemoteMissing):
                storage.size(Address(KEY))
            assert put(storage, KEY, DATA)
            assert read(storage, KEY) == DATA


def test_an_ssh_server_that_stalls_is_not_waited_for(ssh_server: Sshd, known: Path, tmp_path: Path) -> None:
    """It is slow, or away: whichever of the two is noticed first, by a thread that may be late."""
    with Proxy(("127.0.0.1", ssh_server.port)) as proxy:
        known.write_text(ssh_server.known_host(proxy.port))
        place = place_on(ssh_server, tmp_path / "remote", proxy.port)
        with closing(place.open(Limits(connect=10, first_byte=10, stall=0.5))) as opened:
            storage: WritableStorage = opened  # type: ignore[assignment]
            until(lambda: is_taken(storage))
            proxy.fail(stall_after=2000)
            with pytest.raises((RemoteSlow, RemoteUnreachable)):
                put(storage, KEY, bytes(40 * CHUNK_BYTES))
            proxy.fail()
    assert not (tmp_path / "remote" / KEY).exists()


def is_taken(storage: WritableStorage) -> bool:
    """Whether an object is, in time: a busy machine may be as late as a server that stalls, or is away."""
    with suppress(RemoteSlow, RemoteUnreachable):
        return put(storage, "beside", DATA)
    return False


def test_ssh_gives_what_is_new_the_permissions_of_the_remote(
    ssh_server: Sshd, known: Path, tmp_path: Path
) -> None:
    known.write_text(ssh_server.known_host())
    place = place_on(ssh_server, tmp_path / "remote")
    place.root.chmod(0o2770)
    with closing(place.open(LIMITS)) as opened:
        put(opened, KEY, DATA)  # type: ignore[arg-type]
    path = place.root / KEY
    assert stat.S_IMODE(path.stat().st_mode) == 0o444
    for directory in path.parents[:3]:
        assert stat.S_IMODE(directory.stat().st_mode) == 0o2770


@pytest.fixture
def directory(tmp_path: Path) -> FilePlace:
    (tmp_path / "remote").mkdir()
    return FilePlace(tmp_path / "remote", str(tmp_path / "remote"))


def opened(place: FilePlace) -> WritableStorage:
    return place.open(LIMITS)  # type: ignore[return-value]


def test_a_directory_gives_what_is_new_its_permissions_and_owner(directory: FilePlace) -> None:
    directory.root.chmod(0o2770)
    owner = os.geteuid()
    if owner == 0:
        owner = 12345
        os.chown(directory.root, owner, owner)
        directory.root.chmod(0o2770)
    put(opened(directory), KEY, DATA)
    path = directory.root / KEY
    assert stat.S_IMODE(path.stat().st_mode) == 0o444
    assert path.stat().st_uid == owner
    for above in path.parents[:3]:
        assert stat.S_IMODE(above.stat().st_mode) == 0o2770
        assert above.stat().st_uid == owner


def test_a_directory_is_made_where_it_is_missing(tmp_path: Path) -> None:
    place = FilePlace(tmp_path / "new/remote", str(tmp_path / "new/remote"))
    storage = opened(place)
    with pytest.raises(RemoteUnreachable):
        storage.delete([KEY])
    assert put(storage, KEY, DATA)
    assert read(storage, KEY) == DATA


def test_nothing_is_written_through_a_link(directory: FilePlace, tmp_path: Path) -> None:
    (tmp_path / "outside/md5/ab").mkdir(parents=True)
    (tmp_path / "outside/md5/ab/there").write_bytes(b"x")
    (directory.root / "files").symlink_to(tmp_path / "outside")
    storage = opened(directory)
    with pytest.raises(RemoteCorrupt, match="symlink"):
        put(storage, KEY, DATA)
    with pytest.raises(RemoteCorrupt, match="symlink"):
        storage.delete(["files/md5/ab/there"])
    assert [path.name for path in (tmp_path / "outside").rglob("*")] == ["md5", "ab", "there"]
    for key in ("../out", "/out", "a//b", "a/../b", "nul\0", ""):
        with pytest.raises(RemoteError, match="no such key"):
            put(storage, key, DATA)


def test_what_a_killed_process_left_is_removed_later(directory: FilePlace) -> None:
    uploads = directory.root / UPLOADS
    uploads.mkdir(parents=True)
    for name in ("old", "young"):
        (uploads / name).write_bytes(b"half")
    long_ago = time.time() - DEAD_SECONDS - 60
    os.utime(uploads / "old", (long_ago, long_ago))
    put(opened(directory), KEY, DATA)
    assert [path.name for path in uploads.iterdir()] == ["young"]


@pytest.mark.root
def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    path = tmp_path / "remote"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", path], check=True, timeout=60)
    try:
        storage = opened(FilePlace(path, str(path)))
        with pytest.raises(RemoteFull, match="no space left"):
            put(storage, KEY, bytes(2 * CHUNK_BYTES))
        assert [found for found in path.rglob("*") if found.is_file()] == []
        assert put(storage, KEY, DATA)
        subprocess.run(["mount", "-o", "remount,ro", path], check=True, timeout=60)
        with pytest.raises(RemoteDenied, match="read-only"):
            put(storage, "other", DATA)
    finally:
        subprocess.run(["umount", path], check=True, timeout=60)


def test_errors_cross_from_the_process_that_writes(server: RawServer) -> None:
    helper = Apart()
    try:
        spec = RemoteSpec("mine", "s3://bucket/p", {"endpointurl": server.url, "access_key_id": CANARY})
        spec.options["secret_access_key"] = CANARY  # type: ignore[index]
        storage = helper.open_remote(spec).storage
        server.script = say("403 Forbidden")
        for size in (10, 5 * SENT_AT_ONCE):  # also before it has taken all
            with pytest.raises(RemoteDenied, match="does not let us write") as caught:
                put(storage, KEY, bytes(size))
            assert CANARY not in str(caught.value)

        def killed() -> Iterator[bytes]:
            yield bytes(CHUNK_BYTES)
            process = helper._process
            assert process is not None
            process.kill()
            process.wait()
            yield bytes(CHUNK_BYTES)

        with pytest.raises(RemoteUnreachable):
            storage.put(KEY, killed(), 2 * CHUNK_BYTES)
    finally:
        helper.close()
