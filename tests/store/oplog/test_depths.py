"""Logs and checks of remotes whose content directories lie at other depths than we write."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from store.contents.names import ARCHIVE, ARCHIVE_INDEX, DEPTHS, WHOLE, ContentName, parse_key
from store.pushing import asking
from store.remotes.spec import RemoteSpec
from tests.mount.datasets import md5
from tests.store.collecting.test_remote_side import collect
from tests.store.oplog.content_pushes import FILES, few_bytes, move, places, push
from tests.store.oplog.remotes import User

__all__ = ["few_bytes"]

pytestmark = pytest.mark.usefixtures("few_bytes")


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "FIRST_PAUSE", 0.0)


@pytest.fixture
def user(tmp_path: Path) -> User:
    return User(tmp_path / "user", RemoteSpec("far", str(tmp_path / "remote")))


def mix(name: ContentName) -> int:
    """A depth that follows from the name: all three come up."""
    return DEPTHS[int(name.digest[:4], 16) % 3]


def logged(user: User) -> set[str]:
    return {path for path, _ in user.copies.settle(user.key).there}


@pytest.mark.parametrize("depth", [0, 2, "mixed"])
def test_what_moved_to_another_depth_is_there(user: User, depth: int | str) -> None:
    """As every reader finds it; the next base says where it lies, so a collection knows it."""
    oid, other = user.add(FILES), user.add({"a": FILES["a"], "c": b"c"})
    push(user, oid)
    move(user.root, mix if depth == "mixed" else lambda _: int(depth))
    for deep in (False, True):
        report = user.check(deep=deep)
        assert (report.findings, report.strays, report.stray_files, report.corrected) == ([], [], [], 0)
        assert report.known == report.objects
    of_logs = [
        path.relative_to(user.root).as_posix()
        for path, place in places(user.root)
        if place.file not in (ARCHIVE_INDEX, "catalogue")
    ]
    assert logged(user) == set(of_logs)
    push(user, other)
    collect(user, other)
    report = user.check(deep=True)
    assert (report.findings, report.strays, report.stray_files) == ([], [], [])
    left = {place.name.digest for _, place in places(user.root)}
    assert md5(FILES["whole"]) not in left and md5(FILES["large"]) not in left
    assert oid.digest not in left and other.digest in left


def test_what_is_found_at_another_depth_is_logged_there(user: User, tmp_path: Path) -> None:
    """By a push that sends nothing of it."""
    oid = user.add(FILES)
    push(user, oid)
    move(user.root, mix)
    shutil.rmtree(user.root / "META")
    other = User(tmp_path / "other", RemoteSpec("afar", str(user.root)), access="b" * 16)
    other.add(FILES)
    work = push(other, oid)
    assert (work.tally.there, work.tally.pushed) == (len(FILES), 1)  # a manifest has its place
    of_files = {path for path in logged(other) if parse_key(path).name.oid != oid}  # type: ignore[union-attr]
    assert of_files and all((user.root / path).is_file() for path in of_files)
    assert other.check().findings == []


@pytest.mark.parametrize("depth", [0, 2])
def test_damage_at_another_depth_is_mended_in_its_place(user: User, depth: int) -> None:
    """Readers that have found something there look there first: a second copy would help nobody."""
    oid = user.add(FILES)
    push(user, oid)
    move(user.root, lambda _: depth)
    before = {path: path.read_bytes() for path, _ in places(user.root)}
    for path, place in places(user.root):
        if place.file == ARCHIVE or (place.file == WHOLE and place.name.oid != oid):
            path.write_bytes(bytes(len(before[path])))
    report = user.check(deep=True)
    assert {str(one.oid) for one in report.findings} == set(map(md5, FILES.values()))
    assert {one.what for one in report.findings} == {"damaged"}
    report = user.check(deep=True, repair=True)
    assert {one.mended for one in report.findings} == {"the cache"}
    assert {path: path.read_bytes() for path, _ in places(user.root)} == before
    assert not user.check(deep=True).findings
