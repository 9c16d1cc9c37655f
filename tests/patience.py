"""Waiting for what another process does, and what nobody tells of."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

SECONDS: Final = 60.0
PAUSE: Final = 0.01


def until(is_so: Callable[[], object], what: Callable[[], str] | str = "it") -> None:
    """Wait until something is so; fail with `what` if it never is. A file that it looks into may be away."""
    end = time.monotonic() + SECONDS
    never = threading.Event()
    while not _is(is_so):
        said = what if isinstance(what, str) else what()
        assert time.monotonic() < end, f"it does not happen: {said}"
        never.wait(PAUSE)


def _is(is_so: Callable[[], object]) -> bool:
    try:
        return bool(is_so())
    except FileNotFoundError:
        return False
