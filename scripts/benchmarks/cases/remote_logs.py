"""The logs of a remote with a million objects: where one of them is, and the sizes of all; no requests."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

from benchmarks.datasets import initialize_repository
from benchmarks.measure import Results, Target
from benchmarks.scale import Scale
from benchmarks.workshop import BenchError, Workshop
from store.layouts import object_path
from store.oid import MD5, Oid
from store.oplog.copies import LogCopies
from store.oplog.hints import Hints
from store.oplog.identities import remote_key
from store.oplog.logs import Log, LogName, Record, format_oid, write_log
from store.remotes.spec import RemoteSpec

TARGETS = (
    Target("remote where", 2, at_least=False),
    Target("sizes of all objects", 2, at_least=False),
)
AT_ONCE = 1024
"""Sizes that a mount asks for together."""


def measure_remote_logs(workshop: Workshop, scale: Scale) -> Results:
    """The remote is a directory that is not there: whoever asked it would fail."""
    results = Results(f"logs of a remote with {scale.entries} objects", "", TARGETS)
    repository = workshop.directory("repository")
    initialize_repository(workshop, repository)
    cache, gone = workshop.directory("cache"), Path("/nowhere/at/all")
    key = remote_key(RemoteSpec("gone", str(gone)))
    oids = [_oid(number) for number in range(scale.entries)]
    records = [Record("PUT", object_path(oid), format_oid(oid), n) for n, oid in enumerate(oids)]
    name = LogName("end", "1" * 32, "2" * 16, "3" * 32)
    copies = LogCopies(cache)
    copies.add(key, str(name), write_log(Log(name, (), records)))
    start = time.monotonic()
    copies.compile(key)
    results.add("once: compiling the logs", "s", "fusefs", time.monotonic() - start)
    where = ("fusefs", "remote", "where", "--cache", cache, str(oids[-1]))
    for _ in range(scale.rounds):
        results.add("remote where", "s", "fusefs", workshop.clock(*where, cwd=repository))
        results.add("sizes of all objects", "s", "fusefs", _find_sizes(cache, oids))
    return results


def _oid(number: int) -> Oid:
    return Oid(hashlib.md5(b"%d" % number, usedforsecurity=False).hexdigest())


def _find_sizes(cache: Path, oids: list[Oid]) -> float:
    """Seconds for the sizes of all, as a mount that has just begun asks for them."""
    digests = [oid.raw for oid in oids]
    start = time.monotonic()
    hints = Hints(cache)
    sizes: list[int] = []
    for first in range(0, len(digests), AT_ONCE):
        sizes += hints.sizes(digests[first : first + AT_ONCE], MD5)
    seconds = time.monotonic() - start
    if sizes != list(range(len(oids))):
        raise BenchError("the logs tell wrong sizes")
    return seconds
