"""Checks of content directories that are stopped, and remotes that say that they have what they lose."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from store.contents.index import decode_archive, decode_parts, encode_archive, encode_parts
from store.contents.names import ARCHIVE, ARCHIVE_INDEX, CATALOGUE, PARTS, PARTS_INDEX, WHOLE, Place
from store.errors import RemoteUnreachable
from store.oid import Oid
from store.pushing import asking
from store.remotes.opening import open_remote
from store.remotes.spec import RemoteSpec
from store.remotes.storage import UPLOADS
from tests.mount.datasets import filler, md5
from tests.store.oplog.content_pushes import FILES, few_bytes, places, push, readable
from tests.store.oplog.remotes import Counted, User, dies
from tests.store.remotes.contract import LIMITS

__all__ = ["few_bytes"]

pytestmark = pytest.mark.usefixtures("few_bytes")

SECOND = {"a": b"a", "c": b"c", "d": b"d", "large": filler(150 << 10, 7)}


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "FIRST_PAUSE", 0.0)


def new_user(home: Path) -> User:
    return User(home / "user", RemoteSpec("far", str(home / "remote")))


def copied(made: User, home: Path) -> User:
    shutil.copytree(made.root, home / "remote")
    shutil.copytree(made.home, home / "user")
    return new_user(home)


def find(user: User, wanted: Callable[[Place], bool]) -> Path:
    return next(path for path, place in places(user.root) if wanted(place))


@pytest.fixture
def damaged(tmp_path: Path) -> tuple[User, tuple[Oid, Oid]]:
    """Two versions and a push that died; of every kind of file one is gone, or has gone bad."""
    user = new_user(tmp_path / "made")
    first, second = user.add(FILES), user.add(SECOND)
    push(user, first)
    push(user, second)
    third = user.add({"e": b"e", "f": b"f", "more": filler(3000, 9)})
    assert dies(lambda tell: push(user, third, storage=user.storage(tell)), 9)
    find(user, lambda place: place.file == ARCHIVE).unlink()
    find(user, lambda place: place.name.namespace == PARTS).unlink()
    find(user, lambda place: place.file == WHOLE and place.name.digest == md5(FILES["whole"])).write_bytes(
        b""
    )
    find(user, lambda place: place.file == CATALOGUE and place.name.oid == first).unlink()
    find(user, lambda place: place.file == PARTS_INDEX and place.name.digest == md5(SECOND["large"])).unlink()
    return user, (first, second)


def everything(first: Oid, second: Oid) -> set[str]:
    return {str(first), str(second), *map(md5, FILES.values()), *map(md5, SECOND.values())}


@pytest.mark.parametrize("first", range(1, 5))
def test_a_check_may_die_anywhere(tmp_path: Path, damaged: tuple[User, tuple[Oid, Oid]], first: int) -> None:
    """What could be read can be, and the next check mends the rest. Every fourth step, from the `first`."""
    made, oids = damaged
    before = readable(made, *oids)
    assert len(before) < len(everything(*oids))
    number, died = first - 4, True
    while died:
        number += 4
        user = copied(made, tmp_path / str(number))

        def check(tell: Callable[[str], object], user: User = user) -> None:
            user.check(user.storage(tell), repair=True, adopt=True)

        died = dies(check, number)
        assert readable(user, *oids) >= before
        report = user.check(repair=True, adopt=True)
        assert all(finding.mended for finding in report.findings) and not report.running
        assert readable(user, *oids) == everything(*oids)
        report = user.check(deep=True)
        assert (report.findings, report.strays, report.ended) == ([], [], [])
        assert all(stray.path.startswith(UPLOADS) for stray in report.stray_files)  # what was cut off
        assert user.logs() == ["base"]
    assert number > 30


def test_a_remote_may_go_away_anywhere(tmp_path: Path, damaged: tuple[User, tuple[Oid, Oid]]) -> None:
    """For good at the k-th call; the next check ends it."""
    made, oids = damaged
    before = readable(made, *oids)
    number, failed = 0, True
    while failed:
        number += 5
        user = copied(made, tmp_path / str(number))
        storage = user.storage(lambda _: gone(storage, number))  # noqa: B023  # it is used before the next one
        try:
            user.check(storage, repair=True, adopt=True)
            failed = False
        except RemoteUnreachable:
            pass
        assert readable(user, *oids) >= before
        user.check(repair=True, adopt=True)
        assert readable(user, *oids) == everything(*oids)
        assert not user.check(deep=True).findings


def gone(storage: Counted, number: int) -> None:
    if len(storage.keys) >= number:
        raise RemoteUnreachable("it is gone")


def test_an_archive_that_tar_cannot_read_is_named(tmp_path: Path) -> None:
    """Readers ask for its members alone, and never see what is between them."""
    user = new_user(tmp_path)
    oid = user.add(FILES)
    push(user, oid)
    archive = find(user, lambda place: place.file == ARCHIVE)
    before = archive.read_bytes()
    archive.write_bytes(before[:100] + b"9" + before[101:])
    assert subprocess.run(["tar", "-tf", archive], capture_output=True, check=False).returncode
    everything = {str(oid), *map(md5, FILES.values())}
    assert readable(user, oid) == everything and not user.check().findings
    for repair in (False, True):
        report = user.check(deep=True, repair=repair)
        assert {str(one.oid) for one in report.findings} == {md5(FILES["a"]), md5(FILES["b"])}
        assert {one.what for one in report.findings} == {"damaged"}
    assert archive.read_bytes() == before and not user.check(deep=True).findings


def moved_members(data: bytes, name: str) -> bytes:
    index = decode_archive(data, name)
    moved = [member._replace(offset=member.offset + 512) for member in index.members()]
    return encode_archive(name, index.size, index.algorithm, moved[:-1])


def fewer_members(data: bytes, name: str) -> bytes:
    index = decode_archive(data, name)
    return encode_archive(name, index.size, index.algorithm, list(index.members())[:-1])


def wrong_sums(data: bytes, name: str) -> bytes:
    pieces = decode_parts(data, Oid(name)).pieces()
    return encode_parts(Oid(name), [piece._replace(sum=bytes(16)) for piece in pieces])


def swapped_parts(data: bytes, name: str) -> bytes:
    first, second, *others = decode_parts(data, Oid(name)).pieces()
    swapped = [second._replace(offset=0), first._replace(offset=second.length), *others]
    return encode_parts(Oid(name), swapped)


def no_index(data: bytes, name: str) -> bytes:
    return bytes(len(data))


@pytest.mark.parametrize("has_cache", [True, False])
@pytest.mark.parametrize(
    ("file", "lie"),
    [
        (ARCHIVE_INDEX, moved_members),
        (ARCHIVE_INDEX, fewer_members),
        (ARCHIVE_INDEX, no_index),
        (PARTS_INDEX, wrong_sums),
        (PARTS_INDEX, swapped_parts),
        (PARTS_INDEX, no_index),
    ],
)
def test_an_index_that_lies_is_named_and_mended(
    tmp_path: Path, file: str, lie: Callable[[bytes, str], bytes], has_cache: bool
) -> None:
    """It is what was damaged, and not what it tells of; so it is what must be mended."""
    user = new_user(tmp_path)
    oid = user.add({**FILES, "large": filler(1500 << 10, 2)})
    push(user, oid)
    other = tmp_path / "other"
    shutil.copytree(user.root / "contents", other / "contents")
    everything = readable(user, oid)
    place = find(user, lambda place: place.file == file)
    right = place.read_bytes()
    place.write_bytes(lie(right, place.parent.name))
    lost = everything - readable(user, oid)
    assert lost
    report = user.check(deep=True)
    assert {str(one.oid) for one in report.findings} >= lost
    if not has_cache:
        shutil.rmtree(user.cache / "files")
    others = [open_remote(RemoteSpec("other", str(other)), LIMITS)]
    report = user.check(deep=True, repair=True, others=others)
    assert "" not in {one.mended for one in report.findings}
    assert place.read_bytes() == right
    assert not user.check(deep=True).findings


def what_is_put(key: str) -> str:
    """The same for each push of a version, as the names of logs are not."""
    kind, sign, _ = key.rpartition("/")[2].partition("==")
    return kind if sign else key


class Losing(Counted):
    """A storage that acknowledges its first put but `those` that were lost before, and forgets it."""

    def __init__(self, user: User, those: set[str]) -> None:
        super().__init__(open_remote(user.spec, LIMITS).storage)
        self._those = those
        self.lost = ""

    def put(self, key: str, parts: Iterable[bytes], size: int, *, if_absent: bool = False) -> bool:
        with self._lock:
            is_lost = not self.lost and what_is_put(key) not in self._those
            if is_lost:
                self.lost = key
        if not is_lost:
            return super().put(key, parts, size, if_absent=if_absent)
        assert sum(map(len, parts)) == size
        return True


def push_plainly(user: User, oid: Oid, *, storage: Counted) -> None:
    user.push(oid, storage=storage)


@pytest.mark.parametrize("way", ["check", "push"])
@pytest.mark.parametrize("send", [push_plainly, push], ids=["dvc", "content"])
def test_what_a_push_has_put_is_lost(tmp_path: Path, send: Callable[..., object], way: str) -> None:
    """Whichever put it is: a check names what cannot be read, and it or the next push puts it there."""
    wanted = {"begin", "end"}
    if send is not push_plainly:
        wanted |= {ARCHIVE, ARCHIVE_INDEX, CATALOGUE, PARTS_INDEX, WHOLE}
    seen: set[str] = set()
    lost = "something"
    while lost:
        user = new_user(tmp_path / str(len(seen)))
        old = user.add({"old": b"what was there before", "older": b"the same"})
        send(user, old, storage=user.storage())
        oid = user.add(FILES)
        whole = {
            str(oid),
            str(old),
            *map(md5, FILES.values()),
            md5(b"what was there before"),
            md5(b"the same"),
        }
        before = readable(user, old)
        storage = Losing(user, seen)
        send(user, oid, storage=storage)
        lost = storage.lost
        left = readable(user, oid, old)
        assert left >= before
        if way == "check":
            report = user.check(repair=True)
            named = {str(finding.oid) for finding in report.findings}
            assert named >= whole - left and all(finding.mended for finding in report.findings)
            if lost.endswith(CATALOGUE):
                assert named == {str(oid)}
        else:
            send(user, oid, storage=user.storage())
        assert readable(user, oid, old) == whole
        report = user.check(deep=True)
        assert (report.findings, report.strays, report.running) == ([], [], []), lost
        if lost:
            seen.add(what_is_put(lost))
    assert wanted <= {what.rpartition("/")[2] for what in seen}
