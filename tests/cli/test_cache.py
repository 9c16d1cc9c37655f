"""`fusefs cache`, by the real command, on caches that real mounts have filled from a remote."""

from __future__ import annotations

import hashlib
import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import SECONDS, Fusefs, SmallDataset, small_dataset

pytestmark = pytest.mark.fuse

FILES = {f"{number}": bytes([number]) * (5000 + number) for number in range(6)}
SUM = hashlib.md5(b"".join(FILES.values()), usedforsecurity=False).hexdigest()
ON_DISK = 8192
"""Each of them, in blocks."""
READ_ALL = ("sh", "-c", "cat {}/* | md5sum")


@dataclass(frozen=True, slots=True)
class Lazy:
    """A version whose objects lie on a remote, and a cache that is empty in the beginning."""

    fusefs: Fusefs
    dataset: SmallDataset
    cache: Path

    @property
    def remote(self) -> Path:
        return self.dataset.cache

    def command(self, *options: str) -> tuple[str | Path, ...]:
        where = ("--cache", self.cache, "--remote", self.remote)
        return ("run", *where, *options, self.dataset.oid, "--", *READ_ALL)

    def read(self, *options: str) -> None:
        """Read it all through a mount."""
        assert self.fusefs(*self.command(*options), check=True).stdout.split()[0] == SUM

    def __call__(
        self, *arguments: str, status: int = 0, ask: bool = True
    ) -> subprocess.CompletedProcess[str]:
        remote = ("--remote", str(self.remote)) if ask else ()
        done = self.fusefs("cache", *arguments, "--cache", self.cache, *remote)
        assert done.returncode == status, done.stderr
        return done

    def told(self, *arguments: str, status: int = 0, ask: bool = True) -> Any:
        return json.loads(self(*arguments, "--json", status=status, ask=ask).stdout)

    def objects(self) -> dict[str, Any]:
        [found] = [kind for kind in self.told()["kinds"] if kind["kind"] == "objects"]
        return found  # type: ignore[no-any-return]

    def path(self, name: str) -> Path:
        digest = hashlib.md5(FILES[name], usedforsecurity=False).hexdigest()
        return self.cache / "files/md5" / digest[:2] / digest[2:]

    def spoil(self, name: str) -> None:
        """The disk, or somebody, changes a byte of the object."""
        path = self.path(name)
        path.chmod(0o644)
        path.write_bytes(b"\xff" + FILES[name][1:])
        path.chmod(0o444)

    def here(self) -> list[str]:
        return [name for name in FILES if self.path(name).exists()]


@pytest.fixture
def lazy(fusefs: Fusefs, tmp_path: Path) -> Lazy:
    return Lazy(fusefs, small_dataset(tmp_path / "remote", FILES), tmp_path / "cache")


def test_what_is_kept(lazy: Lazy) -> None:
    assert lazy.objects()["count"] == 0
    assert not lazy.cache.exists()
    lazy.read()
    objects = lazy.objects()
    assert (objects["count"], objects["bytes"]) == (6, 6 * ON_DISK)
    told = lazy.told()
    assert told["bytes"] == sum(kind["bytes"] for kind in told["kinds"])
    assert {kind["kind"]: kind["count"] for kind in told["kinds"]}["trees"] == 1
    lines = lazy("list").stdout.splitlines()
    assert lines[0].split()[:2] == ["KIND", "COUNT"]
    assert lines[1].split()[:4] == ["objects", "6", "49.2", "kB"]
    assert lines[-2].startswith("total")


def test_trim(lazy: Lazy) -> None:
    lazy.read()
    told = lazy.told("trim", "--cache-size", "40K", "--dry-run")
    assert told["dry_run"]
    assert told["objects"] > 0
    assert lazy.here() == list(FILES)
    done = lazy.told("trim", "--cache-size", "40K")
    assert (done["objects"], done["within_limits"]) == (told["objects"], True)
    assert done["bytes"] <= 40 << 10
    assert lazy.told()["bytes"] == done["bytes"]
    assert 0 < len(lazy.here()) == 6 - done["objects"]
    lazy.read()  # what went is fetched again
    assert lazy.here() == list(FILES)


def test_nothing_goes_that_no_remote_has(lazy: Lazy) -> None:
    lazy.read()
    done = lazy("trim", "--cache-size", "1", status=1, ask=False)
    assert done.stderr.count("\n") == 1
    assert "6 whose remote could not say that it has them" in done.stderr
    digest = lazy.path("0").parent.name + lazy.path("0").name
    (lazy.remote / "files/md5" / digest[:2] / digest[2:]).unlink()
    assert lazy.told("trim", "--cache-size", "1", status=1)["stayed"] == {"unconfirmed": 1}
    assert lazy.here() == ["0"]


