"""What a mount shows is still there after the real `dvc gc`, and nothing of it is left behind in the end."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import kill_for_good
from tests.mount.datasets import Cache, md5, tree_of
from tests.mount.mounts import Mount, Mounter
from tests.patience import until
from tests.pins.conftest import Files, Run

pytestmark = pytest.mark.fuse

WAIT_SECONDS = 30.0
FIRST: Files = {
    "same": b"in both",
    "old": b"in the first only",
    "sub/empty": b"",
    "sub/old too": b"old" * 5000,
}
SECOND: Files = {"same": b"in both", "new": b"in the second only"}


def settled(mount: Mount) -> dict[str, Any]:
    """What the status says of the pins once they are made."""
    until(lambda: mount.status()["pins"]["state"] != "making", "the pins are made")
    pins = mount.status()["pins"]
    assert isinstance(pins, dict)
    return pins


def homes(cache: Path) -> list[str]:
    """The names in the directory of all pins; empty where there is none."""
    home = cache / "fusefs" / "pins"
    return sorted(path.name for path in home.iterdir()) if home.exists() else []


def links(cache: Path) -> list[Path]:
    return [path for path in (cache / "fusefs").rglob("*") if path.is_file() and path.suffix != ".lock"]


@pytest.mark.modes("fuse", "native")
def test_a_gc_takes_nothing_from_a_mount(
    mounter: Mounter, repository: Path, run: Run, commit: Callable[[Path, Files, str], None]
) -> None:
    cache = repository / ".dvc" / "cache"
    commit(repository, FIRST, "v1")
    mount = mounter.mount("data@v1", cwd=repository)
    commit(repository, SECOND, "v2")
    assert settled(mount) == {"state": "complete", "objects": len(FIRST), "reason": None}
    assert "kept from gc   4 objects\n" in mounter.run("status", mount.path).stdout
    run(repository, "dvc", "gc", "--workspace", "--force")
    assert not Cache(cache).place(md5(FIRST["old"])).exists()
    assert tree_of(mount.path) == FIRST
    assert mount.status()["misses"] == 0
    # DVC sees nothing of it.
    assert run(repository, "dvc", "status").strip() == "Data and pipelines are up to date."
    run(repository, "dvc", "checkout", "--relink", "--force")
    run(repository, "dvc", "gc", "--workspace", "--force")
    assert tree_of(repository / "data") == SECOND
    assert tree_of(mount.path) == FIRST
    # What was removed stays removed: pins are no objects of DVC's.
    log = mount.umount()
    assert "WARNING" not in log
    assert "ERROR" not in log
    assert not (cache / "fusefs").exists()
    assert not Cache(cache).place(md5(FIRST["old"])).exists()


def test_versions_that_are_opened_later_are_kept_as_well(
    mounter: Mounter, repository: Path, run: Run, commit: Callable[[Path, Files, str], None]
) -> None:
    third = {"third": b"3"}
    for number, files in enumerate((FIRST, SECOND, third, {"now": b"now"}), 1):
        commit(repository, files, f"v{number}")
    mount = mounter.mount("data@v1", cwd=repository)
    assert settled(mount)["objects"] == len(FIRST)
    old = mount.path / ".fusefs" / "revs" / "v2"
    assert {path.name for path in old.iterdir()} == set(SECOND)
    assert settled(mount)["objects"] == len(FIRST) + 1  # one is in both
    done = mounter.run("switch", mount.path, "v3")
    assert done.returncode == 0, done.stderr
    assert settled(mount) == {"state": "complete", "objects": len(FIRST) + 2, "reason": None}
    run(repository, "dvc", "gc", "--workspace", "--force")
    assert tree_of(mount.path) == third
    assert tree_of(old) == SECOND
    assert tree_of(mount.path / ".fusefs" / "revs" / "v1") == FIRST


@pytest.mark.parametrize("legacy", [False, True], ids=["DVC 3", "DVC 2"])
def test_pins_are_links_in_a_private_directory(mounter: Mounter, legacy: bool) -> None:
    cache = Cache(mounter.home / "objects", legacy=legacy)
    oid = cache.put_dataset(FIRST)
    if legacy:
        (mounter.home / "data.dvc").write_text(f"outs:\n- md5: {oid}\n  path: data\n")
        mount = mounter.mount(mounter.home / "data.dvc", "--cache", cache.root)
    else:
        mount = mounter.mount(oid, "--cache", cache.root)
    assert settled(mount)["objects"] == len(FIRST)
    name, lock = homes(cache.root)
    assert lock == f"{name}.lock"
    assert name.startswith(f"{mount.pid}-")
    assert stat.S_IMODE((cache.root / "fusefs/pins" / name).stat().st_mode) == 0o700
    assert len(links(cache.root)) == len(FIRST)
    for pin in links(cache.root):
        assert pin.samefile(cache.objects / pin.parent.name / pin.name)
    for data in FIRST.values():
        cache.remove(md5(data))
    assert tree_of(mount.path) == FIRST
    mount.umount()
    assert not (cache.root / "fusefs").exists()


@pytest.mark.modes("fuse", "native")
def test_what_a_killed_daemon_left_is_removed_and_what_lives_is_not(mounter: Mounter) -> None:
    cache = Cache(mounter.home / "objects")
    oid = cache.put_dataset(FIRST)
    killed, lives = (mounter.mount(oid, "--cache", cache.root) for _ in range(2))
    settled(killed)
    settled(lives)
    assert len(homes(cache.root)) == 4
    kill_for_good(killed.pid)
    killed.umount()
    left = homes(cache.root)
    assert len(left) == 4
    (cache.root / "fusefs/pins/a stranger's").write_text("stays")
    (cache.root / "fusefs/pins/link").symlink_to(mounter.home)
    other = mounter.mount(oid, "--cache", cache.root)
    settled(other)
    pids = {name.partition("-")[0] for name in homes(cache.root) if name[0].isdigit()}
    assert pids == {str(lives.pid), str(other.pid)}
    assert (cache.root / "fusefs/pins/a stranger's").exists()
    for data in FIRST.values():
        cache.remove(md5(data))
    assert tree_of(lives.path) == FIRST
    lives.umount()
    other.umount()


def test_a_mount_without_pins(mounter: Mounter) -> None:
    cache = Cache(mounter.home / "objects")
    oid = cache.put_dataset(FIRST)
    for flags in (["--no-pin"], ["--pin", "no"], ["-o", "pin=no"], ["-o", "pin=yes", "--no-pin"]):
        mount = mounter.mount(oid, "--cache", cache.root, *flags)
        assert mount.status()["pins"] == {"state": "off", "objects": 0, "reason": None}
        mount.umount()
        assert not (cache.root / "fusefs").exists()
    assert "'maybe' is neither yes nor no" in mounter.refuse(oid, "--cache", cache.root, "-o", "pin=maybe")


def test_objects_that_have_too_many_links(mounter: Mounter) -> None:
    """Of what cannot be linked the status says why, and once it is removed it is a miss."""
    cache = Cache(mounter.home / "objects")
    oid = cache.put_dataset(FIRST)
    full = cache.place(md5(FIRST["old"]))
    crowd = mounter.home / "crowd"
    crowd.mkdir()
    number = 0
    try:
        while number < 70_000:
            os.link(full, crowd / str(number))
            number += 1
    except OSError as error:
        assert error.errno == errno.EMLINK
    if number == 70_000:
        pytest.skip("this file system admits as many links as anybody wants")
    mount = mounter.mount(oid, "--cache", cache.root)
    assert settled(mount) == {
        "state": "partial",
        "objects": len(FIRST) - 1,
        "reason": "objects have as many links as the file system admits",
    }
    for data in FIRST.values():
        cache.remove(md5(data))
    with pytest.raises(OSError, match="Input/output"):
        (mount.path / "old").read_bytes()
    assert tree_of(mount.path / "sub") == {"empty": b"", "old too": FIRST["sub/old too"]}


def test_a_cache_that_nobody_can_write(mounter: Mounter) -> None:
    cache = Cache(mounter.home / "objects")
    oid = cache.put_dataset(FIRST)
    (cache.root / "fusefs").write_text("in the way")
    mount = mounter.mount(oid, "--cache", cache.root)
    pins = settled(mount)
    assert (pins["state"], pins["objects"]) == ("refused", 0)
    assert pins["reason"]
    assert tree_of(mount.path) == FIRST
    assert mount.umount().count("not every object is kept from being removed") == 1


def test_a_prefix_that_leads_elsewhere_is_not_followed(mounter: Mounter) -> None:
    """Else a cache could have any file of that name linked, by whoever mounts it."""
    cache, elsewhere = Cache(mounter.home / "objects"), Cache(mounter.home / "elsewhere")
    oid = cache.put_dataset(FIRST)
    gone = md5(FIRST["old"])
    elsewhere.put(FIRST["old"])
    cache.remove(gone)
    place = cache.place(gone).parent
    for other in list(place.iterdir()):
        other.rename(mounter.home / other.name)
    place.rmdir()
    place.symlink_to(elsewhere.place(gone).parent)
    mount = mounter.mount(oid, "--cache", cache.root)
    assert settled(mount)["objects"] < len(FIRST)
    assert elsewhere.place(gone).stat().st_nlink == 1
    with pytest.raises(OSError, match="Input/output"):
        (mount.path / "old").read_bytes()
