"""Garbage of a cache goes where a remote has it, and nothing else does."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from store.cache_chain import CacheChain
from store.collecting import cache_side
from store.collecting.cache_side import CacheCollection
from store.collecting.claims import Claim
from store.collecting.kept import Kept, Manifests, keep
from store.collecting.plan import Outcome
from store.errors import InputError, ObjectMissing, RemoteUnreachable
from store.ledger import Ledger
from store.local_cache import LocalCache
from store.oid import MD5_DOS2UNIX, Oid
from store.pushing import asking
from store.remotes.remote import Remote
from store.remotes.spec import RemoteSpec
from tests.mount.datasets import Cache, filler, md5
from tests.store.oplog.remotes import Counted, User, dies

OLD = {f"{number}": filler(500 + number, number) for number in range(5)}
NEW = {**OLD, "0": b"changed"}


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "FIRST_PAUSE", 0.0)


@pytest.fixture
def user(tmp_path: Path) -> User:
    return User(tmp_path / "user", RemoteSpec("far", str(tmp_path / "remote")))


def manifests(user: User) -> Manifests:
    lost = ObjectMissing("it is nowhere")
    return Manifests(CacheChain(LocalCache(user.cache)), lambda oids: dict.fromkeys(oids, lost))


def collection(
    user: User, *kept: Oid, storage: Counted | None = None, unpushed: bool = False, grace: float = 0.0
) -> CacheCollection:
    reader = manifests(user)
    found, unknown = keep([Claim(oid, "test", True) for oid in kept], reader, frozenset())
    assert not unknown
    remote = Remote("far", storage or user.storage())
    return CacheCollection(user.cache, found, reader, [remote], grace=grace, unpushed=unpushed)


def cached(user: User) -> set[str]:
    places = (user.cache / "files").rglob("*")
    return {path.parent.name + path.name for path in places if path.is_file()}


def names(oid: Oid, files: dict[str, bytes]) -> set[str]:
    return {str(oid), *map(md5, files.values())}


def test_what_a_remote_loses_meanwhile_stays(user: User) -> None:
    old, new = user.add(OLD), user.add(NEW)
    user.push(old)
    work, outcome = collection(user, new), Outcome()
    plan = work.plan()
    assert [str(item.oid) for item in plan.garbage] == [str(old), md5(OLD["0"])]
    user.place(md5(OLD["0"])).unlink()
    work.collect(plan, outcome)
    assert cached(user) == names(new, NEW) | {md5(OLD["0"])}
    assert outcome.left == {"unpushed": 1} and len(outcome.deleted) == 1


def test_another_length_there_is_another_thing(user: User) -> None:
    old, new = user.add(OLD), user.add(NEW)
    user.push(old)
    place = user.place(md5(OLD["0"]))
    place.chmod(0o644)
    place.write_bytes(b"cut")
    plan = collection(user, new).plan()
    assert [str(item.oid) for item in plan.garbage] == [str(old)] and plan.stays["unpushed"].objects == 1


def test_a_remote_that_does_not_answer_has_nothing(user: User) -> None:
    old, new = user.add(OLD), user.add(NEW)
    user.push(old)

    def fail(call: str) -> None:
        raise RemoteUnreachable("far is not there")

    work = collection(user, new, storage=user.storage(fail))
    plan = work.plan()
    assert not plan.garbage and plan.stays["unpushed"].objects == 2
    assert work.notes == ["far is not there"]


def test_young_manifests_keep_what_they_name(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files may have been there for long: then the grace period is not theirs."""
    old = user.add(OLD)
    real = CacheCollection._young
    monkeypatch.setattr(
        CacheCollection, "_young", lambda self, items: [one for one in real(self, items) if one.oid.is_tree]
    )
    plan = collection(user, unpushed=True, grace=3600.0).plan()
    assert not plan.garbage and plan.stays["young"].objects == len(names(old, OLD))
    (user.cache / "files/md5" / old.digest[:2] / f"{old.digest[2:]}.dir").chmod(0o644)
    (user.cache / "files/md5" / old.digest[:2] / f"{old.digest[2:]}.dir").write_bytes(b"[]")
    with pytest.raises(InputError, match=f"{old} names"):
        collection(user, unpushed=True, grace=3600.0).plan()


def test_older_layouts_and_other_files(user: User) -> None:
    legacy = Cache(user.cache, legacy=True)
    digest = legacy.put(b"of DVC 2\n")
    stray = user.cache / "files/md5/ab/not an object"
    stray.parent.mkdir(parents=True)
    stray.write_bytes(b"?")
    kept = Kept()
    kept.add(Oid(digest, algorithm=MD5_DOS2UNIX))
    work = CacheCollection(user.cache, kept, manifests(user), [], grace=0.0, unpushed=True)
    assert not work.plan().garbage
    work = CacheCollection(user.cache, Kept(), manifests(user), [], grace=0.0, unpushed=True)
    work.collect(work.plan(), Outcome())
    assert not legacy.place(digest).exists() and stray.exists()


def test_rows_of_what_was_fetched_go_with_it(user: User) -> None:
    old = user.add(OLD)
    user.push(old)
    victim = Oid(md5(OLD["0"]))
    ledger = Ledger(user.cache)
    ledger.arrived(victim, len(OLD["0"]), "far")
    ledger.flush()
    assert ledger.find([victim])
    work = collection(user)
    work.collect(work.plan(), Outcome())
    assert not ledger.find([victim]) and not cached(user)
    ledger.close()


def test_it_may_die_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept is there, and another run does the rest; so it is where two run at once."""
    made = User(tmp_path / "user", RemoteSpec("far", str(tmp_path / "remote")))
    old, new = made.add(OLD), made.add(NEW)
    other = made.add({"a": b"a", "b": b"b"})
    made.push(old, other)
    monkeypatch.setattr(cache_side, "BATCH", 2)
    number, died = 0, True
    while died:
        number += 1
        home = tmp_path / str(number)
        shutil.copytree(made.home, home)
        user = User(home, made.spec)

        def work(tell: object, user: User = user) -> None:
            real = os.unlink

            def unlink(*arguments: object, **options: object) -> None:
                tell("unlink")  # type: ignore[operator]
                real(*arguments, **options)  # type: ignore[arg-type]

            os.unlink = unlink  # type: ignore[assignment]
            one = collection(user, new)
            one.collect(one.plan(), Outcome())

        died = dies(work, number)
        assert cached(user) >= names(new, NEW)
        works = [collection(user, new) for _ in range(2)]
        plans, outcomes = [one.plan() for one in works], [Outcome(), Outcome()]
        for one, plan, outcome in zip(works, plans, outcomes, strict=True):
            one.collect(plan, outcome)
        assert cached(user) == names(new, NEW)
        assert not outcomes[1].deleted and not outcomes[1].left
    assert (
        number
        == len(names(old, OLD) | names(other, {"a": b"a", "b": b"b"}))
        - len(names(new, NEW) & names(old, OLD))
        + 1
    )
