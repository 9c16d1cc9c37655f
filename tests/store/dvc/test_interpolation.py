from __future__ import annotations

import json
from typing import Any

import pytest
from dvc.parsing.context import Context, ContextError
from dvc.parsing.interpolate import ParseError
from dvc.parsing.interpolate import to_str as print_as_dvc
from dvc.utils.serialize import parse_yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from store.dvc.document import Mapping, Plain, parse_document
from store.dvc.interpolation import TEXT_LIMIT, render, resolve, resolve_path, resolve_text
from store.errors import MetafileInvalid

YAML = b"""
name: net
empty: ""
nothing:
numbers: [0.10, 1e3, 1_000, 007, 0o17, 0x1F, 0b11, -0, +5, .5, 5., -.5e-3, 1E5, 1e-7, .inf, -.INF, .nan]
booleans: [true, True, FALSE, yes, no, on]
texts: ["1", '0.10', "true", 12:30:45, 1.2.3, _a, a_1, 1e, "x y"]
deep: {a: {b: [[1, 2], {c: d}]}, "sp ace": x, "k[": y}
"""
CONTEXT = parse_document(YAML, "params.yaml", mark_plain=True)
THEIRS = Context(parse_yaml(YAML.decode(), "params.yaml"))


def _theirs(text: str) -> object:
    """What DVC makes of a text that is to become a path; None where it refuses."""
    try:
        resolved = THEIRS.resolve(text, key="outs")
    except (ContextError, ParseError):
        return None
    return print_as_dvc(resolved)


def _ours(text: str) -> str | None:
    try:
        return resolve_path(text, CONTEXT)
    except MetafileInvalid:
        return None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("${name}", "net"),
        ("a/${name}-${numbers[0]}.txt", "a/net-0.1.txt"),
        ("${ name }", "net"),
        ("${deep.a.b[1].c}", "d"),
        ("${deep.a.b[0][1]}", "2"),
        ("${deep.a.b.0.1}", "2"),
        ("${deep.sp ace}", "x"),
        ("${numbers[-1]}", "nan"),
        (r"\${name}", "${name}"),
        (r"\${name}${name}", "${name}net"),
        ("${", "${"),
        ("${name", "${name"),
        ("}${name}{", "}net{"),
        ("$name", "$name"),
        ("${nothing}", "None"),
        ("${empty}", ""),
        ("${name\n}", "${name\n}"),
    ],
)
def test_as_dvc_does_it(text: str, expected: str) -> None:
    assert _ours(text) == expected == _theirs(text)


@pytest.mark.parametrize(
    "text",
    [
        "${}", "${ }", "${.name}", "${name.}", "${name[}", "${name]}", "${numbers[]}", "${numbers[x]}",
        "${numbers[99]}", "${gone}", "${name.x}", "${deep.gone}", "${numbers}", "${deep}", "x${deep.a}",
        "${deep.k[}", "${${name}}", "${nothing.x}",
    ],
)  # fmt: skip
def test_what_names_nothing_is_refused(text: str) -> None:
    assert _theirs(text) is None
    with pytest.raises(MetafileInvalid):
        resolve_path(text, CONTEXT)


WORDS = st.sampled_from(
    ["${", "}", "\\", "name", "numbers", "deep", "a", "b", ".", "[", "]", "0", "-1", " ", "x", "\n"]
)
PATHS = st.sampled_from(
    ["name", "numbers[0]", "numbers[2]", "booleans.1", "texts[3]", "deep.a.b[1].c", "deep. a .b[0]", "gone"]
)
TEXTS = st.lists(st.one_of(WORDS, PATHS.map(lambda path: f"${{{path}}}")), max_size=8).map("".join)


@settings(max_examples=400, deadline=None)
@given(TEXTS)
@example("${deep.a.b[0] .0}")
@example("${deep.a.b[0] }")
@example("\\\\${name}")
def test_any_text_becomes_what_dvc_makes_of_it(text: str) -> None:
    assert _ours(text) == _theirs(text)


SCALARS = st.one_of(
    st.from_regex(r"[-+]?[0-9_]{1,6}(\.[0-9_]{0,4})?([eE][-+]?[0-9]{1,2})?", fullmatch=True),
    st.from_regex(r"[-+]?\.[0-9_]{1,4}([eE][-+]?[0-9]{1,2})?", fullmatch=True),
    st.from_regex(r"[-+]?0[box][0-9a-fA-F_]{1,6}", fullmatch=True),
    st.from_regex(r"[a-zA-Z0-9_.]{1,8}", fullmatch=True),
)


@settings(max_examples=400, deadline=None)
@given(SCALARS)
@example("0b")
@example("0o8")
@example("1_")
@example("TRUE")
def test_any_plain_scalar_is_printed_as_dvc_does(text: str) -> None:
    try:
        expected = parse_yaml(f"x: {text}\n", "x")["x"]
    except ValueError:  # ruamel.yaml itself stumbles over such a number
        return
    value = parse_document(f"x: {text}\n".encode(), "x", mark_plain=True)["x"]
    printed = "None" if value is None else render(value) if isinstance(value, str) else ""
    assert printed == print_as_dvc(expected)


def test_quoted_scalars_are_text() -> None:
    values = parse_document(b"x: ['1e3', \"true\", 'null']\n", "x", mark_plain=True)["x"]
    assert values == ["1e3", "true", "null"]
    assert not any(isinstance(value, Plain) for value in values or ())


def test_values_are_resolved_in_depth_and_not_again() -> None:
    value = parse_document(b'a: ["${x}", {"k-${x}": "${y}"}, null]\n', "x")
    names = Mapping(1)
    names.update({"x": "${y}", "y": [Plain("1")]})
    assert json.loads(json.dumps(resolve(value, names))) == {"a": ["${y}", {"k-${y}": ["1"]}, None]}


@pytest.mark.parametrize(
    "text", ["${" * 100_000, "${x}" * (TEXT_LIMIT // 4 + 1), "x" * TEXT_LIMIT + "${x}", "${y}-${y}"]
)
def test_there_is_an_end_to_it(text: str) -> None:
    names: dict[str, Any] = {"x": "1", "y": "1" * TEXT_LIMIT}
    with pytest.raises(MetafileInvalid, match="characters"):
        resolve_text(text, names)


def test_many_openings_take_no_time() -> None:
    text = "${" * (TEXT_LIMIT // 2)
    assert resolve_text(text, {}) == text
