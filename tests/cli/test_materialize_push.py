"""`fusefs materialize --push`: products go to a remote, and other machines find them before they make any."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from store.making.products import BELOW
from store.making.remote_products import MARKER
from tests.cli.conftest import Command
from tests.cli.media_dataset import media_dataset
from tests.conftest import Fusefs, SmallDataset
from tests.servers.nginx import nginx

VIEW = ("--view", "frames:jpg,scale=64x36", "--only", "clips/a.mp4")


@pytest.fixture
def media(tmp_path: Path) -> SmallDataset:
    return media_dataset(tmp_path)


def materialize(
    command: Command, cache: Path, oid: str, *words: str | Path, status: int = 0
) -> dict[str, Any]:
    done = command("materialize", "--cache", cache, oid, *VIEW, "--json", *words)
    assert done.status == status, done.stderr
    found: dict[str, Any] = done.json
    return found


def products(root: Path) -> dict[str, bytes]:
    below = root / BELOW
    return {
        path.relative_to(below).as_posix(): path.read_bytes()
        for path in below.rglob("*")
        if path.is_file() and path.parent != below
    }


def test_products_are_put_on_a_remote_and_found_there(
    command: Command, media: SmallDataset, tmp_path: Path
) -> None:
    remote = tmp_path / "remote"
    told = materialize(command, media.cache, media.oid, "--push", str(remote))
    assert told["made"] == told["pushed"] >= 1
    assert (remote / MARKER).exists()
    made = products(remote)
    assert len(made) == told["made"] + 1  # and the index
    assert made.items() <= products(media.cache).items()
    again = materialize(command, media.cache, media.oid, "--push", str(remote))
    assert (again["kept"], again["pushed"]) == (told["made"], 0)
    other = other_machine(media, tmp_path)
    found = materialize(command, other, media.oid, "--remote", str(remote))
    assert (found["failures"], found["products"]) == ({}, told["made"])
    assert products(other) == made


def other_machine(media: SmallDataset, tmp_path: Path) -> Path:
    """The cache of one that has the version and not the videos: what it has in the end was made here."""
    other = tmp_path / "other"
    manifest = Path("files/md5") / media.oid[:2] / media.oid[2:]
    (other / manifest).parent.mkdir(parents=True)
    (other / manifest).write_bytes((media.cache / manifest).read_bytes())
    return other


def test_products_that_are_damaged_there_are_made(
    command: Command, media: SmallDataset, tmp_path: Path
) -> None:
    remote = tmp_path / "remote"
    told = materialize(command, media.cache, media.oid, "--push", str(remote))
    good = products(remote)
    for name in good:
        path = remote / BELOW / name
        path.chmod(0o644)
        path.write_bytes(b"\0" + path.read_bytes()[1:])
    for path in (media.cache / BELOW).rglob("*"):
        if path.is_file():
            path.unlink()
    anew = materialize(command, media.cache, media.oid, "--remote", str(remote))
    assert anew["made"] == told["made"]
    assert good.items() <= products(media.cache).items()


def test_a_cluster_puts_what_it_makes_on_the_remote(
    fusefs: Fusefs, media: SmallDataset, tmp_path: Path
) -> None:
    words = ("materialize", "--cache", media.cache, media.oid, *VIEW, "--push", tmp_path / "remote")
    fusefs(*words, "--dask", "--jobs", "1", check=True)
    made = products(tmp_path / "remote")
    assert made.items() <= products(media.cache).items()
    assert len(made) == 2  # frames and index
    other = other_machine(media, tmp_path)
    words = ("materialize", "--cache", other, media.oid, *VIEW, "--remote", tmp_path / "remote")
    fusefs(*words, check=True)
    assert products(other) == made


def test_a_remote_that_takes_nothing_is_said(command: Command, media: SmallDataset, tmp_path: Path) -> None:
    (tmp_path / "served").mkdir()
    with nginx(tmp_path / "nginx", tmp_path / "served", login=("user", "right")) as server:
        told = materialize(command, media.cache, media.oid, "--push", server.url, status=1)
    assert list(told["failures"]) == ["denied"] and told["pushed"] == 0
    done = command("materialize", "--cache", media.cache, media.oid, *VIEW, "--push", "unknown")
    assert done.status == 1 and "there is no remote 'unknown'" in done.stderr
    assert len(done.stderr.splitlines()) == 1
