"""`new_file`: a file that appears under its name when it is whole and on the disk, and otherwise never."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from store.ownership import OPEN_DIRECTORY

_BUFFER = 1 << 20
_FLAGS = os.O_WRONLY | os.O_CLOEXEC
_MODE = 0o600


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """A file for nobody but the user. It takes no other file's name: raises `FileExistsError`, and `OSError`.

    Until it is whole it has no name, so that nothing is left of it when we are killed; where a file system
    has no such files, it has one that begins with a dot.
    """
    directory = os.open(path.parent, OPEN_DIRECTORY & ~os.O_NOFOLLOW)
    temporary = ""
    try:
        try:
            descriptor = os.open(".", _FLAGS | os.O_TMPFILE, _MODE, dir_fd=directory)
        except OSError:
            temporary = f".{secrets.token_hex(8)}.tmp"
            descriptor = os.open(temporary, _FLAGS | os.O_CREAT | os.O_EXCL, _MODE, dir_fd=directory)
        with open(descriptor, "wb", buffering=_BUFFER) as file:
            yield file
            file.flush()
            os.fsync(descriptor)
            os.link(f"/proc/self/fd/{descriptor}", path.name, dst_dir_fd=directory, follow_symlinks=True)
        os.fsync(directory)
    finally:
        if temporary:
            os.unlink(temporary, dir_fd=directory)
        os.close(directory)
