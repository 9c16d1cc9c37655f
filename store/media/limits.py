"""Bounds that several modules hold media to."""

from __future__ import annotations

from typing import Final

LARGEST_PICTURE: Final = 1 << 28
"""Pixels: 805 MB in RGB, and what libav's decoders take at most."""
