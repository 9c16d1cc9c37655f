"""Sweeps: what goes, what never does, and what a crash leaves."""

from __future__ import annotations

import os
import tempfile
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from store.budget import Limits
from store.keeping.cache_locks import EVICTING, keep_away_eviction, sole
from store.keeping.kinds import AGE, Files, kinds_of_cache, kinds_of_user
from store.keeping.leases import Lease
from store.keeping.records import Fetched
from store.keeping.sweep import Sweep, free_bytes
from store.ledger import Ledger
from store.oid import Oid
from store.prefetch_window import LATEST, Window
from tests.store.keeping.conftest import Cache

BLOCK = 4096


def sweep(cache: Cache, limits: Limits, *kinds: Files, dry: bool = False, clock: Any = None) -> Sweep:
    """Sweep to the end, with a remote that has what `cache.remote` says."""
    with closing(Ledger(cache.root)) as ledger:
        work = Sweep(ledger, kinds, **({"clock": clock} if clock else {}))
        work.begin(limits, dry=dry)
        while (batch := work.next_batch()) is not None:
            objects = [thing for thing in batch if isinstance(thing, Fetched)]
            work.drop(batch, {one.oid for one in objects if cache.remote.get(one.oid) == one.size})
        return work


def rows(cache: Cache) -> set[Oid]:
    with closing(Ledger(cache.root)) as ledger:
        return {one.oid for again in (False, True) for one in ledger.by_use(again=again)}


def test_the_least_recently_used_goes_first(cache: Cache) -> None:
    made = [cache.fetch(b"%d" % number) for number in range(10)]
    outcome = sweep(cache, Limits(size=4 * BLOCK)).outcome
    assert (outcome.objects, outcome.freed, outcome.finished) == (6, 6 * BLOCK, True)
    assert [cache.path(oid).exists() for oid in made] == [False] * 6 + [True] * 4
    assert rows(cache) == set(made[6:])


def test_a_dry_run_deletes_nothing(cache: Cache) -> None:
    made = [cache.fetch(b"%d" % number) for number in range(4)]
    outcome = sweep(cache, Limits(size=BLOCK), dry=True).outcome
    assert (outcome.objects, outcome.finished) == (3, True)
    assert all(cache.path(oid).exists() for oid in made)
    assert rows(cache) == set(made)


@given(data=st.data())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_never_goes(data: st.DataObject) -> None:
    """Objects of all sorts under any limit: what must stay stays, and all else goes if it must."""
    sorts = data.draw(
        st.lists(
            st.sampled_from(["fetched", "own", "committed", "open", "pinned", "not on remote", "other size"]),
            max_size=14,
        )
    )
    bound = data.draw(st.integers(1, 15))
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        cache = Cache(Path(directory))
        made: list[tuple[str, Oid]] = []
        for number, sort in enumerate(sorts):
            content = b"%d" % number
            oid = cache.put(content) if sort == "own" else cache.fetch(content)
            made.append((sort, oid))
            path = cache.path(oid)
            if sort == "committed":
                with closing(Ledger(cache.root, create=False)) as ledger:
                    assert ledger.commit_ended([oid])
            elif sort == "open":
                stack.callback(Lease(path).close)
            elif sort == "pinned":
                os.link(path, cache.root / f"pin-{number}")
            elif sort == "not on remote":
                del cache.remote[oid]
            elif sort == "other size":
                cache.remote[oid] += 1
        counted = sum(sort not in ("own", "committed") for sort in sorts)
        free = sorts.count("fetched")
        outcome = sweep(cache, Limits(size=bound * BLOCK)).outcome
        assert all(cache.path(oid).exists() for sort, oid in made if sort != "fetched")
        over = max(0, counted - bound)
        assert outcome.objects == min(over, free)
        assert outcome.finished == (over <= free)
        left = [oid for sort, oid in made if sort == "fetched" and cache.path(oid).exists()]
        assert len(left) == free - outcome.objects
        assert rows(cache) == {oid for sort, oid in made if sort not in ("own", "committed")} - {
            oid for sort, oid in made if not cache.path(oid).exists()
        }


