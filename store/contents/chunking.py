"""Content-defined chunks: where a large content is cut, so that a change moves no cuts but those beside it.

FastCDC (W. Xia and others, "FastCDC: a Fast and Efficient Content-Defined Chunking Approach for Data
Deduplication", USENIX ATC 2016; the variant of 2020), by a native library. Where it cuts follows from the
bytes and the numbers below alone: other numbers, or another gear table, would share nothing with what was
pushed before.

Callers: pushes. Blocking where `read` is; any thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Protocol

from pyfastcdc import FastCDC

SMALLEST: Final = 64 << 10
AVERAGE: Final = 256 << 10
"""Bytes. Of a gigabyte with a hundred edits some 3 % are pushed again; if it were twice as much, over 5 %."""
LARGEST: Final = 1 << 20
_NORMALIZATION: Final = 2
"""How strongly lengths keep to the average."""


class Readable(Protocol):
    """What has bytes one behind the other; nothing, where it ends."""

    def readinto(self, buffer: memoryview, /) -> int: ...


def chunks(source: Readable) -> Iterator[memoryview]:
    """The chunks of all that `source` gives. A chunk's bytes are there until the next one is asked for."""
    chunker = FastCDC(AVERAGE, min_size=SMALLEST, max_size=LARGEST, normalized_chunking=_NORMALIZATION)
    for chunk in chunker.cut_stream(source):
        yield chunk.data
