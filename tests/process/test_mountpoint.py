"""What cannot be mounted on: one clear line each, exit status 1, and nothing changed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fusefs import mountinfo
from tests.conftest import SECONDS, Fusefs, SmallDataset

pytestmark = [pytest.mark.fuse, pytest.mark.root, pytest.mark.modes("fuse", "native")]

Refuse = Callable[..., str]


def mounted_on(place: str | Path) -> int:
    """How many mounts there are at exactly that path."""
    return [
        line.split()[4]
        for line in Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines()
    ].count(str(place))


@pytest.fixture
def refuse(fusefs: Fusefs, dataset: SmallDataset) -> Refuse:
    """Tries to mount and returns the one line of the refusal."""

    def try_it(place: str | Path, *options: str) -> str:
        before = mounted_on(place)
        done = fusefs("mount", *options, "--cache", dataset.cache, dataset.oid, place)
        assert done.returncode == 1, done.stdout
        assert done.stderr.startswith("fusefs: ") and done.stderr.count("\n") == 1
        assert mounted_on(place) == before
        return done.stderr

    return try_it


def test_it_does_not_exist(refuse: Refuse, tmp_path: Path) -> None:
    assert "does not exist" in refuse(tmp_path / "nothing")
    assert "empty name" in refuse("")


def test_it_is_a_file(refuse: Refuse, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "is not a directory" in refuse(tmp_path / "file")
    assert "not a directory" in refuse(tmp_path / "file" / "below")


def test_links_that_never_end(refuse: Refuse, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    assert "symbolic links" in refuse(tmp_path / "loop")


def test_a_name_with_a_newline_is_still_one_line(refuse: Refuse, tmp_path: Path) -> None:
    assert "a\\nb\\x1b" in refuse(tmp_path / "a\nb\x1b")


def test_it_is_not_empty(refuse: Refuse, fusefs: Fusefs, dataset: SmallDataset, mountpoint: Path) -> None:
    (mountpoint / "precious").touch()
    assert "not empty" in refuse(mountpoint)
    fusefs("mount", "-o", "nonempty", "--cache", dataset.cache, dataset.oid, mountpoint, check=True)
    assert sorted(path.name for path in mountpoint.iterdir()) == ["a", "b"]
    fusefs("umount", mountpoint, check=True)
    assert [path.name for path in mountpoint.iterdir()] == ["precious"]


def test_it_is_mounted_already(
    refuse: Refuse, fusefs: Fusefs, dataset: SmallDataset, mountpoint: Path, tmp_path: Path
) -> None:
    assert "mounted already: proc" in refuse("/proc")
    fusefs("mount", "--cache", dataset.cache, dataset.oid, mountpoint, check=True)
    message = refuse(mountpoint)
    assert "mounted already" in message and dataset.oid in message
    link = tmp_path / "link"
    link.symlink_to(mountpoint)
    assert "mounted already" in refuse(link)


def test_some_want_it_at_once(fusefs: Fusefs, dataset: SmallDataset, mountpoint: Path) -> None:
    """As the processes of one job do that begin with it. One mounts, and the others are told so."""
    started = [fusefs.start("mount", "--cache", dataset.cache, dataset.oid, mountpoint) for _ in range(3)]
    said = [process.communicate(timeout=SECONDS)[1] for process in started]
    assert sorted(process.returncode for process in started) == [0, 1, 1], said
    already = f"fusefs: {mountpoint} is mounted already, with {dataset.oid}; `fusefs umount` frees it\n"
    assert sorted(said) == ["", already, already]
    assert mounted_on(mountpoint) == 1
    fusefs("umount", mountpoint, check=True)


def test_it_lies_inside_the_cache(refuse: Refuse, dataset: SmallDataset) -> None:
    place = dataset.cache / "place"
    place.mkdir()
    assert "inside the cache" in refuse(place)


def test_it_would_hide_the_cache(refuse: Refuse, dataset: SmallDataset) -> None:
    assert "would hide the cache" in refuse(dataset.cache.parent, "-o", "nonempty")


def test_a_link_to_a_directory_will_do(
    fusefs: Fusefs, dataset: SmallDataset, mountpoint: Path, tmp_path: Path
) -> None:
    link = tmp_path / "link"
    link.symlink_to("./mnt/../mnt")
    fusefs("mount", "--cache", dataset.cache, dataset.oid, "link", check=True)
    assert mountinfo.mount_at(str(mountpoint), mountinfo.read_mounts()) is not None
    fusefs("umount", "link", check=True)


def test_the_log_cannot_be_written(refuse: Refuse, mountpoint: Path) -> None:
    assert "cannot write the log /proc/nowhere/log" in refuse(mountpoint, "--log=/proc/nowhere/log")
    assert "not a regular file" in refuse(mountpoint, "--log=/dev/full")


@pytest.mark.parametrize("place", ["/", "/proc", "nothing", "."])
def test_what_is_not_ours_is_not_unmounted(fusefs: Fusefs, place: str) -> None:
    done = fusefs("umount", place)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "is not a mount" in done.stderr
    done = fusefs("status", place)
    assert (done.returncode, "not in a mount" in done.stderr) == (1, True)
