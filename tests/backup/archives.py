"""Projects that are backed up, and backups that are taken apart and put together wrongly. No tests."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.mount.datasets import filler
from tests.mount.mounts import Mounter
from tests.revisions.projects import Project, new_project

FIRST = {"a.txt": b"first\n", "deep/large": filler((5 << 20) + 3, 1), "deep/same": b"same", "empty": b""}
SECOND = {**FIRST, "a.txt": b"second\n", "new\u00e9": b"of the second alone"}
Member = tuple[tarfile.TarInfo, bytes]


@dataclass(frozen=True, slots=True)
class Backed:
    """A project and its backup."""

    project: Project
    file: Path
    oids: tuple[str, str]
    """Of `data` at v1 and v2."""


def new_versions(mounter: Mounter) -> tuple[Project, tuple[str, str]]:
    """`data` and `single` at v1 and v2."""
    project = new_project(mounter.home / "project", mounter.environment)
    oids = []
    for number, files in enumerate((FIRST, SECOND), 1):
        oids.append(project.track("data", files))
        project.track("single", b"the same in both", executable=True)
        project.commit(f"v{number}")
    return project, (oids[0], oids[1])


def back_up(mounter: Mounter, *targets: str) -> Backed:
    project, oids = new_versions(mounter)
    file = mounter.home / "backup"
    done = mounter.run("backup", *targets, file, cwd=project.root)
    assert done.returncode == 0, done.stderr
    return Backed(project, file, oids)


def members_of(file: Path) -> list[Member]:
    with tarfile.open(file) as archive:
        found = []
        for info in archive:
            content = archive.extractfile(info)
            assert content is not None
            found.append((info, content.read()))
        return found


def write_archive(file: Path, members: list[Member]) -> None:
    with tarfile.open(file, "w", format=tarfile.GNU_FORMAT) as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))


def change_header(file: Path, change: Callable[[dict[str, object]], None]) -> None:
    """Write the backup with another header."""
    members = members_of(file)
    info, data = members[0]
    described = json.loads(data)
    change(described)
    data = json.dumps(described).encode()
    info.size = len(data)
    write_archive(file, [(info, data), *members[1:]])


def there(root: Path) -> set[str]:
    """All files below a directory."""
    return {os.fspath(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
