"""By whose rights Azure's storage is read, and what DVC's options for it do."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path

import pytest

from store.errors import InputError, RemoteDenied, RemoteMissing
from store.remotes.azure import account_of, open_azure
from store.remotes.azure_surroundings import completed
from store.remotes.spec import RemoteSpec
from store.remotes.storage import Address, Limits
from tests.servers.object_stores import (
    AZURE_ACCOUNT,
    AZURE_KEY,
    ObjectStoreServer,
    azurite,
    new_azure_container,
)
from tests.servers.raw_answers import RawServer, raw_server, say

__all__ = ["azurite"]

LIMITS = Limits(connect=5.0, first_byte=10.0, stall=10.0)
KEY = Address("key")
OTHER_KEY = "Y2FuYXJ5"
"""`canary`, as keys are written."""


@pytest.fixture
def server() -> Iterator[RawServer]:
    with raw_server(say("404 Not Found")) as server:
        yield server


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A home without anything."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AZURE_CONFIG_DIR", str(tmp_path / "azure"))
    (tmp_path / "azure").mkdir()
    return tmp_path


def spec(url: str, options: Mapping[str, str], ambient: bool = False) -> RemoteSpec:
    text = f"AccountName=mine;BlobEndpoint={url}/mine"
    return RemoteSpec("mine", "azure://box/p", {"connection_string": text, **options}, ambient)


def asked(
    server: RawServer, options: Mapping[str, str], ambient: bool = False, version: str = ""
) -> tuple[str, str]:
    """What a question asks for, and what it says of who asks."""
    opened = closing(open_azure(spec(server.url, options, ambient), LIMITS))
    with opened as storage, pytest.raises(RemoteMissing):
        storage.size(Address("key", version))
    lines = server.requests[-1].splitlines()
    rights = [line.partition(": ")[2] for line in lines if line.lower().startswith("authorization:")]
    return lines[0].split()[1], "".join(rights)


def test_what_the_remote_has_of_its_own_opens_it(server: RawServer) -> None:
    assert asked(server, {}) == ("/mine/box/p/key", "")
    assert asked(server, {"account_key": OTHER_KEY})[1].startswith("SharedKey mine:")
    assert asked(server, {"sas_token": "?sv=1&sig=a%2Fb"}) == ("/mine/box/p/key?sv=1&sig=a%2Fb", "")
    anonymous = {"account_key": OTHER_KEY, "allow_anonymous_login": "true"}
    assert asked(server, anonymous) == ("/mine/box/p/key", "")


def test_versions_are_asked_for(server: RawServer) -> None:
    assert asked(server, {}, version="2024-01-01T00:00:00.1Z")[0].startswith(
        "/mine/box/p/key?versionid=2024-01-01T"
    )


def test_the_surroundings_are_not_used_unless_they_may_be(
    server: RawServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "AZURE_STORAGE_ACCOUNT_NAME": "mine",
        "AZURE_STORAGE_ACCOUNT_KEY": OTHER_KEY,
        "AZURE_STORAGE_SAS_TOKEN": "sv=1&sig=canary",
        "AZURE_STORAGE_TOKEN": "canary",
        "AZURE_STORAGE_ENDPOINT": "http://127.0.0.1:1",
        "AZURE_STORAGE_USE_EMULATOR": "true",
        "AZURE_CLIENT_ID": "canary",
        "AZURE_CLIENT_SECRET": "canary",
        "AZURE_TENANT_ID": "canary",
    }.items():
        monkeypatch.setenv(name, value)
    assert asked(server, {}) == ("/mine/box/p/key", "")
    assert asked(server, {"sas_token": "sv=1&sig=own"}) == ("/mine/box/p/key?sv=1&sig=own", "")
    server.script = say("403 Forbidden")
    with pytest.raises(RemoteDenied, match="--trust"):
        open_azure(spec(server.url, {}), LIMITS).size(KEY)


def test_the_surroundings_fill_in_what_is_missing(
    surroundings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (surroundings / "azure" / "config").write_text("[storage]\naccount = one\nkey = key-of-one\n")
    assert completed({}) == {"account_name": "one", "account_key": "key-of-one"}
    assert completed({"account_name": "two"}) == {"account_name": "two"}
    assert completed({"sas_token": "own"}) == {"account_name": "one", "sas_token": "own"}
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT", "three")
    monkeypatch.setenv("AZURE_STORAGE_KEY", "key-of-three")
    assert completed({}) == {"account_name": "three", "account_key": "key-of-three"}
    for name in ("AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET"):
        monkeypatch.setenv(name, "principal")
    assert completed({"account_name": "two"})["client_secret"] == "principal"
    assert "client_secret" not in completed({"account_name": "two"}, principal=False)


def test_whoever_is_logged_in_reads(
    server: RawServer, surroundings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = surroundings / "bin" / "az"
    command.parent.mkdir()
    answer = json.dumps({"accessToken": "token-of-cli", "expires_on": int(time.time()) + 3600})
    command.write_text(f"#!/bin/sh\necho x >> {surroundings}/calls\necho '{answer}'\n")
    command.chmod(0o755)
    (surroundings / "azure" / "azureProfile.json").write_text("{}")
    monkeypatch.setenv("PATH", f"{command.parent}:/bin:/usr/bin")
    with closing(open_azure(spec(server.url, {}, ambient=True), LIMITS)) as storage:
        for _ in range(3):
            with pytest.raises(RemoteMissing):
                storage.size(KEY)
    assert "authorization: bearer token-of-cli" in server.requests[-1].lower()
    assert (surroundings / "calls").read_text() == "x\n"

    command.write_text("#!/bin/sh\necho canary >&2\nexit 1\n")
    with pytest.raises(RemoteDenied, match="az login") as caught:
        open_azure(spec(server.url, {}, ambient=True), LIMITS).size(KEY)
    assert "canary" not in str(caught.value)


def test_a_wrong_key_is_denied(azurite: ObjectStoreServer) -> None:
    container = new_azure_container(azurite)
    for key, kind in ((AZURE_KEY, RemoteMissing), (OTHER_KEY, RemoteDenied)):
        text = f"AccountName={AZURE_ACCOUNT};AccountKey={key};BlobEndpoint={azurite.url}"
        storage = open_azure(RemoteSpec("mine", f"azure://{container}", {"connection_string": text}), LIMITS)
        with closing(storage), pytest.raises(kind) as caught:
            storage.size(KEY)
        assert key not in str(caught.value)


def test_a_public_container_is_read_by_anybody(azurite: ObjectStoreServer) -> None:
    text = f"AccountName={AZURE_ACCOUNT};BlobEndpoint={azurite.url}"
    for public, kind in ((True, RemoteMissing), (False, RemoteDenied)):
        container = new_azure_container(azurite, public=public)
        storage = open_azure(RemoteSpec("mine", f"azure://{container}", {"connection_string": text}), LIMITS)
        with closing(storage), pytest.raises(kind), storage.read(KEY):
            pass


@pytest.mark.parametrize(
    ("options", "endpoint"),
    [
        ({"account_name": "mine"}, "https://mine.blob.core.windows.net"),
        ({"connection_string": "AccountName=mine;AccountKey=a=b=="}, "https://mine.blob.core.windows.net"),
        (
            {"connection_string": "DefaultEndpointsProtocol=http;AccountName=mine;EndpointSuffix=x.cn"},
            "http://mine.blob.x.cn",
        ),
        ({"connection_string": "BlobEndpoint=https://mine.blob.x.cn/;"}, "https://mine.blob.x.cn"),
    ],
)
def test_where_an_account_is(options: Mapping[str, str], endpoint: str) -> None:
    account = account_of(RemoteSpec("mine", "azure://box"), options)
    assert (account.name, account.endpoint) == ("mine", endpoint)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"account_name": "a.example/canary"},
        {"connection_string": "canary"},
        {"connection_string": "AccountName=mine;BlobEndpoint=https://user:canary@x"},
        {"account_name": "mine", "client_secret": "canary"},
        {"account_name": "mine", "read_timeout": "canary"},
    ],
)
def test_options_that_cannot_be_used_are_refused(options: Mapping[str, str]) -> None:
    with pytest.raises(InputError, match=r"^remote mine: ") as caught:
        open_azure(RemoteSpec("mine", "azure://box", options), LIMITS)
    assert "canary" not in str(caught.value)
