"""The contract of writing, held by each family against a real server of its kind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import obstore
import pytest
from obstore.store import AzureStore

from store.remotes.apart import Apart
from store.remotes.azure import open_azure
from store.remotes.gcs import open_gcs
from store.remotes.s3 import open_s3
from store.remotes.spec import RemoteSpec
from tests.servers.nginx import nginx
from tests.servers.object_stores import (
    AZURE_ACCOUNT,
    AZURE_KEY,
    ObjectStoreServer,
    azurite,
    moto,
    new_azure_container,
    new_s3_bucket,
)
from tests.servers.sshd import Sshd, sshd
from tests.store.remotes.contract import ODD_KEYS
from tests.store.remotes.places import FilePlace
from tests.store.remotes.test_apart import Opener
from tests.store.remotes.test_gcs_options import account
from tests.store.remotes.test_object_stores import PREFIX, ObstorePlace, s3_writer
from tests.store.remotes.test_ssh import place_on
from tests.store.remotes.test_webdav import webdav_url
from tests.store.remotes.writing_contract import WritablePlace, WritingContract

__all__ = ["account", "azurite", "moto"]


class TestDirectory(WritingContract):
    @pytest.fixture
    def place(self, tmp_path: Path) -> WritablePlace:
        return FilePlace(tmp_path / "remote", str(tmp_path / "remote"))


class TestHttp(WritingContract):
    atomic = False

    @pytest.fixture
    def place(self, tmp_path: Path) -> Iterator[WritablePlace]:
        (tmp_path / "root/base").mkdir(parents=True)
        with nginx(tmp_path / "nginx", tmp_path / "root", webdav=True) as server:
            yield FilePlace(tmp_path / "root/base", f"{server.url}/base", {"method": "put"})


class TestWebdav(WritingContract):
    odd_keys = tuple(key for key in ODD_KEYS if not key.startswith("."))

    @pytest.fixture
    def place(self, tmp_path: Path) -> Iterator[WritablePlace]:
        root = tmp_path / "root/pre fix"
        root.mkdir(parents=True)
        with nginx(tmp_path / "nginx", tmp_path / "root", webdav=True) as server:
            yield FilePlace(root, webdav_url(server, "/pre fix"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with sshd(tmp_path_factory.mktemp("sshd")) as running:
        yield running


class TestSsh(WritingContract):
    @pytest.fixture
    def place(self, server: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WritablePlace:
        (tmp_path / "home/.ssh").mkdir(parents=True)
        (tmp_path / "home/.ssh/known_hosts").write_text(server.known_host())
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
        return place_on(server, tmp_path / "remote")


def s3_spec(moto: ObjectStoreServer) -> RemoteSpec:
    bucket = new_s3_bucket(moto)
    options = {"endpointurl": moto.url, "access_key_id": "key", "secret_access_key": "secret"}
    return RemoteSpec("moto", f"s3://{bucket}/{PREFIX}/", options)


class TestS3(WritingContract):
    @pytest.fixture
    def place(self, moto: ObjectStoreServer) -> WritablePlace:
        spec = s3_spec(moto)
        return ObstorePlace(s3_writer(moto, spec.url.split("/")[2]), spec, open_s3)


@pytest.fixture(scope="module")
def apart() -> Iterator[Apart]:
    helper = Apart()
    yield helper
    helper.close()


class TestS3Apart(WritingContract):
    @pytest.fixture
    def place(self, moto: ObjectStoreServer, apart: Apart) -> WritablePlace:
        spec = s3_spec(moto)
        return ObstorePlace(s3_writer(moto, spec.url.split("/")[2]), spec, Opener(apart))


class TestAzure(WritingContract):
    odd_keys = tuple(key for key in ODD_KEYS if "\\" not in key)

    @pytest.fixture
    def place(self, azurite: ObjectStoreServer) -> WritablePlace:
        container = new_azure_container(azurite)
        text = f"AccountName={AZURE_ACCOUNT};AccountKey={AZURE_KEY};BlobEndpoint={azurite.url};"
        store = AzureStore(
            container,
            account_name=AZURE_ACCOUNT,
            account_key=AZURE_KEY,
            endpoint=azurite.url,
            client_options={"allow_http": True},
        )
        obstore.put(store, "beside", b"not there")
        spec = RemoteSpec("azurite", f"azure://{container}/{PREFIX}", {"connection_string": text})
        return ObstorePlace(store, spec, open_azure)


class TestGcs(WritingContract):
    """By moto, which knows nothing of Google's way to say `if_absent`."""

    atomic = False

    @pytest.fixture
    def place(self, moto: ObjectStoreServer, account: Path) -> WritablePlace:
        bucket = new_s3_bucket(moto, public=True)
        options = {"endpointurl": moto.url, "credentialpath": str(account)}
        spec = RemoteSpec("gcs", f"gs://{bucket}/{PREFIX}", options, ambient=True)
        return ObstorePlace(s3_writer(moto, bucket), spec, open_gcs)

    def test_what_is_there_stays_if_that_is_wanted(self) -> None:  # type: ignore[override]
        pytest.skip("moto does not know the condition")
