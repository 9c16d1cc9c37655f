r"""`${a.b[0]}`: the values of parameters in the text of a `dvc.yaml`, as DVC puts them there.

An expression that is all of a text stands for the value itself; others are printed into it, numbers
and booleans as Python prints what YAML 1.2 makes of them (`0.10` is `0.1`, `True` is `true`).
`\${` is a plain `${`. Values are not looked into again, so nothing can grow by naming itself.

Callers: `store.dvc.pipeline`. Pure functions, any thread.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from collections.abc import Mapping as AnyMapping
from typing import Final, TypeAlias

from store.dvc.document import Mapping, Plain, Value
from store.errors import MetafileInvalid

Names: TypeAlias = AnyMapping[str, Value]
"""What expressions can name."""

TEXT_LIMIT: Final = 64 << 10
"""Characters of a text with expressions, before and after; a path has some thousand at the most."""

_OPEN = "${"
_ESCAPED = r"\${"
_WORD = r"[^.\[\]]++"
# White space may stand before a dot or bracket; a word takes what is around it, and is stripped later.
_EXPRESSION = re.compile(rf"{_WORD}(?:\s*+\.{_WORD}|\s*+\[{_WORD}\])*+\s*+")
_BOOLEAN = re.compile(r"true|True|TRUE|false|False|FALSE")
_INTEGER = re.compile(r"(?!_)[-+]?(?:0b[01_]+|0o[0-7_]+|0x[0-9a-fA-F_]+|[0-9_]+)")
_FLOAT = re.compile(
    r"[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?|[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+"
    r"|[-+]?\.[0-9_]+(?:[eE][-+][0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)
_LONGEST_NUMBER = 400
"""Characters: no float has more digits before its point."""


def resolve(value: Value, context: Names) -> Value:
    """`value` with every expression in it replaced, in keys too. Raises `MetafileInvalid`."""
    if isinstance(value, Mapping):
        resolved = Mapping(value.line)
        for key, below in value.items():
            resolved[resolve_path(key, context)] = resolve(below, context)
        return resolved
    if isinstance(value, list):
        return [resolve(item, context) for item in value]
    return resolve_text(value, context) if isinstance(value, str) else value


def resolve_text(text: str, context: Names) -> Value:
    """`text` with its expressions replaced: a value of any kind if it is nothing but one expression.

    Raises `MetafileInvalid` for an expression that is none, and for one that names nothing.
    """
    if _OPEN not in text:
        return text
    if len(text) > TEXT_LIMIT:
        raise MetafileInvalid(f"a text with expressions has more than {TEXT_LIMIT} characters")
    references = list(_find_references(text))
    if len(references) == 1 and references[0][:2] == (0, len(text)):
        return _select(references[0][2], context)
    parts = []
    index = length = 0
    for start, end, expression in references:
        printed = _print(_select(expression, context), expression)
        parts += [text[index:start], printed]
        length += len(printed)
        if length > TEXT_LIMIT:
            raise MetafileInvalid(f"a text with expressions makes more than {TEXT_LIMIT} characters")
        index = end
    return "".join([*parts, text[index:]]).replace(_ESCAPED, _OPEN)


def resolve_path(text: str, context: Names) -> str:
    """`text` with its expressions replaced and printed. What has none stays as it was written."""
    return _print(resolve_text(text, context), text) if _OPEN in text else text


def has_expression(text: str) -> bool:
    """Whether anything in `text` would be replaced."""
    return _OPEN in text and any(True for _ in _find_references(text))


def render(value: str) -> str:
    """A scalar as DVC prints it: a `Plain` one may be a number or a boolean."""
    if not isinstance(value, Plain) or len(value) > _LONGEST_NUMBER:
        return value
    if _BOOLEAN.fullmatch(value):
        return value.lower()
    try:
        if _INTEGER.fullmatch(value):
            return str(_to_integer(value.replace("_", "")))
        if _FLOAT.fullmatch(value):
            return str(float(value.replace("_", "").lower().replace(".inf", "inf").replace(".nan", "nan")))
    except ValueError:  # nothing but underscores
        pass
    return str(value)


def is_boolean(value: Value) -> bool:
    """Whether YAML 1.2 makes a boolean of it."""
    return isinstance(value, Plain) and bool(_BOOLEAN.fullmatch(value))


def _to_integer(text: str) -> int:
    base = {"0b": 2, "0o": 8, "0x": 16}.get(text.lstrip("+-")[:2], 10)
    return int(text, base)


def _print(value: Value, expression: str) -> str:
    if value is None:
        return "None"
    if not isinstance(value, str):
        kind = "a mapping" if isinstance(value, Mapping) else "a list"
        raise MetafileInvalid(f"{expression[:80]!r} is {kind}, of which no path can be made")
    return render(value)


def _find_references(text: str) -> Iterator[tuple[int, int, str]]:
    """Every expression: where it begins, where it ends, what is in it. None goes over a line's end."""
    offset = 0
    for line in text.split("\n"):
        index = 0
        while (start := line.find(_OPEN, index)) >= 0:
            if start and line[start - 1] == "\\":
                index = start + 1
                continue
            end = line.find("}", start)
            if end < 0:
                break
            yield offset + start, offset + end + 1, line[start + len(_OPEN) : end]
            index = end + 1
        offset += len(line) + 1


def _select(expression: str, context: Names) -> Value:
    """The value that an expression names."""
    if not _EXPRESSION.fullmatch(expression):
        raise MetafileInvalid(f"${{{expression[:80]}}} is not an expression")
    here: Value | Names = context
    for part in expression.replace("[", ".").replace("]", "").split("."):
        key = part.strip()
        try:
            if isinstance(here, AnyMapping):
                here = here[key]
            elif isinstance(here, list):
                here = here[int(key)]
            else:
                raise KeyError(key)
        except (LookupError, ValueError):
            raise MetafileInvalid(f"${{{expression[:80]}}} names no parameter that there is") from None
    assert here is None or isinstance(here, str | list | Mapping)  # never the context: there is a part
    return here
