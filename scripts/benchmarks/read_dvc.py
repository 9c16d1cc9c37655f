"""A program: reads files through DVC's own file system and prints the seconds of two passes.

    read_dvc.py REPOSITORY LIST READERS

Each reader is a process that has opened the repository before the clock starts.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from dvc.api import DVCFileSystem


def time_pass(fs: DVCFileSystem, paths: list[str], readers: int) -> float:
    gate, opened = os.pipe()
    children = []
    for first in range(readers):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                os.close(opened)
                os.read(gate, 1)
                for path in paths[first::readers]:
                    with fs.open(path, "rb") as file:
                        file.read()
                status = 0
            finally:
                os._exit(status)
        children.append(child)
    os.close(gate)
    start = time.monotonic()
    os.close(opened)
    failed = [child for child in children if os.waitpid(child, 0)[1]]
    if failed:
        sys.exit("a reader failed")
    return time.monotonic() - start


def main() -> None:
    repository, listing, readers = sys.argv[1:]
    paths = [os.fsdecode(path) for path in Path(listing).read_bytes().split(b"\0")[:-1]]
    fs = DVCFileSystem(repository, rev="HEAD")
    fs.info(paths[0])  # loads the manifest, before the clock starts and the readers are forked
    print(*(time_pass(fs, paths, int(readers)) for _ in range(2)))


if __name__ == "__main__":
    main()
