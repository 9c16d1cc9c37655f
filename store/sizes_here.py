"""What this machine knows of objects' lengths: its caches' files, the index of sizes, remotes' logs.

Callers: `store.size_finder` in a daemon's threads, `store.size_sweep_process` beside it. Blocking; any
thread.
"""

from __future__ import annotations

from collections.abc import Sequence

from store.cache_chain import CacheChain
from store.manifest import SIZE_MAX
from store.oplog.hints import Hints
from store.sizes import How, Learnt, Size, SizeIndex


def look_here(
    caches: CacheChain,
    index: SizeIndex,
    digests: Sequence[bytes],
    algorithm: str,
    remember: bool,
    hints: Hints | None = None,
) -> list[Size | None]:
    """The sizes that the caches, the index and the logs tell. Blocking.

    What was hashed goes before a file that lies there now, that before what a remote once said. What a file
    had that is gone is not told: it is to be asked anew.
    """
    found = caches.look_at([digest.hex() for digest in digests], algorithm)
    known = index.find(digests, algorithm)
    sizes: list[Size | None] = []
    fresh: list[Learnt] = []
    for digest, status, size in zip(digests, found, known, strict=True):
        if status is not None and (size is None or size.how is not How.HASHED):
            sizes.append(Size(status.st_size, How.STAT))
            if remember:
                fresh.append(Learnt(digest, status.st_size, How.STAT, status.st_ino, status.st_mtime_ns))
        elif size is not None and size.how is not How.STAT:
            sizes.append(size)
        else:
            sizes.append(None)
    if fresh:
        index.learn(fresh, algorithm)
    gaps = [place for place, size in enumerate(sizes) if size is None] if hints is not None else []
    if hints is not None and gaps:
        for place, told in zip(gaps, hints.sizes([digests[gap] for gap in gaps], algorithm), strict=True):
            if 0 <= told <= SIZE_MAX:
                sizes[place] = Size(told, How.REMOTE)
    return sizes
