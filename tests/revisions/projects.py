"""Repositories of git and DVC for the tests of revisions, and what a directory looks like to a reader.

git is the real one; what DVC would write is written by hand, from the description of the formats and
nothing of ours, because the real one takes a second for every step. Plain blocking code.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.mount.datasets import Cache, entries_of, md5

TOOL_SECONDS = 90.0

IDENTITY = {
    "GIT_AUTHOR_NAME": "Ada Author",
    "GIT_AUTHOR_EMAIL": "ada@example.org",
    "GIT_COMMITTER_NAME": "Cid Committer",
    "GIT_COMMITTER_EMAIL": "cid@example.org",
    "GIT_AUTHOR_DATE": "1700000000 +0000",
    "GIT_COMMITTER_DATE": "1700000000 +0000",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_ALLOW_PROTOCOL": "file",
}


@dataclass(frozen=True, slots=True)
class Project:
    """A work tree, its history and its cache."""

    root: Path
    cache: Cache
    environment: Mapping[str, str]

    def git(self, *arguments: str | Path, cwd: Path | None = None) -> str:
        """What git prints; it must succeed."""
        return run_tool("git", *arguments, cwd=cwd or self.root, environment=self.environment)

    def write(self, path: str, data: bytes, *, executable: bool = False) -> Path:
        """Write a file of the work tree."""
        place = self.root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
        place.chmod(0o755 if executable else 0o644)
        return place

    def track(self, path: str, content: Mapping[str, bytes] | bytes, *, executable: bool = False) -> str:
        """Make `path` an output in the cache, as `dvc add` does it; returns its oid."""
        data = {"": content} if isinstance(content, bytes) else dict(content)
        for one in data.values():
            self.cache.put(one)
        name = path.rpartition("/")[2]
        if isinstance(content, bytes):
            oid = md5(content)
            more = "  isexec: true\n" if executable else ""
        else:
            oid = self.cache.put_manifest(entries_of(data))
            more = f"  nfiles: {len(data)}\n"
        size = sum(map(len, data.values()))
        text = f"outs:\n- md5: '{oid}'\n  size: {size}\n{more}  hash: md5\n  path: {name}\n"
        metafile = self.write(f"{path}.dvc", text.encode())
        ignored = metafile.parent / ".gitignore"
        lines = ignored.read_text().splitlines() if ignored.exists() else []
        if f"/{name}" not in lines:
            ignored.write_text("".join(f"{line}\n" for line in [*lines, f"/{name}"]))
        return oid

    def commit(self, tag: str = "") -> str:
        """Commit everything; returns the commit."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", tag or "a change")
        if tag:
            self.git("tag", tag)
        return self.head

    @property
    def head(self) -> str:
        return self.git("rev-parse", "HEAD").strip()


def new_project(root: Path, environment: Mapping[str, str], *options: str) -> Project:
    """An empty repository with DVC's marks in it, committed; `options` are `git init`'s."""
    root.mkdir(parents=True)
    project = Project(root, Cache(root / ".dvc" / "cache"), {**environment, **IDENTITY})
    project.git("init", "--quiet", "--initial-branch=main", *options)
    project.write(".dvc/config", b"")
    project.write(".dvc/.gitignore", b"/config.local\n/tmp\n/cache\n")
    project.commit()
    return project


def run_tool(program: str, *arguments: str | Path, cwd: Path, environment: Mapping[str, str]) -> str:
    """What a program prints that must succeed; `dvc` is the one that was installed with us."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    assert shutil.which(program, path=path), f"{program} is not installed; scripts/setup does it"
    private = {"DVC_NO_ANALYTICS": "1", "DVC_SITE_CACHE_DIR": f"{environment['HOME']}/site"}
    done = subprocess.run(
        [program, *arguments],
        cwd=cwd,
        env={**environment, **private, "PATH": path},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="surrogateescape",
        timeout=TOOL_SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"{program} {arguments}: {done.stdout}{done.stderr}"
    return done.stdout


@dataclass(frozen=True, slots=True)
class Seen:
    """What a reader finds at a path."""

    kind: str
    """`file`, `link` or `directory`."""
    content: bytes = b""
    """A link's is its target."""
    executable: bool = False


def look(root: Path, leave_out: Sequence[str] = ()) -> dict[str, Seen]:
    """Everything below a directory; at the root, the names in `leave_out` do not count."""
    found = {}
    for here, directories, names in os.walk(os.fsencode(root), onerror=_raise):
        if here == os.fsencode(root):
            directories[:] = [name for name in directories if os.fsdecode(name) not in leave_out]
        for name in [*directories, *names]:
            place = os.path.join(here, name)
            path = os.fsdecode(os.path.relpath(place, os.fsencode(root)))
            status = os.lstat(place)
            if stat.S_ISLNK(status.st_mode):
                target = os.readlink(place)
                assert status.st_size == len(target)
                found[path] = Seen("link", target)
            elif stat.S_ISDIR(status.st_mode):
                found[path] = Seen("directory")
            else:
                with open(place, "rb") as file:
                    data = file.read()
                assert status.st_size == len(data)
                found[path] = Seen("file", data, bool(status.st_mode & stat.S_IXUSR))
    return found


def as_seen(files: Mapping[str, bytes]) -> dict[str, Seen]:
    """Plain files by path as `look` finds them, with the directories that the paths imply."""
    found = {path: Seen("file", data) for path, data in files.items()}
    for path in files:
        while path := path.rpartition("/")[0]:
            found[path] = Seen("directory")
    return found


def _raise(error: OSError) -> None:
    raise error


def state_of(root: Path) -> dict[str, tuple[int, int, int]]:
    """What a change would change: mode, length and time of change of everything below, itself included.

    Times of access and of directories' contents count too where something is made and taken away again.
    """
    places = [root, *root.rglob("*")]
    return {str(place): _stamp(place.lstat()) for place in places}


def _stamp(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_mode, status.st_size, status.st_ctime_ns
