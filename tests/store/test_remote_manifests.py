"""Bringing manifests: order, who is asked again and who is not, and what is told when all fail."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Barrier, Event
from typing import Any, cast

import pytest

from store import remote_manifests
from store.dvc.remote_url import SCHEMES
from store.errors import (
    ObjectMissing,
    Offline,
    RemoteCorrupt,
    RemoteDenied,
    RemoteMissing,
    RemoteSlow,
    RemoteUnreachable,
    StoreError,
)
from store.fetching.arrivals import Arrivals
from store.layouts import object_path
from store.manifest import manifest_oid, serialize_manifest
from store.oid import Oid
from store.remote_manifests import AT_ONCE, ATTEMPTS, RemoteManifests
from store.remotes import opening
from store.remotes.remote import Remote
from store.remotes.spec import RemoteSpec
from store.remotes.storage import Storage

DATA = [serialize_manifest([(f"file {number}", "d41d8cd98f00b204e9800998ecf8427e")]) for number in range(60)]
OIDS = [manifest_oid(data) for data in DATA]
WEB = RemoteSpec("web", "https://web.example")
FAR = RemoteSpec("far", "s3://far")
DISK = RemoteSpec("disk", "/srv/disk")


@dataclass
class Fake:
    """A storage that fails as it is told to, and counts."""

    failure: Callable[[int], StoreError | None] = lambda _: None
    asked: list[str] = field(default_factory=list)
    content: dict[str, bytes] = field(
        default_factory=lambda: {object_path(oid): data for oid, data in zip(OIDS, DATA, strict=True)}
    )

    def size(self, address: Any) -> int:
        with self.read(address) as parts:
            return sum(map(len, parts))

    @contextmanager
    def read(self, address: Any, *_: Any) -> Iterator[list[bytes]]:
        self.asked.append(address.key)
        failure = self.failure(len(self.asked))
        if failure is not None:
            raise failure
        if address.key not in self.content:
            raise RemoteMissing("it has no such object")
        yield [self.content[address.key]]

    def close(self) -> None:
        pass


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_manifests, "_PAUSE", 0.0)


def manifests(cache: Path, fakes: dict[str, Fake], **options: Any) -> RemoteManifests:
    def open_fake(spec: RemoteSpec) -> Remote:
        return Remote(spec.name, cast(Storage, fakes[spec.name]), spec.layout)

    return RemoteManifests(cache, opener=open_fake, **options)


def failing(error: StoreError) -> Fake:
    return Fake(lambda _: error)


def test_many_are_brought_and_kept(tmp_path: Path) -> None:
    web = Fake()
    found = manifests(tmp_path, {"web": web}).bring([*OIDS, *OIDS], [WEB])
    assert found == dict(zip(OIDS, DATA, strict=True))
    assert len(web.asked) == len(OIDS)
    assert all((tmp_path / object_path(oid)).read_bytes() == found[oid] for oid in OIDS)


def test_one_is_had_before_it_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    has_it = Event()
    admit = Arrivals.admit

    def admit_later(self: Arrivals, *arrival: Any) -> None:
        assert has_it.wait(60)
        admit(self, *arrival)

    monkeypatch.setattr(Arrivals, "admit", admit_later)
    bringing = manifests(tmp_path, {"web": Fake()})
    assert bringing.bring_one(OIDS[0], [WEB]) == DATA[0]
    place = tmp_path / object_path(OIDS[0])
    assert not place.exists()
    has_it.set()
    bringing.close()
    assert place.read_bytes() == DATA[0]


def test_one_that_is_another_is_refused(tmp_path: Path) -> None:
    bringing = manifests(tmp_path, {"web": Fake(content={object_path(OIDS[0]): DATA[1]})})
    with pytest.raises(RemoteCorrupt, match="is something else"):
        bringing.bring_one(OIDS[0], [WEB])
    bringing.close()
    assert not (tmp_path / object_path(OIDS[0])).exists()


def test_the_next_one_is_asked_for_what_one_lacks(tmp_path: Path) -> None:
    web, far = Fake(content={}), Fake()
    [data] = manifests(tmp_path, {"web": web, "far": far}).bring(OIDS[:1], [WEB, FAR]).values()
    assert (data, len(web.asked), len(far.asked)) == (DATA[0], 1, 1)


def test_a_dead_one_is_given_up(tmp_path: Path) -> None:
    web, far = failing(RemoteUnreachable("no connection")), Fake()
    found = manifests(tmp_path, {"web": web, "far": far}).bring(OIDS, [WEB, FAR])
    assert found == dict(zip(OIDS, DATA, strict=True))
    assert len(web.asked) < ATTEMPTS + AT_ONCE


def test_failures_that_come_together_all_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(60):
            together = Barrier(AT_ONCE)

            def fail(count: int, together: Barrier = together) -> StoreError:
                if count <= AT_ONCE:
                    together.wait(60)
                return RemoteUnreachable("no connection")

            web = Fake(fail)
            bringing = manifests(tmp_path, {"web": web})
            bringing.bring(OIDS[:AT_ONCE], [WEB])
            assert sum(bringing._failed.values()) == len(web.asked)
    finally:
        sys.setswitchinterval(usual)


def test_a_moment_of_trouble_is_passed_over(tmp_path: Path) -> None:
    web = Fake(lambda count: RemoteSlow("busy") if count < ATTEMPTS else None)
    assert list(manifests(tmp_path, {"web": web}).bring(OIDS[:1], [WEB]).values()) == DATA[:1]


def test_who_wants_to_be_left_alone_for_long_is(tmp_path: Path) -> None:
    web = failing(RemoteSlow("busy", retry_after=3600))
    [error] = manifests(tmp_path, {"web": web}).bring(OIDS[:1], [WEB]).values()
    assert isinstance(error, RemoteSlow)
    assert len(web.asked) == 1


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (RemoteMissing("a"), RemoteMissing("b"), ObjectMissing),
        (RemoteMissing("a"), RemoteDenied("b"), RemoteDenied),
        (RemoteDenied("a"), RemoteUnreachable("b"), RemoteUnreachable),
        (RemoteUnreachable("a"), RemoteSlow("b"), RemoteSlow),
    ],
)
def test_what_is_told_when_all_fail(
    tmp_path: Path, one: StoreError, other: StoreError, expected: type[StoreError]
) -> None:
    fakes = {"web": failing(one), "far": failing(other)}
    [error] = manifests(tmp_path, fakes).bring(OIDS[:1], [WEB, FAR]).values()
    assert type(error) is expected
    assert "a" in str(error) and "b" in str(error) and str(OIDS[0]) in str(error)


def test_offline_only_directories_are_asked(tmp_path: Path) -> None:
    web, disk = Fake(), Fake(content={object_path(OIDS[0]): DATA[0]})
    offline = manifests(tmp_path, {"web": web, "disk": disk}, offline=True)
    found = offline.bring(OIDS[:2], [WEB, DISK])
    assert found[OIDS[0]] == DATA[0]
    assert isinstance(found[OIDS[1]], Offline) and "web" in str(found[OIDS[1]])
    assert web.asked == []


def test_a_bug_is_an_error_and_nobody_waits(tmp_path: Path) -> None:
    def fail(_: int) -> StoreError:
        raise ZeroDivisionError

    [error] = manifests(tmp_path, {"web": Fake(fail)}).bring(OIDS[:1], [WEB]).values()
    assert isinstance(error, StoreError) and "ZeroDivisionError" in str(error)


def test_what_is_too_large_is_not_read_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_manifests, "SIZE_LIMIT", 10)
    [error] = manifests(tmp_path, {"web": Fake()}).bring(OIDS[:1], [WEB]).values()
    assert isinstance(error, StoreError)


def test_which_of_several_a_remote_has(tmp_path: Path) -> None:
    old = Oid(OIDS[0].digest, is_tree=True, algorithm="md5-dos2unix")
    fakes = {"web": Fake(content={object_path(old): DATA[0]})}
    found = manifests(tmp_path, fakes)
    assert found.find([OIDS[0], old], [WEB]) == old
    assert found.find([OIDS[1]], [WEB]) is None


def test_it_is_told_when_it_takes_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_manifests, "LONG_SECONDS", 0.01)
    told: list[str] = []
    impatient = Event()

    def tell(line: str) -> None:
        told.append(line)
        impatient.set()

    class Patient(Fake):
        @contextmanager
        def read(self, address: Any, *_: Any) -> Iterator[list[bytes]]:
            assert impatient.wait(60)
            yield [DATA[0]]

    manifests(tmp_path, {"web": Patient()}, tell=tell).bring(OIDS[:1], [WEB])
    assert told == ["waiting for a manifest from web"]


def test_what_is_configured_can_be_opened() -> None:
    assert set(SCHEMES) == set(opening._FAMILIES) - {"", "file"}
