"""`commit`: a folder, or a file, becomes a version: objects, manifest, metafile, `.gitignore` line.

The order keeps every crash harmless: objects are durable before their names, names before the
manifest that lists them, the manifest before the metafile that people and DVC go by. Whatever
ends a commit early leaves whole objects in the cache and nothing else.

Called by the command line; blocking, one commit at a time per thread.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from store.commit.claims import claim_objects
from store.commit.gitignore import ignore
from store.commit.locks import lock_directory, lock_dvc
from store.commit.metafile import compose_metafile, content_fields, read_metafile, replace_file
from store.commit.pipeline import store_files
from store.commit.progress import Progress, Silence
from store.commit.publish import ObjectWriter, Staged, open_writer
from store.commit.scan import Found, describe_file, scan
from store.commit.staging import Hashed, Link, find_again
from store.commit.state import SETTLING_SECONDS, HashState, clock_ns, is_settled
from store.commit.target import Target, find_metafile, refuse_inner, settle_target
from store.dvc.ignore import IgnoreRules
from store.dvc.project import Kind
from store.manifest import Entry, manifest_oid, serialize_manifest
from store.oid import Oid

_PRIVATE: Final = 0o700
_AS_UMASK_SAYS: Final = 0o777


@dataclass(frozen=True, slots=True)
class CommitOptions:
    """How to commit. `cache` and `link` None: as the project's configuration says."""

    cache: Path | None = None
    link: Link | None = None
    jobs: int = 0
    """Threads that read and hash; 0: one a processor, at least two."""
    lock_timeout: float = 30.0
    """Seconds to wait for another commit or DVC command."""
    state: Path | None = None
    """The database of known hashes; None: everything is read."""


@dataclass(frozen=True, slots=True)
class Committed:
    """A version that is recorded. Sizes are in bytes."""

    oid: Oid
    metafile: Path
    entries: tuple[Entry, ...]
    """In the manifest's order, each with its size; one, under the file's name, for a single file."""
    size: int
    hashed: int
    """Files that were read; the others were known."""
    stored: int
    """Objects that the cache did not have."""
    gitignored: bool
    """A line was added to `.gitignore`."""
    warnings: tuple[str, ...]


def commit(path: Path, options: CommitOptions, progress: Progress | None = None) -> Committed:
    """Make a version of the folder or file `path`.

    Raises `InputError` and `ConfigInvalid` (what was given cannot be committed), `MetafileInvalid`
    (the `.dvc` file that is there), `LockTimeout`, `ChangedMeanwhile`, `CacheUnusable` (full, denied).
    """
    target = settle_target(path, options.cache)
    with _lock(target, options.lock_timeout):
        return _commit_locked(target, options, progress or Silence())


def _lock(target: Target, timeout: float) -> AbstractContextManager[None]:
    project = target.project
    if project.kind is Kind.DVC:
        return lock_dvc(project.root / ".dvc", timeout, hardlink=project.config.hardlink_lock)
    return lock_directory(target.source.parent, timeout)


def _commit_locked(target: Target, options: CommitOptions, progress: Progress) -> Committed:
    place = find_metafile(target)
    where = os.path.relpath(place.metafile, target.project.root)
    old = read_metafile(place.metafile)
    # Refused before the work, not after it.
    compose_metafile(old, where, place.path, content_fields(manifest_oid(b"[]"), 0, 0, False))
    files = _list_files(target)
    refuse_inner(target, [found.relpath for found in files])
    with (
        closing(HashState(options.state)) as state,
        claim_objects(target.cache) as claim,
        open_writer(
            target.cache,
            shared_with_group=target.project.config.cache_shared_group,
            new_mode=_PRIVATE if target.own_cache else _AS_UMASK_SAYS,
        ) as writer,
    ):
        stored = _store(target, files, writer, state, options, progress)
        entries = tuple(sorted(stored.entries, key=lambda entry: entry.relpath))
        objects = stored.objects
        if target.is_dir:
            manifest = serialize_manifest((entry.relpath, entry.md5) for entry in entries)
            oid = manifest_oid(manifest)
            objects += _store_manifest(writer, oid, manifest)
        else:
            oid = Oid(entries[0].md5)
        claimed = claim(oid, entries)
    size = sum(entry.size or 0 for entry in entries)
    nfiles = len(entries) if target.is_dir else None
    isexec = not target.is_dir and entries[0].isexec
    gitignored = ignore(target.git_root, target.source) if target.git_root else False
    new = compose_metafile(old, where, place.path, content_fields(oid, size, nfiles, isexec))
    if new != old:
        replace_file(place.metafile, new)
    return Committed(
        oid,
        place.metafile,
        entries,
        size,
        stored.hashed,
        objects,
        gitignored,
        (*_warnings(entries), *claimed),
    )


