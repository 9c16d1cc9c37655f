"""Printing an array of JSON objects while they are found: one a line, the first before the last is known."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any


def print_array(objects: Iterable[Mapping[str, Any]]) -> None:
    """Print the objects. After an error half-way the array stays open, so that nobody takes it for whole."""
    before = "["
    for described in objects:
        print(f"{before}\n{json.dumps(described)}", end="")
        before = ","
    print("[]" if before == "[" else "\n]")
