"""Storages that another process reads: the contract of a storage, and what happens when that process ends."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import obstore
import pytest

from store.errors import RemoteError, RemoteMissing, RemoteUnreachable
from store.remotes.apart import Apart, ApartStorage
from store.remotes.spec import RemoteSpec
from store.remotes.storage import Address, Limits, Storage
from tests.servers.object_stores import ObjectStoreServer, moto, new_s3_bucket
from tests.store.remotes.contract import Place, StorageContract, read
from tests.store.remotes.test_object_stores import PREFIX, ObstorePlace, s3_writer

__all__ = ["moto"]


@dataclass(frozen=True, slots=True)
class Opener:
    """Opens by the helper what others open themselves."""

    apart: Apart

    def __call__(self, spec: RemoteSpec, limits: Limits) -> Storage:
        return self.apart.open_remote(spec).storage


@pytest.fixture(scope="module")
def apart() -> Iterator[Apart]:
    helper = Apart()
    yield helper
    helper.close()


def local(apart: Apart, root: Path) -> ApartStorage:
    """Any family will do where it is not about the remote."""
    return ApartStorage(apart, RemoteSpec("here", str(root)))


class TestS3Apart(StorageContract):
    versions = True

    @pytest.fixture
    def place(self, moto: ObjectStoreServer, apart: Apart) -> Place:
        bucket = new_s3_bucket(moto, versions=True)
        store = s3_writer(moto, bucket)
        obstore.put(store, f"{PREFIX}files/ab/beside", b"not there")
        options = {"endpointurl": moto.url, "access_key_id": "key", "secret_access_key": "secret"}
        spec = RemoteSpec("moto", f"s3://{bucket}/{PREFIX}/", options)
        return ObstorePlace(store, spec, Opener(apart))


def test_a_helper_that_was_killed_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"x" * 3_000_000)
    helper = Apart()
    try:
        storage = local(helper, tmp_path)
        with pytest.raises(RemoteUnreachable), storage.read(Address("key")) as body:
            process = helper._process
            assert process is not None
            process.kill()
            process.wait()
            list(body)
        assert storage.size(Address("key")) == 3_000_000
        assert helper._process is not process
    finally:
        helper.close()


def test_a_helper_ends_with_who_started_it(tmp_path: Path) -> None:
    helper = Apart()
    with pytest.raises(RemoteMissing):
        local(helper, tmp_path).size(Address("key"))
    process = helper._process
    assert process is not None
    helper.disown()  # as the end of the process would do it
    assert process.wait(60) == 0


def test_errors_of_who_reads_are_left_alone(apart: Apart, tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"x")
    storage = local(apart, tmp_path)
    with pytest.raises(TimeoutError), storage.read(Address("key")):
        raise TimeoutError
    assert read(storage, "key") == b"x"


def test_a_remote_that_cannot_be_opened_says_so(apart: Apart) -> None:
    spec = RemoteSpec("far", "hdfs://far/away")
    with pytest.raises(RemoteError, match="hdfs"):
        apart.open_remote(spec).storage.size(Address("key"))


def test_the_helper_has_no_argument_that_tells_anything(apart: Apart, tmp_path: Path) -> None:
    spec = RemoteSpec("here", str(tmp_path), {"password": "c4nary"})
    with pytest.raises(RemoteMissing):
        apart.open_remote(spec).storage.size(Address("key"))
    process = apart._process
    assert process is not None
    for name in ("cmdline", "environ"):
        told = Path(f"/proc/{process.pid}/{name}").read_bytes()
        assert b"c4nary" not in told and os.fsencode(tmp_path) + b"\0" not in told