class Crash(BaseException):
    """The process dies here."""


@pytest.mark.parametrize("where", ["unlink", "disown", "after disown"])
@pytest.mark.parametrize("call", range(3))
def test_a_crash_at_any_point(cache: Cache, monkeypatch: pytest.MonkeyPatch, where: str, call: int) -> None:
    own = cache.put(b"own")
    made = [cache.fetch(b"%d" % number) for number in range(4)]
    left = call

    def count_down() -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise Crash

    unlink, disown = os.unlink, Ledger.disown

    def dying_unlink(*arguments: Any, **named: Any) -> None:
        count_down()
        unlink(*arguments, **named)

    def dying_disown(self: Ledger, oids: Any) -> None:
        if where == "disown":
            raise Crash
        disown(self, oids)
        raise Crash

    with monkeypatch.context() as patch:
        if where == "unlink":
            patch.setattr("store.keeping.deleting.os.unlink", dying_unlink)
        else:
            patch.setattr(Ledger, "disown", dying_disown)
        with pytest.raises(Crash):
            sweep(cache, Limits(size=1))
    gone = {oid for oid in made if not cache.path(oid).exists()}
    assert len(gone) == (call if where == "unlink" else 4)
    assert cache.path(own).exists()
    # The next one finds its way, and fetched again it is ours again.
    outcome = sweep(cache, Limits(size=1)).outcome
    assert outcome.finished
    assert rows(cache) == set()
    assert cache.path(own).exists()
    again = cache.fetch(b"0")
    assert rows(cache) == {again}


def test_nothing_goes_while_a_commit_counts_on_it(cache: Cache) -> None:
    oid = cache.fetch(b"data")
    with keep_away_eviction(cache.root, 1.0) as held:
        assert held
        outcome = sweep(cache, Limits(size=1)).outcome
        assert (outcome.objects, outcome.kept) == (0, {"busy": 1})
    assert cache.path(oid).exists()
    assert sweep(cache, Limits(size=1)).outcome.objects == 1


def test_a_commit_does_not_wait_for_ever(cache: Cache) -> None:
    with sole(cache.root, EVICTING) as alone, keep_away_eviction(cache.root, 0.0) as held:
        assert alone
        assert not held


def test_a_commit_in_the_middle_keeps_what_it_names(cache: Cache) -> None:
    made = [cache.fetch(b"%d" % number) for number in range(3)]
    with closing(Ledger(cache.root)) as ledger:
        work = Sweep(ledger, ())
        work.begin(Limits(size=1))
        batch = work.next_batch()
        assert batch is not None
        with closing(Ledger(cache.root, create=False)) as command:
            assert command.commit_ended([made[1]])
        work.drop(batch, set(made))
    assert [cache.path(oid).exists() for oid in made] == [False, True, False]


def test_only_the_file_that_was_meant_is_deleted(cache: Cache, tmp_path: Path) -> None:
    """Whoever shares the cache may have put something else there."""
    link, longer, behind, directory = (cache.fetch(b"%d" % number) for number in range(4))
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_bytes(b"0")
    cache.path(link).unlink()
    cache.path(link).symlink_to(precious / "file")
    cache.path(longer).chmod(0o600)
    cache.path(longer).write_bytes(b"something else")
    moved = cache.path(behind).parent.rename(precious / "moved")
    cache.path(behind).parent.symlink_to(moved)
    cache.path(directory).unlink()
    cache.path(directory).mkdir()
    outcome = sweep(cache, Limits(size=1)).outcome
    assert (outcome.objects, outcome.kept) == (0, {"other": 4})
    assert (precious / "file").read_bytes() == b"0"
    assert (moved / behind.digest[2:]).read_bytes() == b"2"
    assert cache.path(longer).read_bytes() == b"something else"


def test_what_was_removed_by_others_is_forgotten(cache: Cache) -> None:
    gone, here = cache.fetch(b"0"), cache.fetch(b"1")
    cache.path(gone).unlink()
    outcome = sweep(cache, Limits(size=BLOCK)).outcome
    assert (outcome.objects, outcome.finished) == (0, True)
    assert rows(cache) == {here}


