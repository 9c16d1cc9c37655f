"""The contract of a storage, held by OpenSSH; who is let in, whose key is believed, and what breaks."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from store.errors import InputError, RemoteCorrupt, RemoteDenied, RemoteSlow, RemoteUnreachable
from store.remotes.opening import open_remote
from store.remotes.spec import RemoteSpec
from store.remotes.storage import Address, Limits, Storage
from tests.patience import until
from tests.servers.proxy import Proxy
from tests.servers.sshd import Sshd, make_key, sshd
from tests.store.remotes.contract import LIMITS, Place, StorageContract, pattern, read
from tests.store.remotes.places import FilePlace


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with sshd(tmp_path_factory.mktemp("sshd")) as running:
        yield running


@pytest.fixture
def home(tmp_path: Path, server: Sshd, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home directory that knows the server."""
    (tmp_path / "home/.ssh").mkdir(parents=True)
    (tmp_path / "home/.ssh/known_hosts").write_text(server.known_host())
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return tmp_path / "home"


def place_on(server: Sshd, root: Path, port: int | None = None, **options: str) -> FilePlace:
    root.mkdir(exist_ok=True)
    url = f"ssh://127.0.0.1:{port or server.port}{root}"
    return FilePlace(root, url, {"user": server.user, "keyfile": str(server.key), **options})


class TestContract(StorageContract):
    @pytest.fixture
    def place(self, server: Sshd, home: Path, tmp_path: Path) -> Place:
        return place_on(server, tmp_path / "remote")


@pytest.fixture
def place(server: Sshd, home: Path, tmp_path: Path) -> FilePlace:
    made = place_on(server, tmp_path / "remote")
    made.put("object", b"bytes")
    return made


def test_an_unknown_host_is_refused(place: FilePlace, home: Path) -> None:
    (home / ".ssh/known_hosts").unlink()
    with closing(place.open(LIMITS)) as storage, pytest.raises(RemoteDenied, match="connect once with `ssh"):
        read(storage, "object")


def test_a_host_with_another_key_is_refused(
    place: FilePlace, home: Path, tmp_path: Path, server: Sshd
) -> None:
    other = make_key(tmp_path / "other").with_name("other.pub").read_text().split()
    (home / ".ssh/known_hosts").write_text(f"[127.0.0.1]:{server.port} {other[0]} {other[1]}\n")
    with closing(place.open(LIMITS)) as storage, pytest.raises(RemoteDenied, match="or is another one"):
        read(storage, "object")


def test_no_configuration_turns_off_the_look_at_host_keys(place: FilePlace, home: Path, server: Sshd) -> None:
    (home / ".ssh/known_hosts").unlink()
    (home / ".ssh/config").write_text("Host *\n StrictHostKeyChecking no\n UserKnownHostsFile none\n")
    trusting = FilePlace(place.root, place.url, place.options, ambient=True)
    with closing(trusting.open(LIMITS)) as storage, pytest.raises(RemoteDenied, match="known_hosts"):
        read(storage, "object")


def test_a_key_that_is_not_let_in_is_denied(place: FilePlace, tmp_path: Path) -> None:
    key = make_key(tmp_path / "stranger")
    stranger = FilePlace(place.root, place.url, {**place.options, "keyfile": str(key)})
    with closing(stranger.open(LIMITS)) as storage, pytest.raises(RemoteDenied, match="no key or password"):
        read(storage, "object")


def test_the_users_configuration_and_keys_count_only_where_they_may(
    place: FilePlace, home: Path, server: Sshd
) -> None:
    where = f"Hostname 127.0.0.1\n Port {server.port}\n User {server.user}"
    (home / ".ssh/config").write_text(f"Host alias\n {where}\n IdentityFile {server.key}\n")
    ambient = FilePlace(place.root, f"ssh://alias{place.root}", {}, ambient=True)
    with closing(ambient.open(LIMITS)) as storage:
        assert read(storage, "object") == b"bytes"
    (home / ".ssh/id_ed25519").symlink_to(server.key)
    alone = FilePlace(place.root, place.url, {"user": server.user})
    with closing(alone.open(LIMITS)) as storage, pytest.raises(RemoteDenied, match="--trust"):
        read(storage, "object")
    with closing(
        FilePlace(place.root, place.url, {"user": server.user}, ambient=True).open(LIMITS)
    ) as storage:
        (home / ".ssh/config").unlink()
        assert read(storage, "object") == b"bytes"


