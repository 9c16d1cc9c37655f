"""`fusefs cache verify` and `repair`: reading objects again, with a bar, and mending what went bad."""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
from contextlib import closing
from typing import Any, Final

from fusefs.cli import print_error
from fusefs.cli.commit import TerminalProgress, format_size
from fusefs.logs import escape
from fusefs.opened_remotes import open_remotes
from store.dvc.project import Project
from store.keeping.repair import Repair
from store.keeping.scrub import Found, Scrub, State, list_objects
from store.ledger import Ledger
from store.oid import Oid

_CHECKED_AT_ONCE: Final = 256
"""Objects whose check is written down together: an interrupted one goes on behind them."""


def verify(options: argparse.Namespace, ledger: Ledger, _: Project) -> int:
    corrupt, counted = _scrub(options, ledger)
    owned = {record.oid for record in ledger.find([found.oid for found in corrupt])}
    if options.json:
        print(json.dumps({**counted, "corrupt": [_describe_found(one, one.oid in owned) for one in corrupt]}))
    else:
        for found in corrupt:
            print(_show(found, found.oid in owned))
        print(_summarize_scrub(counted, len(corrupt)))
    return 1 if corrupt else 0


def repair(options: argparse.Namespace, ledger: Ledger, project: Project) -> int:
    corrupt, counted = _scrub(options, ledger)
    records = ledger.find([found.oid for found in corrupt])
    owned = {record.oid for record in records}
    repaired = []
    if records:
        with (
            open_remotes(project, ledger.cache, options.remote, print_error, trust=options.trust) as remotes,
            closing(Repair(ledger, remotes)) as work,
        ):
            repaired = work.run(records)
    others = [found for found in corrupt if found.oid not in owned]
    failed = [one for one in repaired if one.failure]
    if options.json:
        done = [
            {"oid": str(one.record.oid), "remote": one.remote or None, "failure": one.failure or None}
            for one in repaired
        ]
        corrupt_others = [_describe_found(found, False) for found in others]
        print(json.dumps({**counted, "repaired": done, "corrupt": corrupt_others}))
    else:
        for one in repaired:
            what = f"not fetched again: {one.failure}" if one.failure else f"fetched again from {one.remote}"
            print(escape(f"{one.record.oid}  put aside, {what}"))
        for found in others:
            print(_show(found, False))
        print(_summarize_scrub(counted, len(corrupt)))
    return 1 if failed or others else 0


def _scrub(options: argparse.Namespace, ledger: Ledger) -> tuple[list[Found], dict[str, int]]:
    """What is corrupt, and how much was read."""
    if options.all:
        sizes = {record.oid: record.size for record in ledger.by_check()}
        objects: list[tuple[Oid, int | None]] = [
            (oid, sizes.get(oid)) for oid, _ in list_objects(ledger.cache)
        ]
        total = sum(size for _, size in list_objects(ledger.cache))
    else:
        records = list(ledger.by_check())
        objects = [(record.oid, record.size) for record in records]
        total = sum(record.size for record in records)
    watched = not options.json and sys.stderr.isatty()
    watch = _Watch(TerminalProgress() if watched else None, len(objects), total)
    corrupt: list[Found] = []
    sound: list[Oid] = []
    counted = {"objects": 0, "bytes": 0, "gone": 0}
    try:
        with closing(Scrub(ledger.cache, os.cpu_count() or 1, watch.advance).run(objects)) as results:
            for found in results:
                if found.state is State.GONE:
                    counted["gone"] += 1
                    continue
                counted["objects"] += 1
                counted["bytes"] += found.size
                watch.finish_one()
                if found.state is State.SOUND:
                    sound.append(found.oid)
                else:
                    corrupt.append(found)
                if len(sound) >= _CHECKED_AT_ONCE:
                    ledger.checked(sound)
                    sound.clear()
    finally:
        ledger.checked(sound)
        watch.end()
    return corrupt, counted


class _Watch:
    """Progress from several threads to one bar."""

    def __init__(self, bar: TerminalProgress | None, files: int, size: int) -> None:
        self._bar = bar
        self._mutex = threading.Lock()
        self._files = self._bytes = 0
        if bar:
            bar.begin(files, size)

    def advance(self, size: int) -> None:
        with self._mutex:
            self._bytes += size
            if self._bar:
                self._bar.update(self._files, self._bytes)

    def finish_one(self) -> None:
        with self._mutex:
            self._files += 1

    def end(self) -> None:
        if self._bar:
            self._bar.end()


def _describe_found(found: Found, owned: bool) -> dict[str, Any]:
    return {
        "oid": str(found.oid),
        "algorithm": found.oid.algorithm,
        "bytes": found.size,
        "detail": found.detail,
        "fetched": owned,
    }


def _show(found: Found, owned: bool) -> str:
    remedy = "" if owned else "; fusefs did not fetch it: restore it, or remove it and `dvc fetch`"
    return escape(f"{found.oid}  corrupt: {found.detail}{remedy}")


def _summarize_scrub(counted: dict[str, int], corrupt: int) -> str:
    plural = "s" * (counted["objects"] != 1)
    return f"{counted['objects']} object{plural} read, {format_size(counted['bytes'])}, {corrupt} corrupt"
