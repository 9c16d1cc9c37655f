"""Parameter files, for `${...}` in a `dvc.yaml`: YAML, JSON, TOML and Python become one kind of value.

Numbers and booleans stay text, marked as `Plain`, because all that is ever done with them is to print
them. Python is parsed and never run; only assignments of literals count. The files belong to a
repository and are hostile: what is too large, too deep or too slow to read is refused.

Callers: `store.dvc.pipeline`. Pure functions, any thread.
"""

from __future__ import annotations

import ast
import json
import posixpath
import re
import tomllib
from collections.abc import Callable, Iterator
from typing import Final

from store.dvc.document import DEPTH_LIMIT, Mapping, Plain, Value, parse_document
from store.errors import MetafileInvalid

SIZE_LIMIT: Final = 4 << 20
"""Bytes of a parameter file; people write some hundred lines."""
CODE_LIMIT: Final = 256 << 10
"""Bytes where the parser takes a hundred times the space (Python) or the square of the time (TOML)."""

_DOTS = 256
"""Parts of one TOML key. Each costs as much time as all before it together."""
_BETWEEN_KEYS = re.compile(r"[^\w.\-\"' \t]+")


def parse_parameters(data: bytes, path: str) -> Mapping:
    """The values in the parameter file `data`, whose format its name tells; YAML if nothing does.

    Raises `MetafileInvalid`, which names the file.
    """
    suffix = posixpath.splitext(path)[1].lower()
    limit = CODE_LIMIT if suffix in (".py", ".toml") else SIZE_LIMIT
    if len(data) > limit:
        raise MetafileInvalid(f"{path} has more than {limit} bytes, too many for parameters")
    parse = _PARSERS.get(suffix)
    if not parse:
        return parse_document(data, path, mark_plain=True)
    try:
        raw = parse(data.decode())
        value = _convert(raw, 1)
    except (ValueError, SyntaxError, RecursionError, MemoryError) as error:
        # MemoryError is what Python's parser raises for an expression nested too deep.
        reason = str(error).partition("\n")[0] or "nested too deep"
        raise MetafileInvalid(f"{path} cannot be read: {reason}") from None
    if not isinstance(value, Mapping):
        raise MetafileInvalid(f"{path} is not a mapping of names to values")
    return value


def _parse_toml(text: str) -> object:
    if any(part.count(".") > _DOTS for part in _BETWEEN_KEYS.split(text)):
        raise ValueError(f"more than {_DOTS} dots in a row")
    return tomllib.loads(text)


def _parse_python(text: str) -> object:
    return dict(_assignments(ast.parse(text).body, of_self=False))


def _assignments(body: list[ast.stmt], of_self: bool) -> Iterator[tuple[str, object]]:
    """Names and literals that a module or class assigns; in `__init__` those assigned to `self`."""
    for statement in body:
        match statement:
            case (
                ast.Assign(targets=[target], value=value)
                | ast.AnnAssign(target=target, value=ast.expr() as value)
            ):
                name = _name(target, of_self)
                if name:
                    try:
                        yield name, ast.literal_eval(value)
                    except (ValueError, TypeError):  # computed: nothing that could be known
                        continue
            case ast.ClassDef():
                yield statement.name, dict(_assignments(statement.body, of_self=False))
            case ast.FunctionDef(name="__init__"):
                yield from _assignments(statement.body, of_self=True)


def _name(target: ast.expr, of_self: bool) -> str:
    match target:
        case ast.Name() if not of_self:
            return target.id
        case ast.Attribute(value=ast.Name(id="self")) if of_self:
            return target.attr
    return ""


_PARSERS: Final[dict[str, Callable[[str], object]]] = {
    ".json": json.loads,
    ".toml": _parse_toml,
    ".py": _parse_python,
}


def _convert(value: object, depth: int) -> Value:
    """What a parser gave, as `parse_document` would have given it."""
    if depth > DEPTH_LIMIT:
        raise ValueError(f"nested deeper than {DEPTH_LIMIT} levels")
    match value:
        case None:
            return None
        case bool():
            return Plain("true" if value else "false")
        case dict():
            mapping = Mapping(1)
            # Keys that are not text cannot be named in an expression.
            named = {key: below for key, below in value.items() if isinstance(key, str)}
            mapping.update({key: _convert(below, depth + 1) for key, below in named.items()})
            return mapping
        case list() | tuple():
            return [_convert(item, depth + 1) for item in value]
        case str():
            return value
        case _:
            return Plain(value)
