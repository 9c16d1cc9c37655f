"""The contract of a storage, held by each object store against a server of its kind."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import obstore
import pytest
from obstore.store import AzureStore, S3Store

from store.remotes.azure import open_azure
from store.remotes.gcs import open_gcs
from store.remotes.s3 import open_s3
from store.remotes.spec import RemoteSpec
from store.remotes.storage import Limits, Storage
from tests.servers.object_stores import (
    AZURE_ACCOUNT,
    AZURE_KEY,
    ObjectStoreServer,
    azurite,
    moto,
    new_azure_container,
    new_s3_bucket,
)
from tests.store.remotes.contract import ODD_KEYS, Place, StorageContract

if TYPE_CHECKING:
    from obstore.store import ObjectStore

__all__ = ["azurite", "moto"]

PREFIX = "pre fix/x%20y"
"""What the keys of every place begin with in its bucket; beside it lie objects that must not be seen."""


@dataclass(frozen=True, slots=True)
class ObstorePlace:
    """A place that is written to by obstore itself."""

    store: ObjectStore
    spec: RemoteSpec
    opener: Any

    def put(self, key: str, data: bytes) -> str:
        return obstore.put(self.store, f"{PREFIX}/{key}", data).get("version") or ""

    def put_many(self, objects: Mapping[str, bytes]) -> None:
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(lambda item: self.put(*item), objects.items()))

    def open(self, limits: Limits) -> Storage:
        return self.opener(self.spec, limits)  # type: ignore[no-any-return]


def s3_writer(moto: ObjectStoreServer, bucket: str) -> S3Store:
    return S3Store(
        bucket,
        endpoint=moto.url,
        region="us-east-1",
        access_key_id="key",
        secret_access_key="secret",
        client_options={"allow_http": True},
    )


class TestS3(StorageContract):
    versions = True

    @pytest.fixture
    def place(self, moto: ObjectStoreServer) -> Place:
        bucket = new_s3_bucket(moto, versions=True)
        store = s3_writer(moto, bucket)
        obstore.put(store, f"{PREFIX}files/ab/beside", b"not there")
        options = {"endpointurl": moto.url, "access_key_id": "key", "secret_access_key": "secret"}
        return ObstorePlace(store, RemoteSpec("moto", f"s3://{bucket}/{PREFIX}/", options), open_s3)


class TestAzure(StorageContract):
    many = 5050
    odd_keys = tuple(key for key in ODD_KEYS if "\\" not in key)  # there, it is another way to write `/`

    @pytest.fixture
    def place(self, azurite: ObjectStoreServer) -> Place:
        container = new_azure_container(azurite)
        store = AzureStore(
            container,
            account_name=AZURE_ACCOUNT,
            account_key=AZURE_KEY,
            endpoint=azurite.url,
            client_options={"allow_http": True},
        )
        text = f"AccountName={AZURE_ACCOUNT};AccountKey={AZURE_KEY};BlobEndpoint={azurite.url};"
        obstore.put(store, f"{PREFIX}files/ab/beside", b"not there")
        spec = RemoteSpec("azurite", f"azure://{container}/{PREFIX}", {"connection_string": text})
        return ObstorePlace(store, spec, open_azure)


class TestGcs(StorageContract):
    """By the interface that Google's has in common with S3 (HEAD, conditions, pages), as moto speaks it."""

    @pytest.fixture
    def place(self, moto: ObjectStoreServer) -> Place:
        bucket = new_s3_bucket(moto, public=True)
        store = s3_writer(moto, bucket)
        obstore.put(store, f"{PREFIX}files/ab/beside", b"not there")
        options = {"endpointurl": moto.url, "allow_anonymous_login": "true"}
        return ObstorePlace(store, RemoteSpec("gcs", f"gs://{bucket}/{PREFIX}", options), open_gcs)
