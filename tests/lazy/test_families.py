"""One version whose objects lie on remotes of every family, read through mounts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import obstore
import pytest
from obstore.store import AzureStore

from store.fetching.download import WHOLE_LIMIT
from tests.lazy.faulty import assert_only_right, new_project, read, read_piece
from tests.mount.datasets import filler, md5
from tests.mount.mounts import Mounter
from tests.patience import until
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
from tests.store.remotes.test_object_stores import s3_writer

__all__ = ["azurite", "moto"]

pytestmark = [pytest.mark.fuse, pytest.mark.modes("fuse", "native")]

MIB = 1 << 20
FAMILIES = ("directory", "http", "whole", "webdav", "ssh", "s3", "gs", "azure")
LARGE = WHOLE_LIMIT + 70_000
Put = Callable[[str, bytes], object]
"""Puts an object on a remote, by its key."""


@pytest.fixture(scope="module")
def ssh_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with sshd(tmp_path_factory.mktemp("sshd")) as server:
        yield server


def into(root: Path) -> Put:
    def put(key: str, data: bytes) -> None:
        place = root / key
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)

    return put


def section(name: str, url: str, **options: str | Path) -> str:
    lines = [f"url = {url}", *(f"{option} = {value}" for option, value in options.items())]
    return f"['remote \"{name}\"']\n" + "".join(f"{line}\n" for line in lines)


def test_every_family_serves_a_mount(
    mounter: Mounter,
    tmp_path: Path,
    moto: ObjectStoreServer,
    azurite: ObjectStoreServer,
    ssh_server: Sshd,
) -> None:
    """Each remote has files that no other has: whoever is asked in vain for one costs its reader nothing."""
    files = {f"{family}/small": filler(30_000, number) for number, family in enumerate(FAMILIES)}
    files |= {f"{family}/large": filler(LARGE + n, 100 + n) for n, family in enumerate(FAMILIES)}
    (mounter.home / ".ssh").mkdir()
    (mounter.home / ".ssh/known_hosts").write_text(ssh_server.known_host())
    s3, gs, azure = new_s3_bucket(moto), new_s3_bucket(moto, public=True), new_azure_container(azurite)
    s3_store, gs_store = s3_writer(moto, s3), s3_writer(moto, gs)
    azure_store = AzureStore(
        azure,
        account_name=AZURE_ACCOUNT,
        account_key=AZURE_KEY,
        endpoint=azurite.url,
        client_options={"allow_http": True},
    )
    puts: dict[str, Put] = {name: into(tmp_path / name) for name in FAMILIES[:5]}
    puts |= {
        "s3": lambda key, data: obstore.put(s3_store, f"a b/{key}", data),
        "gs": lambda key, data: obstore.put(gs_store, key, data),
        "azure": lambda key, data: obstore.put(azure_store, f"in/{key}", data),
    }
    for path, data in files.items():
        puts[path.partition("/")[0]](f"files/md5/{md5(data)[:2]}/{md5(data)[2:]}", data)
    with ExitStack() as stack:
        web = stack.enter_context(nginx(tmp_path / "n1", tmp_path / "http"))
        whole = stack.enter_context(nginx(tmp_path / "n2", tmp_path / "whole", ranges=False))
        dav = stack.enter_context(nginx(tmp_path / "n3", tmp_path / "webdav", webdav=True))
        keys = {"access_key_id": "key", "secret_access_key": "secret"}
        account = f"AccountName={AZURE_ACCOUNT};AccountKey={AZURE_KEY};BlobEndpoint={azurite.url}"
        ssh = f"ssh://{ssh_server.user}@127.0.0.1:{ssh_server.port}{tmp_path / 'ssh'}"
        remotes = (
            section("azure", f"azure://{azure}/in", connection_string=account),
            section("gs", f"gs://{gs}", endpointurl=moto.url, allow_anonymous_login="true"),
            section("s3", f"s3://{s3}/a b", endpointurl=moto.url, **keys),
            section("ssh", ssh, keyfile=ssh_server.key),
            section("webdav", f"webdav://127.0.0.1:{dav.port}"),
            section("whole", whole.url),
            section("http", web.url),
            section("directory", str(tmp_path / "directory")),
        )
        project = new_project(tmp_path / "project", files, "")
        (project.root / ".dvc/config").write_text("".join(remotes))
        mount = project.mount(mounter)
        for family in FAMILIES:
            large = files[f"{family}/large"]
            assert read_piece(mount.path / family / "large", 3 * MIB) == large[3 * MIB :][:4096], family
        for path, data in files.items():
            assert (mount.path / path).stat().st_size == len(data)
            assert read(mount.path / path) == data, path
        places = [project.cache.place(md5(data)) for data in files.values()]
        until(lambda: all(place.exists() for place in places), "all are the cache's")
        told = {remote["name"]: remote["bytes"] for remote in mount.status()["remotes"]}
        assert set(told) == set(FAMILIES) and all(told[family] > LARGE for family in FAMILIES), told
        assert mount.status()["errors"] == 0
        mount.umount()
    assert assert_only_right(project.cache, files) == len(files)