def _list_files(target: Target) -> list[Found]:
    source = os.fspath(target.source)
    if not target.is_dir:
        return [describe_file(source, "")]
    rules = IgnoreRules.load(target.project.root)
    return scan(source, partial(_ignores, rules.ignores, target.relpath))


def _ignores(ignores: Callable[[str, bool], bool], prefix: str, relpath: str, is_dir: bool) -> bool:
    return ignores(f"{prefix}/{relpath}", is_dir)


@dataclass(frozen=True, slots=True)
class _Stored:
    entries: list[Entry]
    hashed: int
    objects: int


def _store(
    target: Target,
    files: Sequence[Found],
    writer: ObjectWriter,
    state: HashState,
    options: CommitOptions,
    progress: Progress,
) -> _Stored:
    """See that the cache has the content of all files, reading those that are not known."""
    started = clock_ns()
    unread: list[Found] = []
    reused: list[Found] = []
    name = "" if target.is_dir else target.source.name
    entries: list[Entry] = []
    for found, md5 in zip(files, state.look_up(files), strict=True):
        if md5 and writer.has(md5, found.size):
            reused.append(found)
            entries.append(Entry(name or found.relpath, md5, found.size, found.isexec))
        else:
            unread.append(found)
    link = options.link or _configured_link(target.project.config.cache_types)
    jobs = options.jobs or max(2, os.cpu_count() or 1)
    hashed, objects = store_files(target.source, unread, writer, link, jobs, progress)
    writer.settle()
    state.remember(((item.found, item.md5) for item in hashed if not item.is_hard_link), reused, started)
    _remember_links(target.source, [item for item in hashed if item.is_hard_link], state, started)
    for item in hashed:
        found = item.found
        entries.append(Entry(name or found.relpath, item.md5, found.size, found.isexec))
    return _Stored(entries, len(hashed), objects)


def _remember_links(source: Path, linked: Sequence[Hashed], state: HashState, started: int) -> None:
    """Remember files that have become objects. That has changed their ctime, just now: a moment later no
    write can leave the same one."""
    settled = [item for item in linked if is_settled(item.found, started)]
    if settled:
        time.sleep(SETTLING_SECONDS)
        state.remember(find_again(source, settled), (), clock_ns())


def _store_manifest(writer: ObjectWriter, oid: Oid, manifest: bytes) -> int:
    """Publish the manifest, whose files are all there; how many objects were new."""
    if writer.has(str(oid), len(manifest)):
        return 0
    with open(writer.room.create("manifest"), "wb") as file:
        file.write(manifest)
    count = writer.publish([Staged("manifest", str(oid), len(manifest))])
    writer.settle()
    return count


def _configured_link(types: Sequence[str]) -> Link:
    """What `cache.type` means for storing. The folder stays as it is, so there is no symlink."""
    if types[0] == "hardlink":
        return "hardlink"
    return "reflink" if "reflink" in types else "copy"


def _warnings(entries: Sequence[Entry]) -> tuple[str, ...]:
    strange = [entry.relpath for entry in entries if not _is_utf8(entry.relpath)]
    if not strange:
        return ()
    return (
        f"{len(strange)} file names are not UTF-8, {strange[0]!r} for one: fusefs can mount them, "
        "but DVC cannot read this version",
    )


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
