"""One archive from a directory: the same bytes for the same files, whoever packs them and when.

Callers: `era_fixtures.isolated`. Blocking; one thread.
"""

from __future__ import annotations

import io
import lzma
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

EPOCH: Final = 1_577_836_800
"""2020-01-01: the time of every file, plus its rank among those whose age has a meaning."""

# Left by releases where they tried what a file system can do; the names are random.
_TEMPORARY = re.compile(r"\.[A-Za-z0-9_-]{22}\.tmp")


def pack(directory: Path, names: list[str], archive: Path) -> None:
    """Write the entries `names` of `directory` into `archive` (tar.xz, sorted, owned by nobody known).

    Of a run cache the newest entry of a key holds, so the order of those files' times is kept.
    """
    paths = sorted(path for name in names for path in _walk(directory, name))
    runs = [path for path in paths if "runs" in Path(path).parts and (directory / path).is_file()]
    runs.sort(key=lambda path: ((directory / path).stat().st_mtime_ns, path))
    ranks = {path: rank for rank, path in enumerate(runs)}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path in paths:
            member = _member(directory / path, path)
            member.mtime = EPOCH + ranks.get(path, 0)
            if member.isreg():
                with open(directory / path, "rb") as file:
                    tar.addfile(member, file)
            else:
                tar.addfile(member)
    archive.write_bytes(lzma.compress(buffer.getvalue(), preset=9 | lzma.PRESET_EXTREME))


def _member(path: Path, name: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.mode = path.lstat().st_mode & 0o777
    if path.is_symlink():
        member.type, member.linkname = tarfile.SYMTYPE, str(path.readlink())
    elif path.is_dir():
        member.type = tarfile.DIRTYPE
    else:
        member.size = path.stat().st_size
    return member


def _walk(directory: Path, path: str) -> Iterator[str]:
    yield path
    if (directory / path).is_dir() and not (directory / path).is_symlink():
        for child in (directory / path).iterdir():
            if not _TEMPORARY.fullmatch(child.name):
                yield from _walk(directory, f"{path}/{child.name}")
