"""By whose rights Google Cloud Storage is read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from store.errors import InputError, RemoteDenied, RemoteMissing
from store.remotes.gcs import open_gcs
from store.remotes.spec import RemoteSpec
from store.remotes.storage import Address, Limits
from tests.servers.raw_answers import RawServer, raw_server, say

LIMITS = Limits(connect=5.0, first_byte=10.0, stall=10.0)


@pytest.fixture
def server() -> Iterator[RawServer]:
    with raw_server(say("404 Not Found")) as server:
        yield server


@pytest.fixture
def account(tmp_path: Path) -> Path:
    """The file of a service account, which signs its own tokens."""
    key = rsa.generate_private_key(65537, 2048)
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    text = key.private_bytes(encoding, form, serialization.NoEncryption()).decode()
    fields = {"type": "service_account", "client_email": "me@example.com", "private_key_id": "1"}
    path = tmp_path / "account.json"
    path.write_text(json.dumps({**fields, "private_key": text, "client_id": "1", "token_uri": ""}))
    return path


def asked(server: RawServer, ambient: bool, version: str = "", **options: str) -> tuple[str, str]:
    """What a question asks for, and what it says of who asks."""
    spec = RemoteSpec("mine", "gs://bucket/p", {"endpointurl": server.url, **options}, ambient)
    with closing(open_gcs(spec, LIMITS)) as storage, pytest.raises(RemoteMissing):
        storage.size(Address("key", version))
    lines = server.requests[-1].splitlines()
    rights = [line.partition(": ")[2] for line in lines if line.lower().startswith("authorization:")]
    return lines[0].split()[1], "".join(rights)


def test_a_file_of_credentials_is_used_where_it_may(server: RawServer, account: Path) -> None:
    assert asked(server, True, credentialpath=str(account))[1].startswith("Bearer ey")
    assert asked(server, False, credentialpath=str(account))[1] == ""
    assert asked(server, True, credentialpath=str(account), allow_anonymous_login="true")[1] == ""


def test_the_surroundings_are_used_where_they_may(
    server: RawServer, account: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(account))
    monkeypatch.setenv("GOOGLE_BASE_URL", "http://127.0.0.1:1")
    assert asked(server, True)[1].startswith("Bearer ey")
    assert asked(server, False)[1] == ""
    monkeypatch.setenv("GOOGLE_BEARER_TOKEN", "canary")
    assert asked(server, False)[1] == ""
    with pytest.raises(RemoteDenied, match="unset GOOGLE_BEARER_TOKEN"):
        asked(server, True, credentialpath=str(account))


def test_generations_are_asked_for(server: RawServer) -> None:
    assert asked(server, False, "1234")[0] == "/bucket/p%2Fkey?generation=1234"


def test_a_file_that_is_none_is_said(server: RawServer, tmp_path: Path) -> None:
    (tmp_path / "odd.json").write_text('{"type": "external_account", "x": "canary"}')
    for path in (tmp_path / "missing.json", tmp_path / "odd.json"):
        with pytest.raises(RemoteDenied, match="credentialpath") as caught:
            asked(server, True, credentialpath=str(path))
        assert "canary" not in str(caught.value)


def test_a_denial_says_what_may_help(server: RawServer) -> None:
    server.script = say("403 Forbidden")
    with pytest.raises(RemoteDenied, match="--trust"):
        asked(server, False, credentialpath="x")


def test_options_that_cannot_be_used_are_refused() -> None:
    with pytest.raises(InputError):
        open_gcs(RemoteSpec("mine", "gs://bucket", {"endpointurl": "ftp://x"}), LIMITS)
    with pytest.raises(InputError):
        open_gcs(RemoteSpec("mine", "gs://bucket", {"allow_anonymous_login": "perhaps"}), LIMITS)