def test_what_is_committed_stays(lazy: Lazy, tmp_path: Path) -> None:
    lazy.read()
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("1", "4"):
        (folder / name).write_bytes(FILES[name])
    lazy.fusefs("commit", "--cache", lazy.cache, folder, check=True)
    assert lazy.objects()["count"] == 4
    assert lazy.told("trim", "--cache-size", "1")["objects"] == 4
    assert lazy.here() == ["1", "4"]


def test_verify(lazy: Lazy) -> None:
    lazy.read()
    assert lazy.told("verify") == {
        "objects": 6,
        "bytes": sum(map(len, FILES.values())),
        "gone": 0,
        "corrupt": [],
    }
    lazy.spoil("2")
    lazy.path("3").unlink()
    told = lazy.told("verify", status=1)
    assert (told["objects"], told["gone"]) == (5, 1)
    [corrupt] = told["corrupt"]
    assert (corrupt["detail"], corrupt["fetched"]) == ("its bytes have another hash", True)
    assert lazy("verify", status=1).stdout.splitlines()[-1].endswith("1 corrupt")


def test_repair(lazy: Lazy) -> None:
    lazy.read()
    lazy.spoil("2")
    told = lazy.told("repair")
    [repaired] = told["repaired"]
    assert repaired["remote"] == str(lazy.remote)
    assert lazy.path("2").read_bytes() == FILES["2"]
    assert lazy.path("2").stat().st_mode & 0o777 == 0o444
    [aside] = (lazy.cache / "fusefs/quarantine").iterdir()
    assert aside.read_bytes() == b"\xff" + FILES["2"][1:]
    assert lazy.told("verify")["corrupt"] == []


def test_what_cannot_be_had_again_is_put_aside(lazy: Lazy) -> None:
    lazy.read()
    lazy.spoil("2")
    done = lazy("repair", status=1, ask=False)
    assert "put aside, not fetched again: no remote is known" in done.stdout
    assert not lazy.path("2").exists()
    assert lazy.objects()["count"] == 5
    lazy.read()


def test_what_is_the_users_own_is_only_reported(lazy: Lazy, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "2").write_bytes(FILES["2"])
    lazy.fusefs("commit", "--cache", lazy.cache, folder, check=True)
    lazy.read()
    lazy.spoil("2")
    assert lazy.told("verify")["objects"] == 5
    told = lazy.told("repair", "--all", status=1)
    assert told["repaired"] == []
    assert [found["fetched"] for found in told["corrupt"]] == [False]
    assert lazy.path("2").read_bytes() != FILES["2"]


def test_a_mount_keeps_within_its_bound(lazy: Lazy) -> None:
    """Also one that is too small for anything: what cannot be kept is served all the same."""
    for bound in (("--cache-size", "1"), ("--cache-free", "1000T")):
        lazy.read(*bound)
        assert lazy.here() == []
    lazy.read("--cache-size", "45K")
    assert 0 < len(lazy.here()) <= 5


def test_the_limits_of_mounts_are_told(lazy: Lazy, mountpoint: Path) -> None:
    where = ("--cache", lazy.cache, "--remote", lazy.remote)
    limits = ("--cache-size", "45K", "--cache-free", "1K")
    lazy.fusefs("mount", *where, *limits, lazy.dataset.oid, mountpoint, check=True)
    assert lazy.told()["limits"] == [{"mountpoint": str(mountpoint), "size": 45 << 10, "free": 1 << 10}]
    assert lazy().stdout.splitlines()[-1].startswith("limits: at most 46.1 kB, 1.02 kB left free, by")
    lazy.fusefs("umount", mountpoint, check=True)
    assert lazy.told()["limits"] == []


def test_two_daemons_share_a_cache_and_its_bound(lazy: Lazy) -> None:
    running = [lazy.fusefs.start(*lazy.command("--cache-size", "45K")) for _ in range(2)]
    for process in running:
        printed, errors = process.communicate(timeout=SECONDS)
        assert process.returncode == 0, errors
        assert printed.split()[0] == SUM
    assert lazy.told("verify")["objects"] == len(lazy.here())
    lazy.told("trim", "--cache-size", "20K")
    assert lazy.told()["bytes"] <= 20 << 10


def test_wrong_usage(lazy: Lazy) -> None:
    assert lazy("bogus", status=2).stderr.count("invalid choice") == 1
    assert "is not a size" in lazy("trim", "--cache-size", "much", status=2).stderr
