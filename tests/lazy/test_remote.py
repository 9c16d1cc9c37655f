"""`fusefs remote`: what the logs tell, without asking anybody, and a remote held against them."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.lazy.conftest import FILES, Pushed
from tests.mount.mounts import Mounter
from tests.revisions.projects import Project
from tests.servers.nginx import nginx
from tests.servers.object_stores import ObjectStoreServer, moto, new_s3_bucket

__all__ = ["moto"]

KEYS = {"access_key_id": "x", "secret_access_key": "x"}


def tell(mounter: Mounter, root: Path, *words: str | Path, status: int = 0) -> dict[str, Any]:
    done = mounter.run("remote", "--json", *words, cwd=root)
    assert done.returncode == status, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


@pytest.fixture
def filled(pushed: Pushed, mounter: Mounter) -> Pushed:
    """A project whose cache has everything, and whose remote has nothing."""
    pushed.cache.mkdir(parents=True, exist_ok=True)
    shutil.move(pushed.remote / "files", pushed.cache / "files")
    pushed.remote.rmdir()
    return pushed


def test_a_push_is_logged_and_where_asks_nobody(filled: Pushed, mounter: Mounter) -> None:
    assert mounter.run("push", "data", cwd=filled.root).returncode == 0
    told = tell(mounter, filled.root, "log", "near")
    (begin, end) = sorted(told["logs"], key=lambda log: str(log["kind"]))
    assert begin["operations"] == end["operations"] == {"PUT": len(FILES) + 1}
    assert begin["transaction"] == end["transaction"] and not end["open"]
    assert told["objects"] == len(FILES) + 1 and told["projects"] == [end["project"]]
    filled.remote.rename(filled.remote.with_name("away"))  # nobody could be asked
    shutil.rmtree(filled.cache / "files")
    data = FILES["sub/b.bin"]
    assert tell(mounter, filled.root, "where", md5(data))["places"] == [
        {"remote": "near", "oid": md5(data), "algorithm": "md5", "size": len(data)}
    ]
    assert (
        tell(mounter, filled.root, "where", filled.oid.removesuffix(".dir"))["places"][0]["oid"] == filled.oid
    )
    assert tell(mounter, filled.root, "log", "--offline", "near")["objects"] == len(FILES) + 1
    assert tell(mounter, filled.root, "where", "0" * 32, status=1)["places"] == []


def test_two_clones_are_one_project(filled: Pushed, project: Project, mounter: Mounter) -> None:
    project.git("clone", "--quiet", str(filled.root), str(filled.root.parent / "clone"))
    clone = filled.root.parent / "clone"
    shutil.copy(filled.root / ".dvc/config", clone / ".dvc/config")
    assert mounter.run("push", "data", cwd=filled.root).returncode == 0
    words = ("push", "single.bin", "--cache", str(filled.cache))
    assert mounter.run(*words, cwd=clone).returncode == 0
    assert len(tell(mounter, filled.root, "log", "near")["projects"]) == 1
    (filled.root / ".dvc/fusefs-project").write_text("f" * 32 + "\n")
    assert mounter.run("push", "more/0", cwd=filled.root).returncode == 0
    assert "f" * 32 in tell(mounter, filled.root, "log", "near")["projects"]
    (filled.root / ".dvc/fusefs-project").write_text("x")
    done = mounter.run("push", "more/1", cwd=filled.root)
    assert done.returncode == 1 and "32 hex digits" in done.stderr and len(done.stderr.splitlines()) == 1


def test_logs_are_copied_to_the_other_remotes(filled: Pushed, mounter: Mounter) -> None:
    """To those alone that have logs; whoever knows one of them knows of the other."""
    second = filled.remote.with_name("second")
    text = f"[core]\nremote = near\n['remote \"near\"']\nurl = {filled.remote}\n"
    filled.configure(f"{text}['remote \"second\"']\nurl = {second}\n")
    assert mounter.run("push", "data", cwd=filled.root).returncode == 0
    assert not second.exists()
    assert mounter.run("push", "single.bin", "--remote", "second", cwd=filled.root).returncode == 0
    assert mounter.run("push", "more/0", cwd=filled.root).returncode == 0
    assert list((second / "META/copies").rglob("end==*"))
    shutil.rmtree(filled.cache)
    filled.remote.rename(filled.remote.with_name("away"))
    assert tell(mounter, filled.root, "fsck", "second")["base"]
    found = tell(mounter, filled.root, "where", md5(b"more 0\n"))["places"]
    assert [place["remote"] for place in found] == ["near"]


def test_a_cache_that_was_published_is_known_to_others(
    filled: Pushed, mounter: Mounter, tmp_path: Path
) -> None:
    for _ in range(2):
        told = tell(mounter, filled.root, "publish", "near")
    assert told["objects"] > len(FILES)
    assert len(list((filled.remote / "META/caches" / told["cache"]).iterdir())) == 1
    elsewhere = ("--cache", tmp_path / "elsewhere")
    tell(mounter, filled.root, "log", "near", *elsewhere)
    data = FILES["a.txt"]
    (place,) = tell(mounter, filled.root, "where", md5(data), *elsewhere)["places"]
    assert (place["remote"], place["size"]) == (f"cache {told['cache'][:8]}", len(data))


def test_changes_of_a_published_cache_are_told_with_pushes_and_fetches(
    filled: Pushed, mounter: Mounter, tmp_path: Path
) -> None:
    cache = tell(mounter, filled.root, "publish", "near")["cache"]
    elsewhere = ("--cache", tmp_path / "elsewhere")

    def is_known(digest: str) -> bool:
        """Does somebody else know that the cache has it?"""
        tell(mounter, filled.root, "log", "near", *elsewhere)
        done = mounter.run("remote", "--json", "where", digest, *elsewhere, cwd=filled.root)
        return any(place["remote"] == f"cache {cache[:8]}" for place in json.loads(done.stdout)["places"])

    def logs() -> int:
        return len(list((filled.remote / "META/caches" / cache).iterdir()))

    new = filled.root / "new"
    new.mkdir()
    (new / "file").write_bytes(b"committed now")
    assert mounter.run("commit", "new", cwd=filled.root).returncode == 0
    assert not is_known(md5(b"committed now")) and logs() == 1
    for name in ("new", "data"):
        assert mounter.run("push", name, cwd=filled.root).returncode == 0
    assert is_known(md5(b"committed now")) and logs() == 2
    digest = md5(FILES["sub/b.bin"])
    shutil.rmtree(filled.cache / "files")
    assert mounter.run("fetch", "data", cwd=filled.root).returncode == 0
    assert is_known(digest) and logs() == 3
    assert mounter.run("cache", "trim", "--cache-size", "1", cwd=filled.root).returncode == 0
    assert mounter.run("push", "new", cwd=filled.root).returncode == 0
    assert not is_known(digest) and logs() == 4
    tell(mounter, filled.root, "publish", "near")
    assert logs() == 1
    assert not is_known(md5(b"committed now"))


def test_who_may_not_write_logs_here_until_he_may(filled: Pushed, mounter: Mounter, tmp_path: Path) -> None:
    """What came into a published cache meanwhile is told in the end, and known here at once."""
    key = tell(mounter, filled.root, "publish", "near")["cache"]
    place = filled.remote / "META/caches" / key
    shutil.move(filled.cache / "files", filled.remote / "files")
    place.rename(place.with_name("away"))
    place.write_text("no directory: nothing can be put here")
    fetched = mounter.run("fetch", "data", cwd=filled.root)
    assert (fetched.returncode, fetched.stderr) == (0, "") and place.is_file()
    data = FILES["sub/b.bin"]
    here = tell(mounter, filled.root, "where", md5(data))["places"]
    assert "cache" in [one["remote"] for one in here]
    place.unlink()
    place.with_name("away").rename(place)
    assert mounter.run("fetch", "single.bin", cwd=filled.root).returncode == 0
    elsewhere = ("--cache", tmp_path / "elsewhere")
    tell(mounter, filled.root, "log", "near", *elsewhere)
    (told,) = (path.read_text() for path in place.glob("end==*"))
    assert md5(data) in told
    found = tell(mounter, filled.root, "where", md5(data), *elsewhere)["places"]
    assert [one["remote"] for one in found] == [f"cache {key[:8]}"]


def test_what_is_lost_is_named_and_mended(filled: Pushed, mounter: Mounter) -> None:
    assert mounter.run("push", "data", cwd=filled.root).returncode == 0
    digest = md5(FILES["sub/b.bin"])
    filled.object(filled.remote, digest).unlink()
    done = mounter.run("remote", "fsck", "near", cwd=filled.root)
    assert done.returncode == 1 and digest in done.stdout and "1 lost" in done.stdout
    told = tell(mounter, filled.root, "fsck", "near", "--repair", "--deep")
    assert [(one["oid"], one["mended"]) for one in told["findings"]] == [(digest, "the cache")]
    assert told["base"] and filled.object(filled.remote, digest).exists()
    assert tell(mounter, filled.root, "fsck", "near")["findings"] == []


@pytest.mark.parametrize("layout", ["dvc", "content"])
@pytest.mark.parametrize("family", ["s3", "webdav"])
def test_on_servers(
    filled: Pushed, mounter: Mounter, family: str, layout: str, moto: ObjectStoreServer, tmp_path: Path
) -> None:
    (tmp_path / "served").mkdir()
    with nginx(tmp_path / "nginx", tmp_path / "served", webdav=True) as server:
        if family == "s3":
            keys = "".join(f"{name} = {value}\n" for name, value in KEYS.items())
            url = f"s3://{new_s3_bucket(moto)}/base\nendpointurl = {moto.url}\n{keys}"
        else:
            url = f"webdav://127.0.0.1:{server.port}/base\n"
        filled.configure(f"[core]\nremote = far\n['remote \"far\"']\nurl = {url}")
        assert mounter.run("push", "data", "--layout", layout, cwd=filled.root).returncode == 0
        count = len(FILES) + 1 + (layout == "content")  # with the archive that they are in
        assert tell(mounter, filled.root, "log", "far")["objects"] == count
        told = tell(mounter, filled.root, "fsck", "far", "--deep")
        assert (told["objects"], told["known"], told["hashed"]) == (count,) * 3
        assert told["base"] and told["findings"] == told["strays"] == []
        assert [log["kind"] for log in tell(mounter, filled.root, "log", "far")["logs"]] == ["base"]


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (("log", "nowhere"), "there is no remote"),
        (("fsck", "gdrive://x"), "not supported"),
        (("where", "xyz"), "is not an oid"),
        (("fsck", "/nowhere/at/all"), ""),
    ],
)
def test_bad_input_is_a_line(filled: Pushed, mounter: Mounter, words: tuple[str, ...], match: str) -> None:
    done = mounter.run("remote", *words, cwd=filled.root)
    assert "Traceback" not in done.stderr and match in done.stderr
    assert done.returncode == (1 if match else 0) and len(done.stderr.splitlines()) == bool(match)
