"""When something in a version is said to have been changed: a date that its content's digest picks. Pure."""

from __future__ import annotations

from typing import Final

TIME_FIRST: Final = 946_684_800  # 2000-01-01T00:00:00Z
TIME_SPAN: Final = 1 << 29  # seconds, 17 years


def time_of(word: int) -> int:
    """Seconds since the epoch, for the first 32-bit word of a digest (`Tree.digest_words`)."""
    return TIME_FIRST + word % TIME_SPAN
