"""Reading a document's fields as what they should be: text, numbers, booleans, lists of mappings.

Every scalar of a document is text; here it becomes what its key promises, or a `MetafileInvalid`
that names file and line. An absent key and a null are the same.

Callers: `store.dvc.metafile`, `store.dvc.import_source`, `store.dvc.pipeline`, `store.dvc.runs`.
Pure functions, any thread.
"""

from __future__ import annotations

import re
from typing import Final

from store.dvc.document import Mapping, Value
from store.errors import MetafileInvalid

_NUMBER = re.compile(r"[0-9]{1,18}", re.ASCII)
_BOOLEANS: Final = {"true": True, "false": False}


def read_mappings(mapping: Mapping, key: str, where: str) -> list[Mapping]:
    """The list of mappings under `key`; none where the key is absent or null."""
    value = mapping.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise fault(mapping, where, f"{key} is not a list")
    mappings = [item for item in value if isinstance(item, Mapping)]
    if len(mappings) != len(value):
        raise fault(mapping, where, f"{key} holds something that is not a mapping")
    return mappings


def read_mapping(mapping: Mapping, key: str, where: str) -> Mapping:
    """The mapping under `key`; an empty one where the key is absent or null."""
    value = mapping.get(key)
    if value is None:
        return Mapping(mapping.line)
    if not isinstance(value, Mapping):
        raise fault(mapping, where, f"{key} is not a mapping")
    return value


def read_text(mapping: Mapping, key: str, where: str) -> str:
    """The text under `key`; empty where the key is absent or null."""
    value: Value = mapping.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise fault(mapping, where, f"{key} is not text")
    return value


def read_number(mapping: Mapping, key: str, where: str) -> int | None:
    """The number under `key`, not negative; None where the key is absent, null or empty."""
    text = read_text(mapping, key, where)
    if not text:
        return None
    if not _NUMBER.fullmatch(text):
        raise fault(mapping, where, f"{key} is not a number of reasonable size")
    return int(text)


def read_boolean(mapping: Mapping, key: str, default: bool, where: str) -> bool:
    """What `key` says, or `default` where it is absent, null or empty."""
    text = read_text(mapping, key, where)
    if not text:
        return default
    if text.lower() not in _BOOLEANS:
        raise fault(mapping, where, f"{key} is neither true nor false")
    return _BOOLEANS[text.lower()]


def fault(mapping: Mapping, where: str, message: str) -> MetafileInvalid:
    """The error that says what is wrong with a mapping of the file `where`."""
    return MetafileInvalid(f"{where} line {mapping.line}: {message}")
