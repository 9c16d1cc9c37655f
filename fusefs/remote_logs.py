"""The logs of remotes, for commands: who writes them, and where their copies are.

Callers: `fusefs push`, `fusefs remote`, `fusefs gc`. Blocking.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from fusefs.clones import repository_directory
from fusefs.dataset import Dataset
from fusefs.directories import state_directory
from fusefs.mount_options import parse_remote
from fusefs.place import current_directory
from fusefs.remote_homes import RemoteHomes
from store.dvc.project import Kind, Project, find_project
from store.dvc.remotes import push_remote
from store.errors import InputError, StoreError
from store.oplog import identities
from store.oplog.copies import LogCopies
from store.oplog.identities import find_access, remote_key
from store.oplog.publishing import PUBLISHED, Publication
from store.oplog.transactions import Journal, Writer, copy_logs
from store.remotes.opening import open_remote
from store.remotes.spec import DVC_LAYOUT, RemoteSpec
from store.remotes.storage import WritableStorage

SOON_SECONDS: Final = 10.0
"""For what is written to all remotes together when the work is done."""


def writer_of_dataset(dataset: Dataset) -> Writer:
    """Who pushes a dataset. Raises `InputError` for a project's file that is none."""
    below = dataset.wanted[0].root if dataset.wanted else ""
    if dataset.origin is None:
        return writer_of(current_directory())
    return _writer(repository_directory(dataset.origin.repo), below)


def writer_of(directory: Path) -> Writer:
    """Who works in the project around a directory. Raises `InputError`, `ConfigInvalid`."""
    project = find_project(directory)
    return _writer(project.root if project.kind is not Kind.NONE else directory, "")


def _writer(root: Path, below: str) -> Writer:
    state = state_directory()
    access = find_access(state)
    return Writer(identities.find_project(root, below, access), access, state)


def logged_remote(name: str, project: Project, *, trust: bool) -> RemoteSpec:
    """The remote that the user named, by its name, URL or path. Raises `InputError` for one without logs."""
    try:
        wanted = parse_remote(name)
    except ValueError as error:
        raise InputError(str(error)) from None
    homes = RemoteHomes(trust=trust)
    spec = push_remote(homes.of_project(project), wanted, homes.own)
    if spec is None or spec.layout != DVC_LAYOUT:
        raise InputError(f"the remote {name!r} keeps files by their paths, and has no logs")
    return spec


def open_journal(spec: RemoteSpec, storage: WritableStorage, cache: Path, writer: Writer) -> Journal:
    """The logs of a remote, with their copies in `cache`."""
    return Journal(LogCopies(cache), remote_key(spec), spec.name, storage, writer)


def copy_to_others(journal: Journal, logs: Sequence[tuple[str, bytes]], others: Sequence[RemoteSpec]) -> None:
    """Copies of new logs on the other remotes, as far as they take them soon: those alone that have logs of
    their own, for nothing is written to a remote that is only read. Raises nothing."""
    if not logs:
        return
    wanted = {
        remote_key(spec): spec
        for spec in others
        if spec.layout == DVC_LAYOUT and remote_key(spec) != journal.key
        and journal.copies.open(remote_key(spec)) is not None
    }  # fmt: skip

    def copy(storage: WritableStorage, key: str) -> None:
        copy_logs(storage, journal.key, logs)

    _soon(copy, wanted)


def publish_changes(dataset: Dataset) -> None:
    """Tell those of a dataset's remotes on which the user has published its cache what has changed there
    since, as far as they take it soon. Raises nothing."""
    if not (state_directory() / PUBLISHED).exists():
        return
    try:
        writer = writer_of_dataset(dataset)
    except StoreError:
        return
    wanted = {
        remote_key(spec): spec
        for spec in dataset.remotes
        if spec.layout == DVC_LAYOUT and Publication(writer, dataset.cache, remote_key(spec)).is_begun
    }

    def publish(storage: WritableStorage, key: str) -> None:
        Publication(writer, dataset.cache, key).update(storage)

    _soon(publish, wanted)


def _soon(work: Callable[[WritableStorage, str], None], remotes: Mapping[str, RemoteSpec]) -> None:
    """Write to each of the remotes, given by their keys, and wait for that for a while."""

    def write(key: str, spec: RemoteSpec) -> None:
        with contextlib.suppress(StoreError):
            remote = open_remote(spec)
            with contextlib.closing(remote.storage):
                work(remote.storage, key)

    threads = [threading.Thread(target=write, args=one, daemon=True) for one in remotes.items()]
    until = time.monotonic() + SOON_SECONDS
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(until - time.monotonic(), 0.0))
