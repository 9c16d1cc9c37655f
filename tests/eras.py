"""Repositories that DVC releases of every era made: unpacks them and tells what their checkout gave.

`tests/fixtures/eras/README.md` says what they hold and how they were made. Callers: tests. Each test
unpacks its own copy; nothing is shared, so any thread.
"""

from __future__ import annotations

import io
import json
import lzma
import os
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

ERAS: Final = ("0.94", "1.11", "2.58", "3", "cloud", "upgraded")

_FIXTURES = Path(__file__).parent / "fixtures" / "eras"
_EXPERIMENTS = "refs/exps/"
# Every archive is far smaller; a damaged one shall not fill a disk.
_LIMIT = 64 << 20


@dataclass(frozen=True, slots=True)
class FileFact:
    """A file, a symlink or an empty directory, as the release's own checkout made it."""

    md5: str
    """Of the bytes as they are; empty for what is no file."""
    size: int
    executable: bool
    link: str
    """A symlink's target; empty for what is none."""
    is_directory: bool
    """An empty directory; the others follow from the paths."""
    git: bool
    """Tracked by git, and not an output that only DVC keeps."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One revision of one repository, and what the release `dvc` checked out for it."""

    project: str
    """The repository's directory below the one that the fixture was unpacked into."""
    revision: str
    """A tag or a full reference; empty for a project without git."""
    about: str
    dvc: str
    files: Mapping[str, FileFact]


@dataclass(frozen=True, slots=True)
class Era:
    """An unpacked fixture.

    Beside `repository` there may be `source` (imported from), `plain` (files imported from), `remote` and
    `second remote` (where it was pushed to), `no-scm` (a project without git) and `bucket` (the versions
    that an S3 server had, as KEY/VERSION).
    """

    name: str
    directory: Path
    snapshots: tuple[Snapshot, ...]

    @property
    def repository(self) -> Path:
        """The work tree of the repository that has the tags, at HEAD, with its data."""
        return self.directory / "project"

    @property
    def no_scm(self) -> Path:
        """The project without git, with its data; not every era has one."""
        return self.directory / "no-scm"

    @property
    def tags(self) -> tuple[str, ...]:
        """In the order in which they were made."""
        return tuple(name for name in self._revisions() if not name.startswith(_EXPERIMENTS))

    @property
    def experiments(self) -> tuple[str, ...]:
        """Full references, `refs/exps/…/NAME`."""
        return tuple(name for name in self._revisions() if name.startswith(_EXPERIMENTS))

    def listing(self, revision: str) -> dict[str, FileFact]:
        """Path → fact for one of `tags` or `experiments`, or for `""`: `no_scm`. `KeyError` for others."""
        return dict({snapshot.revision: snapshot for snapshot in self.snapshots}[revision].files)

    def _revisions(self) -> list[str]:
        return [snapshot.revision for snapshot in self.snapshots if snapshot.revision]


def unpack(era: str, destination: Path) -> Era:
    """Unpack the fixture `era` (one of `ERAS`) into the directory `destination`, which is made."""
    packed = (_FIXTURES / f"{era}.tar.xz").read_bytes()
    decompressor = lzma.LZMADecompressor()
    data = decompressor.decompress(packed, _LIMIT)
    assert decompressor.eof, f"{era} is damaged"
    destination.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for member in tar:
            _extract(tar, member, destination)
    return Era(era, destination, _read_snapshots(era))


def _extract(tar: tarfile.TarFile, member: tarfile.TarInfo, destination: Path) -> None:
    """As `tarfile`'s filter `data` does it, which not every Python 3.11 has, but with modes as they were.

    DVC takes a mode of 0444 to say that an object is whole, and that filter would give 0644.
    """
    path = PurePosixPath(member.name)
    assert not path.is_absolute() and ".." not in path.parts, member.name
    target = destination / path
    assert target.parent.resolve().is_relative_to(destination.resolve()), f"{path} is behind a symlink"
    if member.isdir():
        target.mkdir()
    elif member.issym():
        link = (target.parent / member.linkname).resolve()
        assert link.is_relative_to(destination.resolve()), f"{path} leads outside"
        target.symlink_to(member.linkname)
    else:
        content = tar.extractfile(member)
        assert content is not None, f"{path} is neither file nor directory nor symlink"
        target.write_bytes(content.read())
        target.chmod(member.mode & 0o777)
        # Of the logged runs of a stage the newest holds.
        os.utime(target, (member.mtime, member.mtime))


def _read_snapshots(era: str) -> tuple[Snapshot, ...]:
    snapshots = json.loads((_FIXTURES / f"{era}.json").read_text(encoding="utf-8"))
    return tuple(
        Snapshot(**{**snapshot, "files": {path: _fact(fact) for path, fact in snapshot["files"].items()}})
        for snapshot in snapshots
    )


def _fact(fact: dict[str, Any]) -> FileFact:
    return FileFact(
        md5=fact.get("md5", ""),
        size=fact.get("size", 0),
        executable=fact.get("executable", False),
        link=fact.get("link", ""),
        is_directory=fact.get("directory", False),
        git=fact["git"],
    )
