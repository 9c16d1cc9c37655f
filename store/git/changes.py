"""Whether the working tree is what a commit says, without asking `git status`.

That would run the filters which a repository's attributes and configuration name. Here files are
compared as they are: a repository that converts line ends looks changed, which is the safe mistake.

Callers: `fusefs.dataset`. Blocking; any thread.
"""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path
from typing import Final

from store.git.files import GitEntry, GitFiles
from store.git.trees import Mode
from store.oid import DIGEST_BYTES, GIT_SHA1

_BLOCK: Final = 1 << 20
_SHA1_DIGITS: Final = 2 * DIGEST_BYTES[GIT_SHA1]


def find_change(files: GitFiles, work_tree: Path, below: str) -> str:
    """The first path, from the root, where the working tree differs from the commit; or nothing.

    Files that git does not track do not count. Raises what reading the repository raises.
    """
    for entry in files.entries(below):
        if entry.mode is not Mode.SUBMODULE and not _is_same(entry, work_tree / os.fsdecode(entry.path)):
            return os.fsdecode(entry.path)
    return ""


def _is_same(entry: GitEntry, path: Path) -> bool:
    try:
        status = path.lstat()
        if entry.mode is Mode.SYMLINK:
            return stat.S_ISLNK(status.st_mode) and _name(entry, os.fsencode(path.readlink())) == entry.oid
        if not stat.S_ISREG(status.st_mode) or status.st_size != entry.size:
            return False
        if bool(status.st_mode & stat.S_IXUSR) != (entry.mode is Mode.EXECUTABLE):
            return False
        hashed = _start(entry, status.st_size)
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                hashed.update(block)
    except OSError:
        return False
    return hashed.hexdigest() == entry.oid


def _name(entry: GitEntry, content: bytes) -> str:
    hashed = _start(entry, len(content))
    hashed.update(content)
    return hashed.hexdigest()


def _start(entry: GitEntry, size: int) -> hashlib._Hash:
    algorithm = "sha1" if len(entry.oid) == _SHA1_DIGITS else "sha256"
    return hashlib.new(algorithm, b"blob %d\0" % size, usedforsecurity=False)
