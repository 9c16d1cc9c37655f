"""Manifests: DVC's bytes, and hostile input."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.errors import ManifestInvalid, ObjectCorrupt
from store.manifest import check_manifest, manifest_oid, parse_manifest, serialize_manifest
from store.oid import Oid

DIGEST = "4c614360da93c0a041b22e537de151eb"

# A line that DVC wrote, and its oid.
VECTOR = [
    ("😀", "4c614360da93c0a041b22e537de151eb"),
    ("a", "92eb5ffee6ae2fec3ad71c777531578f"),
    ("sub/é.txt", "7b8b965ad4bca0e41ab51de7b31363a1"),
    ("B", "7fc56270e7a70fa81a5935b72eacbe29"),
    ('a"b\\c', "d41d8cd98f00b204e9800998ecf8427e"),
]


def manifest(*paths: str) -> bytes:
    return json.dumps([{"md5": DIGEST, "relpath": path} for path in paths]).encode()


def test_bytes_are_those_of_dvc() -> None:
    data = serialize_manifest(VECTOR)
    assert len(data) == 335
    assert str(manifest_oid(data)) == "f2d7ab2e8f55fa004fc01eaa23604721.dir"


def test_an_empty_directory() -> None:
    assert str(manifest_oid(serialize_manifest([]))) == "d751713988987e9331980363e24189ce.dir"
    assert parse_manifest(b"[]", "m") == []


@given(
    st.dictionaries(
        st.text(min_size=1, max_size=40).filter(lambda t: not set(t) & set("/\0")), st.just(DIGEST)
    )
)
def test_what_is_written_is_read(files: dict[str, str]) -> None:
    files = {f"d/{name}": md5 for name, md5 in files.items() if name not in (".", "..")}
    try:
        [name.encode() for name in files]
    except UnicodeEncodeError:
        return  # surrogates that stand for no byte are refused elsewhere
    entries = parse_manifest(serialize_manifest(files.items()), "m")
    assert {entry.relpath: entry.md5 for entry in entries} == files


def test_further_keys_are_honoured_or_passed_over() -> None:
    data = json.dumps(
        [{"md5": DIGEST, "relpath": "a", "size": 7, "isexec": True, "etag": "x", "version_id": None}]
    ).encode()
    (entry,) = parse_manifest(data, "m")
    assert (entry.size, entry.isexec) == (7, True)


def test_undecodable_names_are_lone_surrogates() -> None:
    data = b'[{"md5": "%s", "relpath": "caf\\udce9"}]' % DIGEST.encode()
    (entry,) = parse_manifest(data, "m")
    assert entry.relpath.encode("utf-8", "surrogateescape") == b"caf\xe9"


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "/a",
        "a/",
        "a//b",
        ".",
        "..",
        "../a",
        "a/..",
        "a/../b",
        "./a",
        "a/.",
        "a\0b",
        "x" * 256,
        "é" * 128,
    ],
)
def test_hostile_paths_are_refused_with_their_place(path: str) -> None:
    with pytest.raises(ManifestInvalid, match="entry 2"):
        parse_manifest(manifest("fine", path), "m")


@pytest.mark.parametrize(
    "path", ["...", "..a", ".a", "a..", "a/...", "x" * 255, "é" * 127, "a\nb", "~", "a\\..\\b", "-rf"]
)
def test_odd_paths_are_legal(path: str) -> None:
    assert parse_manifest(manifest(path), "m")[0].relpath == path


def test_a_path_longer_than_any_kernel_takes() -> None:
    with pytest.raises(ManifestInvalid, match="4199 bytes"):
        parse_manifest(manifest("/".join(["y" * 99] * 42)), "m")


@pytest.mark.parametrize("md5", ["", "x", DIGEST.upper(), DIGEST + ".dir", "../../../../etc/passwd"])
def test_hostile_digests_are_refused(md5: str) -> None:
    with pytest.raises(ManifestInvalid, match="not an MD5"):
        parse_manifest(json.dumps([{"md5": md5, "relpath": "a"}]).encode(), "m")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b'[{"md5": "', "not JSON"),
        (b"{}", "not a list"),
        (b'"text"', "not a list"),
        (b"null", "not a list"),
        (b"[1]", "entry 1"),
        (b'[{"relpath": "a"}]', "md5"),
        (b'[{"md5": "%s"}]' % DIGEST.encode(), "relpath"),
        (b'[{"md5": 1, "relpath": "a"}]', "entry 1"),
        (b'[{"md5": "%s", "relpath": "a", "size": -1}]' % DIGEST.encode(), "the size of 'a'"),
        (b"[" * 100_000, "not JSON"),
    ],
)
def test_what_is_no_manifest_is_said_to_be_none(data: bytes, reason: str) -> None:
    with pytest.raises(ManifestInvalid, match=reason) as caught:
        parse_manifest(data, "the-manifest")
    assert "the-manifest" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_manifest_must_have_the_content_of_its_oid() -> None:
    data = serialize_manifest(VECTOR)
    check_manifest(data, manifest_oid(data))
    with pytest.raises(ObjectCorrupt, match="promises"):
        check_manifest(data, Oid.parse("0" * 32 + ".dir"))


def test_old_writers_stored_metadata_under_the_oid_of_the_canonical_form() -> None:
    oid = manifest_oid(serialize_manifest([("a", DIGEST)]))
    stored = json.dumps([{"size": 3, "relpath": "a", "md5": DIGEST}]).encode()
    assert manifest_oid(stored) != oid
    check_manifest(stored, oid)
