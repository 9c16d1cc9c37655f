from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from store.dvc import document
from store.dvc.document import parse_document
from store.errors import MetafileInvalid


def _like_dvc(data: object) -> bytes:
    """YAML by the library and the settings that DVC writes with."""
    writer = YAML()
    writer.default_flow_style = False
    buffer = io.BytesIO()
    writer.dump(data, buffer)
    return buffer.getvalue()


NAMES = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1),
    st.from_regex(r"[0-9:e._~+\-]{1,12}", fullmatch=True),
    st.text("ab \t\n\r:#-'\"!&*?|>%@`{}[],\x85\u2028\ufeff", min_size=1, max_size=120),
    st.sampled_from(
        ["no", "on", "yes", "y", "true", "null", "~", "12:30:45", "007", "1e3", "2020-01-01", "<<", "="]
    ),
)


@given(NAMES)
def test_reads_every_name_that_dvc_writes(name: str) -> None:
    data = _like_dvc({"outs": [{"path": name}]})
    [out] = YAML(typ="safe", pure=True).load(data)["outs"]
    expected = out["path"]
    # DVC's library loses a few names that hold odd line ends on its own way back.
    if expected == name:
        assert parse_document(data, "x.dvc") == {"outs": [{"path": name}]}


def test_leaves_scalars_as_text_but_for_a_plain_null() -> None:
    data = b"a: no\nb: 0012\nc: 1.50\nd: 'null'\ne: null\nf:\ng: ~\nh: 12:30\ni: !!int '3'\n"
    assert parse_document(data, "x") == {
        "a": "no",
        "b": "0012",
        "c": "1.50",
        "d": "null",
        "h": "12:30",
        "i": "3",
        **dict.fromkeys("efg"),
    }


def test_anchors_and_merge_keys() -> None:
    data = b"a: &a {x: 1, y: 2}\nb:\n  <<: [*a, {y: 3, z: 4}]\n  x: 9\nc: *a\n"
    assert parse_document(data, "x") == {
        "a": {"x": "1", "y": "2"},
        "b": {"x": "9", "y": "2", "z": "4"},
        "c": {"x": "1", "y": "2"},
    }


def test_mappings_know_their_line() -> None:
    outs = parse_document(b"# comment\nouts:\n- path: a\n- path: b\n", "x")["outs"]
    assert isinstance(outs, list)
    assert [out.line for out in outs if isinstance(out, document.Mapping)] == [3, 4]


@pytest.mark.parametrize("data", [b"", b"# nothing\n", b"---\n", b"null\n"])
def test_an_empty_document_is_an_empty_mapping(data: bytes) -> None:
    assert parse_document(data, "x") == {}


LAUGHS = b"a: &a [x, x, x, x, x, x, x, x, x]\n" + b"".join(
    b"%c: &%c [%s]\n" % (98 + i, 98 + i, b", ".join([b"*%c" % (97 + i)] * 9)) for i in range(9)
)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"a: 1\nb: 2\na: 3\n", "x.dvc line 3: the key 'a' stands here twice"),
        (b"a: {b: 1, b: 2}\n", "x.dvc line 1: the key 'b' stands here twice"),
        (b"outs:\n<<<<<<< HEAD\n- path: a\n=======\n", "x.dvc line 2: a merge conflict"),
        (b"a: b\n>>>>>>> other\n", "x.dvc line 2: a merge conflict"),
        (b"[" * 100_000, "x.dvc line 1: nested deeper"),
        (b"- " * 100_000, "x.dvc line 1: nested deeper"),
        (b"{" * 100_000, "x.dvc line 1: "),
        (b"a: &a [*a]\n", "x.dvc line 1: alias *a"),
        (b"a: *nothing\n", "x.dvc line 1: "),
        (LAUGHS, "x.dvc line 5: aliases that make too much"),
        (b"<<: 3\n", "x.dvc line 2: a merge key"),
        (b"a: b\n---\nc: d\n", "x.dvc line 2: a second document"),
        (b"- a\n", "x.dvc is not a mapping"),
        (b"text", "x.dvc is not a mapping"),
        (b"? [a]\n: b\n", "x.dvc line 1: a key that is not text"),
        (b"? &a [a]\n: b\n", "x.dvc line 1: a key that is not text"),
        (b"a: 'open\n", "x.dvc line 2: not YAML"),
        (b"a: b: c\n", "x.dvc line 1: not YAML"),
        (b"a: \x80\n", "x.dvc is not YAML text"),
        (b"a: \0\n", "x.dvc is not YAML text"),
        (b"\xff\xfe\0", "x.dvc is not YAML text"),
    ],
)
def test_refuses_in_one_line(data: bytes, message: str) -> None:
    with pytest.raises(MetafileInvalid) as caught:
        parse_document(data, "x.dvc")
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_refuses_what_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document, "SIZE_LIMIT", 1 << 20)
    with pytest.raises(MetafileInvalid, match=r"x.dvc has more than 1 MiB"):
        parse_document(b" " * ((1 << 20) + 1), "x.dvc")


@given(st.binary(max_size=200) | st.text("ab:-?&*[]{}'\"<|>!%# \n\t", max_size=80).map(str.encode))
def test_takes_any_bytes_or_says_why_not(data: bytes) -> None:
    try:
        parse_document(data, "x.dvc")
    except MetafileInvalid as error:
        assert "\n" not in str(error)
