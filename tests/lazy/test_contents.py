"""A version that was pushed into content directories is mounted, fetched and opened like any other."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

import fusefs
from tests.mount.datasets import Cache, filler, md5
from tests.mount.mounts import Mount, Mounter
from tests.patience import until
from tests.servers.nginx import nginx
from tests.servers.object_stores import ObjectStoreServer, moto, new_s3_bucket

__all__ = ["moto"]

pytestmark = pytest.mark.fuse

SMALL = {f"small/{number:04}": filler(4000, number) for number in range(1000)}
FILES = {**{path: SMALL[path] for path in list(SMALL)[:60]}, "middle": filler(700_000, 1)}
FILES |= {"large": filler(10 << 20, 2), "empty": b""}


@dataclass(frozen=True, slots=True)
class Case:
    """A project whose cache is full, and whose remotes are empty."""

    mounter: Mounter
    root: Path
    cache: Cache
    oid: str

    def configure(self, **urls: str) -> None:
        remotes = "".join(f"['remote \"{name}\"']\nurl = {url}\n" for name, url in urls.items())
        (self.root / ".dvc/config").write_text(f"[core]\nremote = {next(iter(urls))}\n{remotes}")

    def run(self, *words: str | Path) -> str:
        done = self.mounter.run(*words, cwd=self.root)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def forget(self) -> None:
        """As on another machine."""
        shutil.rmtree(self.cache.root)

    def mount(self, *flags: str | Path) -> Mount:
        return self.mounter.mount(self.root / "data.dvc", *flags)


def case_of(mounter: Mounter, files: dict[str, bytes]) -> Case:
    root = mounter.home / "project"
    cache = Cache(root / ".dvc/cache")
    oid = cache.put_dataset(files)
    (root / "data.dvc").write_text(f"outs:\n- md5: {oid}\n  hash: md5\n  path: data\n")
    return Case(mounter, root, cache, oid)


def check(mount: Mount, files: dict[str, bytes]) -> None:
    for path, data in files.items():
        assert (mount.path / path).read_bytes() == data, path
        assert (mount.path / path).stat().st_size == len(data)


@pytest.mark.modes("fuse", "native")
def test_a_mount_reads_whole_parts_and_archives(mounter: Mounter, tmp_path: Path) -> None:
    case = case_of(mounter, FILES)
    case.configure(far=str(tmp_path / "far"))
    case.run("push", "data.dvc", "--layout", "content")
    assert not (tmp_path / "far/files").exists()
    case.forget()
    mount = case.mount()
    with (mount.path / "large").open("rb") as large:
        large.seek(5 << 20)
        assert large.read(1000) == FILES["large"][5 << 20 :][:1000]
    check(mount, FILES)
    until(case.cache.place(md5(FILES["large"])).exists)
    mount.await_kept()
    mount.umount()
    assert all(case.cache.place(md5(data)).read_bytes() == data for data in FILES.values())
    mount = case.mount("--offline")
    check(mount, FILES)
    mount.umount()
    case.run("cache", "trim", "--cache-size", "1")
    assert not case.cache.place(md5(FILES["large"])).exists()
    mount = case.mount()
    check(mount, FILES)
    mount.umount()


def test_a_mount_mixes_remotes_of_both_layouts(mounter: Mounter, tmp_path: Path) -> None:
    case = case_of(mounter, FILES)
    case.configure(far=str(tmp_path / "far"), other=str(tmp_path / "other"))
    case.run("push", "data.dvc", "--layout", "content")
    case.run("push", "data.dvc", "--remote", "other")
    case.forget()
    for archive in (tmp_path / "far").rglob("archive.tar"):
        archive.unlink()
    for path in ("large", "middle"):
        Cache(tmp_path / "other").remove(md5(FILES[path]))
    mount = case.mounter.mount(case.root / "data.dvc", "--remote", "far", "--remote", "other")
    check(mount, FILES)
    mount.umount()


def test_commands_and_python_read_them_from_a_server_that_cannot_list(
    mounter: Mounter, tmp_path: Path
) -> None:
    case = case_of(mounter, FILES)
    case.configure(far=str(tmp_path / "far"))
    case.run("push", "data.dvc", "--layout", "content")
    case.forget()
    with nginx(tmp_path / "nginx", tmp_path / "far") as server:
        case.configure(far=server.url)
        with fusefs.open(case.root / "data.dvc") as files:
            assert files.cat_file("middle") == FILES["middle"]
            assert files.cat_file("large", 6 << 20, (6 << 20) + 9) == FILES["large"][6 << 20 :][:9]
            assert files.cat(list(FILES)[:20]) == {path: FILES[path] for path in list(FILES)[:20]}
        case.run("fetch", "data.dvc")
    assert all(case.cache.place(md5(data)).read_bytes() == data for data in FILES.values())


def test_many_small_files_come_from_s3_by_few_requests(
    mounter: Mounter, tmp_path: Path, moto: ObjectStoreServer
) -> None:
    case = case_of(mounter, SMALL)
    log = tmp_path / "access.log"
    extra = f"access_log {log}; location ~ .+ {{ proxy_pass {moto.url}; }}"
    with nginx(tmp_path / "nginx", tmp_path, extra=extra) as server:
        keys = "access_key_id = key\nsecret_access_key = secret"
        case.configure(far=f"s3://{new_s3_bucket(moto)}/base\nendpointurl = {server.url}\n{keys}")
        case.run("push", "data.dvc", "--layout", "content")
        case.forget()
        server.await_log()
        pushed = len(log.read_text().splitlines())
        mount = case.mount()
        check(mount, SMALL)
        mount.umount()
        server.await_log()
        requests = [re.findall(r'"(\S+ \S+)', line)[0] for line in log.read_text().splitlines()[pushed:]]
        assert len(requests) <= len(SMALL) / 50, requests
