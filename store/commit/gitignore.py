"""Keeps committed data out of git: a line in the `.gitignore` beside it, as `dvc add` writes it.

Whether git ignores or tracks something is for git to say; where it cannot be asked (not installed,
or the repository is somebody else's), the lines of the file decide. Used by `version`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

from store.errors import InputError
from store.syncing import write_all

_TIMEOUT: Final = 30.0


def refuse_tracked(root: Path, data: Path, metafile: Path) -> None:
    """Raise `InputError` where git holds `data`, or ignores `metafile`: git or DVC, not both."""
    name = os.path.relpath(data, root)
    if _ask_git(root, ["ls-files", "-z", "--", f":(literal){name}"]):
        raise InputError(f"{str(data)!r} is tracked by git already; run: git rm -r --cached {name!r}")
    if is_ignored(root, metafile):
        raise InputError(f"{str(metafile)!r} is ignored by git, so the version could not be committed there")


def is_ignored(root: Path, path: Path) -> bool:
    """Whether git says that it ignores `path`."""
    return bool(_ask_git(root, ["check-ignore", "-z", "--stdin"], os.fsencode(path) + b"\0"))


def ignore(root: Path, data: Path) -> bool:
    """See that git ignores `data`, which lies in the repository at `root`; whether a line was added.

    Raises `InputError` where the `.gitignore` cannot be written.
    """
    if is_ignored(root, data):
        return False
    line = _pattern(data.name)
    path = data.parent / ".gitignore"
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        is_new = not path.exists()
        with open(os.open(path, flags, 0o666), "r+b", buffering=0) as file:
            if is_new and os.geteuid() == 0:
                owner = path.parent.stat()
                os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
            content = file.read()
            entry = line.encode() + b"\n"
            if entry in content.splitlines(keepends=True):
                return False
            try:
                write_all(file.fileno(), entry if not content or content.endswith(b"\n") else b"\n" + entry)
            except BaseException:  # half a line would hide something else
                file.truncate(len(content))
                if is_new:
                    path.unlink()
                raise
    except OSError as error:
        raise InputError(f"cannot write {str(path)!r}: {error.strerror}") from None
    return True


def _pattern(name: str) -> str:
    """The line for a name beside the file: DVC's, but for what git takes for the line's end."""
    line = GitIgnoreSpecPattern.escape(f"/{name}").replace("\n", "?")
    if line.endswith("\r"):
        line = f"{line[:-1]}?"
    kept = line.rstrip(" ")
    return kept + "\\ " * (len(line) - len(kept))


def _ask_git(root: Path, arguments: Sequence[str], data: bytes = b"") -> bytes:
    """What git prints; nothing where it fails or is not there."""
    git = shutil.which("git")
    if not git:
        return b""
    # Of the repository's own settings, those that would start programs are switched off.
    command = [git, "-C", os.fspath(root), "-c", "core.fsmonitor=false", *arguments]
    env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(
            command, input=data, capture_output=True, env=env, timeout=_TIMEOUT, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return b""
    return done.stdout if done.returncode == 0 else b""