def test_a_command_of_the_configuration_runs_only_where_it_may(
    place: FilePlace, home: Path, tmp_path: Path
) -> None:
    (home / ".ssh/config").write_text(f"Host *\n ProxyCommand touch {tmp_path}/ran\n")
    with closing(place.open(LIMITS)) as storage:
        assert read(storage, "object") == b"bytes"
    assert not (tmp_path / "ran").exists()


def test_a_broken_connection_is_opened_once_more(
    place: FilePlace, home: Path, server: Sshd, tmp_path: Path
) -> None:
    with Proxy(("127.0.0.1", server.port)) as proxy:
        (home / ".ssh/known_hosts").write_text(server.known_host(proxy.port))
        with closing(place_on(server, place.root, proxy.port).open(LIMITS)) as storage:
            assert read(storage, "object") == b"bytes"
            proxy.break_connections()
            proxy.wait(lambda counts: counts.open == 0)
            assert read(storage, "object") == b"bytes"
            assert storage.size(Address("object")) == 5
            assert proxy.counts.connections == 2
            proxy.fail(refuse=True)
            proxy.break_connections()
            with pytest.raises(RemoteUnreachable):
                read(storage, "object")
        proxy.wait(lambda counts: counts.open == 0)


SHORT = Limits(connect=1.0, first_byte=1.0, stall=0.5)


@pytest.mark.parametrize("after", [0, 500])
def test_a_server_that_stalls_while_we_log_in_is_slow(
    place: FilePlace, home: Path, server: Sshd, after: int
) -> None:
    with Proxy(("127.0.0.1", server.port)) as proxy:
        (home / ".ssh/known_hosts").write_text(server.known_host(proxy.port))
        proxy.fail(stall_after=after)
        with (
            closing(place_on(server, place.root, proxy.port).open(SHORT)) as storage,
            pytest.raises((RemoteSlow, RemoteUnreachable)),
        ):
            read(storage, "object")


def test_a_look_up_that_hangs_keeps_neither_a_reader_nor_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """No resolver can be made to hang here, so the system's call is replaced. What hangs in a thread of an
    executor, as asyncio has it, is waited for at the end of a process."""
    asking, done = set[str](), threading.Event()

    def hang(*_: object, **__: object) -> list[object]:
        asking.add(threading.current_thread().name)
        done.wait(60)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    spec = RemoteSpec("here", "ssh://does.hang.example/path")
    opened = closing(open_remote(spec, Limits(connect=0.2, first_byte=0.2)).storage)
    with opened as storage, pytest.raises(RemoteSlow):
        storage.size(Address("object"))
    until(lambda: asking, "nothing is looked up")
    done.set()
    assert asking == {"look-up"}


def test_a_server_that_stalls_or_breaks_in_the_middle(place: FilePlace, home: Path, server: Sshd) -> None:
    place.put("large", pattern(8 << 20))
    with Proxy(("127.0.0.1", server.port)) as proxy:
        (home / ".ssh/known_hosts").write_text(server.known_host(proxy.port))
        patient = Limits(connect=10, first_byte=10, stall=0.5)
        for faults, limits in (({"stall_after": 1 << 20}, patient), ({"reset_after": 1 << 20}, LIMITS)):
            with closing(place_on(server, place.root, proxy.port).open(limits)) as storage:
                until(lambda: comes(storage))
                proxy.fail(**faults)
                with pytest.raises((RemoteSlow, RemoteUnreachable)):
                    read(storage, "large")
                proxy.fail()
                until(lambda: comes(storage))