def test_objects_and_other_kinds_share_the_budget(cache: Cache, tmp_path: Path) -> None:
    derived = tmp_path / "cache/fusefs/derived"
    old, new = derived / "a/old", derived / "new"
    old.parent.mkdir(parents=True)
    for path, used in ((old, 50), (new, 10_000)):
        path.write_bytes(b"d")
        os.utime(path, (used, used))
    made = [cache.fetch(b"%d" % number) for number in range(3)]
    kind = Files("derived", cache.root, "fusefs/derived", max_age=0)
    outcome = sweep(cache, Limits(size=3 * BLOCK), kind).outcome
    assert (outcome.objects, outcome.others, outcome.finished) == (1, 1, True)
    assert not old.exists()
    assert new.exists()
    assert [cache.path(oid).exists() for oid in made] == [False, True, True]


def test_what_was_not_used_for_long_goes_without_limits(cache: Cache, tmp_path: Path) -> None:
    own = tmp_path / "own"
    (own / "trees").mkdir(parents=True)
    now = 10 * AGE
    paths = {name: own / "trees" / f"{name}.tree" for name in ("old", "held", "new")}
    for name, path in paths.items():
        path.write_bytes(b"tree")
        used = now - AGE + (10 if name == "new" else -10)
        os.utime(path, (used, used))
    (own / "trees/other").write_bytes(b"no tree")
    os.utime(own / "trees/other", (0, 0))
    fetched = cache.fetch(b"data")
    lease = Lease(paths["held"])
    outcome = sweep(
        cache, Limits(), *kinds_of_user(own), *kinds_of_cache(cache.root), clock=lambda: now
    ).outcome
    lease.close()
    assert (outcome.others, outcome.objects) == (1, 0)
    assert [name for name, path in paths.items() if path.exists()] == ["held", "new"]
    assert (own / "trees/other").exists()
    assert cache.path(fetched).exists()


def test_room_on_the_disk(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    made = [cache.fetch(b"%d" % number) for number in range(5)]
    monkeypatch.setattr("store.keeping.sweep.free_bytes", lambda _: 10 * BLOCK)
    outcome = sweep(cache, Limits(free=12 * BLOCK)).outcome
    assert (outcome.objects, outcome.finished) == (2, True)
    assert [cache.path(oid).exists() for oid in made] == [False, False, True, True, True]


def test_the_room_of_a_cache_that_is_still_to_be_made(tmp_path: Path) -> None:
    """It is made when the first object comes, and that is to have been asked whether there is room."""
    assert free_bytes(tmp_path / "not/there") > 0
    (tmp_path / "file").touch()
    assert free_bytes(tmp_path / "file/in/it") == -1


def test_what_was_just_read_in_an_order_goes_first_and_what_is_read_next_stays(cache: Cache) -> None:
    made = [cache.fetch(b"%d" % number) for number in range(12)]
    window = Window(Limits(), int)
    for oid in made[:2]:  # the least recently used
        window.want(oid)
    spent = [made[8], made[10], made[6]]
    others = [Oid(f"{number:032x}") for number in range(LATEST)]
    for oid in (*spent, *others):  # the latest may still be open, and those here are no objects at all
        window.spend(oid)
    with closing(Ledger(cache.root)) as ledger:
        work = Sweep(ledger, (), foresight=window)
        for keep, gone in ((10, spent[:2]), (8, [*spent, made[2]]), (3, [*made[2:11]])):
            work.begin(Limits(size=keep * BLOCK))
            while (batch := work.next_batch()) is not None:
                work.drop(batch, set(cache.remote))
            assert work.outcome.finished
            assert {oid for oid in made if not cache.path(oid).exists()} == set(gone)
        work.begin(Limits(size=1))
        while (batch := work.next_batch()) is not None:
            work.drop(batch, set(cache.remote))
        assert not work.outcome.finished
        assert rows(cache) == set(made[:2])
