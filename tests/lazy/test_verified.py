"""What speaks for a file's bytes is told; and wrong bytes stay nowhere once they are found out."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lazy.test_fetching import failure, until
from tests.mount.datasets import Cache, entries_of, filler, md5
from tests.mount.mounts import Mount, Mounter
from tests.revisions.projects import Project
from tests.servers.nginx import Nginx, nginx
from tests.servers.proxy import Faults, Proxy

BLOCK = 1 << 20
LARGE = filler(6 * BLOCK, 3)
FILES = {"small": b"small", "pulled": b"pulled by dvc", "large": LARGE, "again": LARGE, "gone": b"gone"}
HEADER = 600
"""More than nginx's answers begin with; all that is corrupted lies behind."""


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Nginx]:
    remote = Cache(tmp_path / "remote")
    for name, data in FILES.items():
        if name != "gone":
            remote.put(data)
    with nginx(tmp_path / "nginx", remote.root) as server:
        yield server


def proof(path: Path) -> str:
    return os.getxattr(path, "user.fusefs.verified").decode()


def mounted(mounter: Mounter, cache: Cache, url: str, *flags: str) -> Mount:
    oid = cache.put_manifest(entries_of(FILES, sizes=True))
    return mounter.mount(oid, "--cache", cache.root, "--remote", url, *flags)


def test_what_was_hashed_is_told_from_what_was_not(mounter: Mounter, cache: Cache, server: Nginx) -> None:
    cache.put(FILES["pulled"])
    mount = mounted(mounter, cache, server.url)
    assert proof(mount.path / "pulled") == "length"
    assert proof(mount.path / "small") == proof(mount.path / "gone") == "none"
    for name in ("small", "pulled"):
        assert (mount.path / name).read_bytes() == FILES[name]
    until(lambda: proof(mount.path / "small") == "hash")
    assert proof(mount.path / "pulled") == "length"
    with (mount.path / "large").open("rb", buffering=0) as file:
        assert file.read(100) == LARGE[:100]
        assert proof(mount.path / "large") == proof(mount.path / "again") == "length"
        while file.read(BLOCK):
            pass
        until(lambda: proof(mount.path / "large") == "hash")
    mount.umount()
    mount = mounter.mount(cache.put_manifest(entries_of(FILES, sizes=True)), "--cache", cache.root)
    assert {name: proof(mount.path / name) for name in FILES} == {
        **dict.fromkeys(["small", "large", "again"], "hash"),
        "pulled": "length",
        "gone": "none",
    }
    mount.umount()


def test_without_verifying_nothing_is_said_to_be_hashed(
    mounter: Mounter, cache: Cache, server: Nginx
) -> None:
    mount = mounted(mounter, cache, server.url, "--verify", "off")
    assert (mount.path / "small").read_bytes() == FILES["small"]
    until(lambda: proof(mount.path / "small") != "none")
    assert proof(mount.path / "small") == "length"
    mount.umount()


def test_what_git_has_was_hashed(mounter: Mounter, project: Project) -> None:
    project.write("notes.txt", b"of git")
    project.commit("v2")
    mount = mounter.mount(".@v2", cwd=project.root)
    assert proof(mount.path / "notes.txt") == "hash"
    mount.umount()


def test_wrong_bytes_that_were_served_stay_in_no_cache(
    mounter: Mounter, cache: Cache, server: Nginx, tmp_path: Path
) -> None:
    """Blocks are served before the whole can be hashed; when it turns out to be wrong, the kernel forgets."""
    good = server.root / "files/md5" / md5(LARGE)[:2] / md5(LARGE)[2:]
    wrong = bytearray(LARGE)
    wrong[100] ^= 0xFF
    good.chmod(0o644)
    good.write_bytes(wrong)
    mount = mounted(mounter, cache, server.url)
    with (mount.path / "large").open("rb", buffering=0) as first, (mount.path / "again").open("rb") as other:
        assert os.pread(first.fileno(), 4096, 0) == wrong[:4096]  # nobody can know yet
        assert os.pread(other.fileno(), 4096, 0) == wrong[:4096]
        for offset in range(BLOCK, len(LARGE), BLOCK):
            try:
                os.pread(first.fileno(), BLOCK, offset)
            except OSError:
                break
        until(lambda: is_refused(first.fileno()) and is_refused(other.fileno()))
        assert failure(mount.path / "large") == errno.EIO
        assert not cache.place(md5(LARGE)).exists()
        good.write_bytes(LARGE)
        until(lambda: reads(mount.path / "again", LARGE))
        until(lambda: reads(mount.path / "large", LARGE))
    assert proof(mount.path / "large") == "hash"
    assert md5(LARGE) in mount.umount()


def test_a_network_that_changes_bytes_is_found_out(mounter: Mounter, cache: Cache, server: Nginx) -> None:
    with Proxy(("127.0.0.1", server.port), Faults(corrupt_at=HEADER)) as proxy:
        mount = mounted(mounter, cache, proxy.url)
        with (mount.path / "large").open("rb", buffering=0) as file:
            for offset in range(0, len(LARGE), BLOCK):
                try:
                    os.pread(file.fileno(), BLOCK, offset)
                except OSError:
                    break
            until(lambda: is_refused(file.fileno()))
        mount.umount()
    assert not cache.place(md5(LARGE)).exists()


def is_refused(descriptor: int) -> bool:
    try:
        os.pread(descriptor, 4096, 0)
    except OSError as error:
        return error.errno == errno.EIO
    return False


def reads(path: Path, data: bytes) -> bool:
    try:
        return path.read_bytes() == data
    except OSError:
        return False