def comes(storage: Storage) -> bool:
    """Whether the object does, in time: a busy machine may be as late as a server that stalls, or is away."""
    with contextlib.suppress(RemoteSlow, RemoteUnreachable):
        return read(storage, "object") == b"bytes"
    return False


def test_a_file_that_shrinks_is_no_short_object(place: FilePlace) -> None:
    place.put("large", pattern(8 << 20))
    with closing(place.open(LIMITS)) as storage, storage.read(Address("large")) as body:
        parts = iter(body)
        next(parts)
        os.truncate(place.root / "large", 1000)
        with pytest.raises(RemoteCorrupt, match="became shorter"):
            list(parts)


def test_few_channels_are_enough(place: FilePlace, home: Path, tmp_path: Path) -> None:
    with sshd(tmp_path / "narrow", sessions=1) as narrow:
        (home / ".ssh/known_hosts").write_text(narrow.known_host())
        with closing(place_on(narrow, place.root).open(LIMITS)) as storage:
            for _ in range(6):
                assert read(storage, "object") == b"bytes"


def test_a_listing_of_a_remote_that_is_not_there_fails(server: Sshd, home: Path, tmp_path: Path) -> None:
    options = {"user": server.user, "keyfile": str(server.key)}
    gone = FilePlace(tmp_path, f"ssh://127.0.0.1:{server.port}{tmp_path}/gone", options)
    with closing(gone.open(LIMITS)) as storage, pytest.raises(RemoteUnreachable, match="not there"):
        list(storage.list("files/"))


def test_nothing_is_left_when_it_is_closed(place: FilePlace) -> None:
    before = set(threading.enumerate())
    storage = place.open(LIMITS)
    assert read(storage, "object") == b"bytes"
    its_own = set(threading.enumerate()) - before
    assert its_own
    storage.close()
    storage.close()
    for thread in its_own:
        thread.join(60)
        assert not thread.is_alive(), thread
    with pytest.raises(RemoteUnreachable):
        read(storage, "object")


def test_an_encrypted_key_opens_with_its_passphrase(place: FilePlace, server: Sshd, tmp_path: Path) -> None:
    key = make_key(tmp_path / "pem", "-t", "rsa", "-b", "2048", "-m", "PEM", passphrase="canary-phrase")
    authorized = server.directory / "authorized_keys"
    authorized.write_text(authorized.read_text() + key.with_name("pem.pub").read_text())
    right = {"user": server.user, "keyfile": str(key), "passphrase": "canary-phrase"}
    with closing(FilePlace(place.root, place.url, right).open(LIMITS)) as storage:
        assert read(storage, "object") == b"bytes"
    for passphrase in ("wrong-canary", ""):
        options = {**right, "passphrase": passphrase, "ask_passphrase": "true"}
        with pytest.raises(InputError, match="keyfile") as caught:
            FilePlace(place.root, place.url, options).open(LIMITS)
        assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "options", "match"),
    [
        ("ssh:///path", {}, "ssh://HOST"),
        ("ssh://$(touch${IFS}canary)/path", {}, "ssh://HOST"),
        ("ssh://i-0;touch`x`/path", {}, "ssh://HOST"),
        ("ssh://host/path", {"user": "me;canary"}, "`user`"),
        ("ssh://host/path", {"user": "-oProxyCommand=canary"}, "`user`"),
        ("ssh://host/path", {"port": "canary"}, "port"),
        ("ssh://host/path", {"port": "70000"}, "port"),
        ("ssh://host/path", {"keyfile": "/not/there"}, "key"),
        ("ssh://host/path", {"max_sessions": "0"}, "max_sessions"),
        ("ssh://host/path", {"timeout": "soon"}, "timeout"),
        ("ssh://host/path", {"ask_password": "true"}, "config.local"),
    ],
)
def test_options_that_cannot_be_used_are_said(url: str, options: dict[str, str], match: str) -> None:
    with pytest.raises(InputError, match=match) as caught:
        open_remote(RemoteSpec("here", url, options))
    assert "canary" not in str(caught.value)
