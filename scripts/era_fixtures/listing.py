"""What a directory holds, as facts that a test can compare with a mount.

Callers: `era_fixtures.workshop`. Blocking; one thread.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

Fact = dict[str, object]

# Beside what git tracks there, `.dvc` holds only what belongs to one working tree.
_PRIVATE: Final = (".git", ".dvc")


def list_tree(root: Path, git_tracked: frozenset[str]) -> dict[str, Fact]:
    """Path → fact of every file, symlink and empty directory below `root`, sorted by path.

    `git_tracked` are the paths to mark so; of what `.git` and `.dvc` directories hold only they count.
    """
    facts = {path: _fact(root / path) for path in _walk(root, "", git_tracked)}
    return {path: fact | {"git": path in git_tracked} for path, fact in sorted(facts.items())}


def _walk(root: Path, directory: str, git_tracked: frozenset[str]) -> Iterator[str]:
    empty = True
    for entry in os.scandir(root / directory):
        empty = False
        path = f"{directory}/{entry.name}" if directory else entry.name
        if entry.name in _PRIVATE:
            yield from (tracked for tracked in git_tracked if tracked.startswith(f"{path}/"))
        elif entry.is_dir(follow_symlinks=False):
            yield from _walk(root, path, git_tracked)
        else:
            yield path
    if empty and directory:
        yield directory


def _fact(path: Path) -> Fact:
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        return {"link": str(path.readlink())}
    if stat.S_ISDIR(status.st_mode):
        return {"directory": True}
    return {
        "md5": hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest(),
        "size": status.st_size,
        "executable": bool(status.st_mode & stat.S_IXUSR),
    }


def dump(snapshots: list[dict[str, object]]) -> str:
    """JSON with one line a fact, so that a change of one file is a change of one line."""
    texts = []
    for snapshot in snapshots:
        fields = {name: value for name, value in snapshot.items() if name != "files"}
        files = snapshot["files"]
        assert isinstance(files, dict)
        lines = [f"    {json.dumps(path)}: {json.dumps(fact)}" for path, fact in files.items()]
        head = [f"   {json.dumps(name)}: {json.dumps(value)}" for name, value in fields.items()]
        head.append('   "files": {\n' + ",\n".join(lines) + "\n   }")
        texts.append("  {\n" + ",\n".join(head) + "\n  }")
    return "[\n" + ",\n".join(texts) + "\n]\n"
