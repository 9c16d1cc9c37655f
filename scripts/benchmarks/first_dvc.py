"""A program: how long DVC's own file system takes until a revision's files can be listed and read.

    first_dvc.py REPOSITORY REV DIRECTORY FILE

Prints three moments of the monotonic clock, which all processes share: DVC is imported, `DIRECTORY`
and the directory of `FILE` are listed, the first byte of `FILE` is read.
"""

from __future__ import annotations

import posixpath
import sys
import time

from dvc.api import DVCFileSystem


def main() -> None:
    repository, rev, directory, path = sys.argv[1:]
    imported = time.monotonic()
    fs = DVCFileSystem(repository, rev=rev)
    for listed in (directory, posixpath.dirname(path)):
        if not fs.ls(listed, detail=False):
            sys.exit(f"{listed} is empty")
    listed_at = time.monotonic()
    with fs.open(path, "rb") as file:
        if len(file.read(1)) != 1:
            sys.exit(f"{path} is empty")
    print(imported, listed_at, time.monotonic())


if __name__ == "__main__":
    main()
