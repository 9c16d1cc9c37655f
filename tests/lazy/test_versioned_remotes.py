"""Remotes that keep versions: the bytes of the version that a metafile names, whatever came after it."""

from __future__ import annotations

import errno
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from pathlib import Path

import pytest
import urllib3

from tests.lazy.faulty import read
from tests.mount.datasets import filler, md5
from tests.mount.mounts import Mounter
from tests.servers.object_stores import ObjectStoreServer, ask, moto, new_s3_bucket

__all__ = ["moto"]
pytestmark = pytest.mark.fuse

FIRST = {"a.txt": b"first", "deep/b.bin": filler(70_000, 1), "deep/large": filler((9 << 20) + 5, 2)}
SECOND = {"a.txt": b"second", "deep/b.bin": filler(70_001, 3)}


def put(url: str, data: bytes) -> str:
    """Write a key; the version that it got."""
    with urllib3.PoolManager(timeout=30.0) as pool:
        answer = pool.request("PUT", url, body=data)
    assert answer.status == 200, answer.data
    return answer.headers["x-amz-version-id"]


def metafile(files: Mapping[str, bytes], versions: Mapping[str, str]) -> str:
    """As `dvc push` leaves it for a remote that is aware of versions."""
    lines = ["outs:", "- hash: md5", "  path: data", "  files:"]
    for path, data in sorted(files.items()):
        lines += [
            f"  - relpath: {path}",
            f"    md5: {md5(data)}",
            f"    size: {len(data)}",
            "    cloud:",
            "      far:",
            f"        etag: {md5(data)}",
            f"        version_id: {versions[path]}",
        ]
    return "\n".join(lines) + "\n"


def configure(root: Path, moto: ObjectStoreServer, bucket: str, kind: str) -> None:
    (root / ".dvc").mkdir(parents=True)
    (root / ".dvc" / "config").write_text(
        f"[core]\nremote = far\n['remote \"far\"']\nurl = s3://{bucket}/top\nendpointurl = {moto.url}\n"
        f"access_key_id = key\nsecret_access_key = secret\n{kind} = true\n"
    )


@pytest.mark.parametrize("kind", ["version_aware", "worktree"])
def test_the_version_that_is_named_is_read(mounter: Mounter, moto: ObjectStoreServer, kind: str) -> None:
    bucket = new_s3_bucket(moto, versions=True, public=True)
    root = mounter.home / "project"
    configure(root, moto, bucket, kind)
    top = f"{moto.url}/{bucket}/top/data"
    versions = {path: put(f"{top}/{path}", data) for path, data in FIRST.items()}
    for path, data in SECOND.items():
        put(f"{top}/{path}", data)
    ask("DELETE", f"{top}/deep/large")  # of which a marker is made, and the version stays
    (root / "data.dvc").write_text(metafile(FIRST, versions))
    mount = mounter.mount("data.dvc", "--no-pin", cwd=root)
    for path, data in FIRST.items():
        assert (mount.path / path).stat().st_size == len(data)
        assert read(mount.path / path) == data
    mount.umount()


def test_a_version_that_is_gone_is_an_error(mounter: Mounter, moto: ObjectStoreServer) -> None:
    """The newest version of a file is not what the metafile means, though it has the same name."""
    bucket = new_s3_bucket(moto, versions=True, public=True)
    root = mounter.home / "project"
    configure(root, moto, bucket, "version_aware")
    url = f"{moto.url}/{bucket}/top/data/a.txt"
    versions = {"a.txt": put(url, FIRST["a.txt"])}
    put(url, SECOND["a.txt"])
    listed = ET.fromstring(ask("GET", f"{moto.url}/{bucket}?versions"))
    assert sum(element.tag.endswith("Version") for element in listed) == 2
    ask("DELETE", f"{url}?versionId={versions['a.txt']}")
    (root / "data.dvc").write_text(metafile({"a.txt": FIRST["a.txt"]}, versions))
    mount = mounter.mount("data.dvc", "--no-pin", cwd=root)
    assert read(mount.path / "a.txt") == errno.EIO
    log = mount.umount()
    assert "a.txt" in log
    assert "far" in log
