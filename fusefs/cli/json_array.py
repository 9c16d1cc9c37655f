"""Printing an array of JSON objects while they are found: one a line, the first before the last is known."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any


class ArrayPrinter:
    """Prints objects as they are added. Without `end` the array stays open: nobody takes it for whole."""

    def __init__(self) -> None:
        self._before = "["

    def add(self, described: Mapping[str, Any]) -> None:
        print(f"{self._before}\n{json.dumps(described)}", end="")
        self._before = ","

    def end(self) -> None:
        print("[]" if self._before == "[" else "\n]")


def print_array(objects: Iterable[Mapping[str, Any]]) -> None:
    """Print all objects. After an error half-way the array stays open."""
    printer = ArrayPrinter()
    for described in objects:
        printer.add(described)
    printer.end()
