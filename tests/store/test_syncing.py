"""Bytes that are written in more than one call."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from store.syncing import WRITE_BYTES, write_all

DATA = os.urandom(2 * WRITE_BYTES + 10)


@pytest.mark.parametrize("taken", [7_001, WRITE_BYTES])
@pytest.mark.parametrize("kind", [bytes, memoryview])
def test_all_is_written_in_calls_that_the_kernel_has_memory_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type, taken: int
) -> None:
    really, calls = os.write, []

    def write(descriptor: int, data: memoryview) -> int:
        calls.append(len(data))
        return really(descriptor, data[:taken])

    with (tmp_path / "file").open("wb", buffering=0) as file:
        monkeypatch.setattr(os, "write", write)
        write_all(file.fileno(), kind(DATA))
        monkeypatch.undo()
    assert (tmp_path / "file").read_bytes() == DATA
    assert max(calls) == WRITE_BYTES
