"""`python -m fusefs.native.image_process`: makes the EROFS image of a compiled tree, for the mounts to come.

A child of the daemon, which gives back what the work takes of memory. One line of JSON on standard input says
what is to be done, a descriptor has the sizes (i64 × rows). What came of it is a line on standard output:
`{"image": PATH}`, or `{"error": …}`: then there is none, or none that may be used.
"""

from __future__ import annotations

import json
import mmap
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusefs.content_times import TIME_FIRST, TIME_SPAN
from store.cache_chain import CacheChain
from store.erofs.checking import check_lengths
from store.erofs.image import Described, write_image
from store.erofs.look import Look
from store.erofs.shelf import (
    ImageDamaged,
    find_unchecked,
    former_images,
    image_path,
    note_checked,
    open_image,
)
from store.errors import StoreError
from store.learnt_sizes import take_stamps
from store.local_cache import LocalCache
from store.tree import Tree


def answer(question: Mapping[str, Any]) -> dict[str, str]:
    """Do what is asked: `{"tree": PATH, "oid": …, "look": {…}, "caches": [PATH, …], "sizes": DESCRIPTOR}`."""
    try:
        path = Path(question["tree"])
        tree, look = Tree.open(path), Look(**question["look"])
        with mmap.mmap(question["sizes"], 0, prot=mmap.PROT_READ) as mapped:
            raw = bytes(mapped)
        image = image_path(path, raw, look, question["oid"])
        sizes = np.frombuffer(raw, np.int64)
        is_whole = _is_whole(image)
        caches = list(map(Path, question["caches"]))
        stamps = take_stamps(caches)
        _check(tree, sizes, caches, find_unchecked(image if is_whole else None, stamps))
        if not is_whole:
            for former in former_images(image):
                former.unlink(missing_ok=True)
            write_image(Described(tree, sizes, _times(tree), look, {}, question["oid"]), image)
        note_checked(image, stamps)
        return {"image": str(image)}
    except (StoreError, OSError) as error:
        return {"error": str(error)}


def _check(
    tree: Tree, sizes: NDArray[np.int64], caches: list[Path], unchecked: Mapping[str, Sequence[int]]
) -> None:
    """Hold the objects in the caches against the sizes. Raises `ObjectCorrupt`."""
    if caches:
        chain = CacheChain(*map(LocalCache, caches))
        try:
            check_lengths(tree, sizes, chain, unchecked)
        finally:
            chain.close()


def _is_whole(image: Path) -> bool:
    try:
        os.close(open_image(image))
    except (FileNotFoundError, ImageDamaged):
        return False
    return True


def _times(tree: Tree) -> NDArray[np.uint32]:
    words = np.frombuffer(tree.digest, np.uint32).reshape(tree.rows, -1)[:, 0]
    times: NDArray[np.uint32] = TIME_FIRST + words % TIME_SPAN
    return times.astype(np.uint32)


if __name__ == "__main__":
    # What is half written is removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    print(json.dumps(answer(json.loads(sys.stdin.readline()))))
