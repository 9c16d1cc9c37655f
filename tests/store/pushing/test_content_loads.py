"""What a push puts together, and where it knows contents to be."""

from __future__ import annotations

import pytest

from store.contents import archiving
from store.contents.names import ARCHIVE, PARTS_INDEX, WHOLE, ContentName
from store.layouts import object_path
from store.oid import MD5_DOS2UNIX, Oid
from store.pushing import content_loads
from store.pushing.content_loads import batches_of, groups_of
from store.pushing.content_places import PLAIN, Places
from store.pushing.lacking import Item


def oid(number: int, algorithm: str = "md5") -> Oid:
    return Oid(f"{number:032x}", algorithm=algorithm)


def test_archives_are_of_one_algorithm_and_of_more_than_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archiving, "ARCHIVE_BYTES", 4 << 10)
    items = [Item(oid(number), 500) for number in range(9)]
    old = [Item(oid(number, MD5_DOS2UNIX), 500) for number in range(2)]
    groups = groups_of([items[0], old[0], *items[1:], old[1]])
    assert [group.items for group in groups] == [items[:4], items[4:8], old]  # the ninth is alone
    assert [group.size for group in groups] == [2000, 2000, 1000]


def test_few_large_contents_are_cut_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content_loads, "CUT_AT_ONCE", 10)
    sizes = [[item.size for item in some] for some in batches_of(Item(oid(n), n) for n in (20, 4, 6, 1, 9))]
    assert sizes == [[20], [4, 6], [1, 9]]
    assert list(batches_of([])) == []


def test_places_have_keys_and_a_catalogue_tells_of_those_that_are_not_plain() -> None:
    places = Places()
    archive = "ab" * 32
    for number, where in enumerate((WHOLE, PARTS_INDEX, archive, PLAIN)):
        places.note(oid(number), where, 10 + number)
    keys = [places.key(oid(number)) for number in range(4)]
    assert keys == [
        ContentName.of(oid(0)).key(WHOLE),
        ContentName.of(oid(1)).key(PARTS_INDEX),
        ContentName.of_archive(archive).key(ARCHIVE),
        object_path(oid(3)),
    ]
    assert places.find("md5", oid(9).digest) == ""
    tree = Oid("f" * 32, is_tree=True)
    told = places.catalogue(tree, [oid(number).digest for number in range(4)])
    assert (told.archives, told.whole, told.parts) == ((archive,), {oid(0).raw: 10}, {oid(1).raw: 11})
    assert places.catalogue(tree, [oid(3).digest]).is_empty and not told.is_empty
