"""`CvatBackup`: a zip that CVAT wrote becomes a version: its media, its documents, nothing else of ours.

The files of the version are the zip's, in its folders, so that what is written of it again is the same.
Objects are durable before the manifest that names them; what ends a restore early leaves whole objects that
nothing names. Blocking; one thread and those of an `Unpacker`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO, Final

from store.backup.cvat.documents import (
    ANNOTATIONS_LIMIT,
    LIMIT,
    count_jobs,
    parse,
    version_name,
)
from store.backup.cvat.layout import ANNOTATIONS, DATA, INDEX, PROJECT, TASK, media_of, task_folders
from store.backup.cvat.unzipping import CheckedZip
from store.backup.unpacking import Unpacked, open_unpacker
from store.commit.claims import claim_objects
from store.errors import InputError
from store.local_cache import LocalCache
from store.manifest import Entry, manifest_oid, serialize_manifest
from store.oid import Oid

MAGIC: Final = (b"PK\3\4", b"PK\5\6")
"""What a zip begins with; one or the other."""

Told = Callable[[int, int], None]
"""Told how many files, and bytes of them, have been unpacked."""


@dataclass(frozen=True, slots=True)
class Version:
    """What a backup became."""

    oid: Oid
    size: int
    """Bytes of all files."""
    nfiles: int
    found: Unpacked
    warnings: tuple[str, ...]


class CvatBackup:
    """A backup of CVAT's, of a task or of a project, that is called `where` in messages."""

    def __init__(self, file: BinaryIO, where: str) -> None:
        """Raises `InputError` for what is none, or one that cannot be restored."""
        self._where = where
        self._zip = CheckedZip(file, where)
        self._members = {member.name: member for member in self._zip.members}
        self.is_project = PROJECT in self._members
        if self.is_project:
            document = self._parse(PROJECT)
            folders = task_folders(self._members)
        elif TASK in self._members:
            document = self._parse(TASK)
            folders = [""]
        else:
            raise InputError(f"{where} is a zip, and not a backup of CVAT's: it has no {TASK} or {PROJECT}")
        self.name = version_name(document, "project" if self.is_project else "task")
        self.tasks = tuple(self._name_of(folder) for folder in folders)
        self.files = [
            member for member in self._zip.members if not any(member.name == f + INDEX for f in folders)
        ]
        self.size = sum(member.size for member in self.files)

    def _name_of(self, folder: str) -> str:
        """Look at a task; its name."""
        task = self._parse(folder + TASK)
        annotations = self._read(folder + ANNOTATIONS, ANNOTATIONS_LIMIT)
        count_jobs(annotations, f"{self._where}: {folder}{ANNOTATIONS}")
        has_data = any(name.startswith(f"{folder}{DATA}/") for name in self._members)
        if not media_of(self._members, folder) and (has_data or not self.is_project):
            raise InputError(
                f"{self._where} has no media in {folder}{DATA}: a lightweight backup, whose media are in a "
                "cloud storage; have CVAT write one that is not"
            )
        return version_name(task, "task")

    def prove(self, told: Told) -> None:
        """Unpack all of it, and keep nothing. Raises `InputError`."""
        size = 0
        for number, member in enumerate(self.files, 1):
            for piece in self._zip.pieces(member):
                size += len(piece)
                told(number - 1, size)
            told(number, size)

    def restore(self, cache: LocalCache, told: Told) -> Version:
        """Make a version of it in the cache. Raises `InputError`, `CacheUnusable`, `StoreTimeout`."""
        found = Unpacked()
        digests: dict[str, str] = {}
        size = 0
        with claim_objects(cache.root) as claim, open_unpacker(cache.root, found) as unpacker:
            for number, member in enumerate(self.files, 1):
                unpacker.put(
                    member.size, self._zip.pieces(member), named=partial(digests.__setitem__, member.name)
                )
                size += member.size
                told(number, size)
            unpacker.settle()
            entries = [Entry(member.name, digests[member.name], member.size) for member in self.files]
            manifest = serialize_manifest((entry.relpath, entry.md5) for entry in entries)
            oid = manifest_oid(manifest)
            unpacker.put(len(manifest), [manifest], oid)
            unpacker.settle()
            warnings = claim(oid, entries)
        return Version(oid, size, len(entries), found, warnings)

    def _parse(self, name: str) -> dict[str, object]:
        return parse(self._read(name, LIMIT), f"{self._where}: {name}")

    def _read(self, name: str, limit: int) -> bytes:
        member = self._members.get(name)
        if member is None:
            raise InputError(f"{self._where} is not a backup of CVAT's: it has no {name}")
        return self._zip.read(member, limit)
