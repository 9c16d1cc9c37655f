"""`Check`: a remote held against its logs: what is lost, damaged or in no log; open transactions, a new base.

    logs read → objects listed → logs read again → damage found by hashes → [mended] → ends → base

Only what was in the logs before the listing goes into the base (`store.oplog.bases`), and only that is
covered by it: whatever others do meanwhile stands beside it, in logs of its own. Objects are never removed
here: a transaction that died is ended by what is there. As long as something is lost no base forgets it,
unless that is wished.

Caller: `fusefs remote fsck`. Blocking; the caller's thread watches, others work.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Collection, Iterable, Sequence

from store.contents.names import CATALOGUE, WHOLE, parse_key
from store.errors import (
    CacheUnusable,
    RemoteDenied,
    RemoteError,
    RemoteMissing,
)
from store.layouts import object_path
from store.oid import Oid
from store.oplog.bases import write_base
from store.oplog.content_files import IN_NO_LOG, NO_INDEX, is_content
from store.oplog.holdings import Holdings, Key, Open
from store.oplog.inspection import JOBS, Inspection
from store.oplog.logs import Kind, Log, LogName, Record, format_oid, parse_oid, write_log
from store.oplog.mending import Mender
from store.oplog.report import Finding, Report, What, Wishes
from store.oplog.transactions import Journal, is_running
from store.pushing.asking import Patience
from store.pushing.crew import Crew
from store.remotes.remote import Remote
from store.tree import UNKNOWN


class Check:
    """One check of one remote. `report` is filled as it goes on."""

    def __init__(
        self,
        remote: Remote,
        journal: Journal,
        mender: Mender,
        wishes: Wishes,
        tick: Callable[[], object] = lambda: None,
    ) -> None:
        self.report = Report()
        self._remote = remote
        self._journal = journal
        self._mender = mender
        self._wishes = wishes
        self._crew = Crew(tick)
        self._patience = Patience(self._crew)
        self._inspection = Inspection(remote, self._crew, self._patience, self.report)
        self._lock = threading.Lock()
        self._repaired = ""

    def run(self) -> None:
        """Check, and mend where that was wished.

        Raises `RemoteError` where the remote cannot be asked, or does not take what is to be put."""
        journal, key = self._journal, self._journal.key
        logs = self._read_logs()
        before = journal.copies.settle(key)
        there = self._inspection.look(before)
        self._run(journal.refresh)
        after = journal.copies.settle(key)
        report = self.report
        report.objects, report.bytes = len(there), sum(max(size, 0) for size in there.values())
        moved = self._inspection.moved
        known = {**dict.fromkeys([*before.unsure, *moved], UNKNOWN), **before.there}
        report.known = sum(key in known for key in there)
        told = {*after.there, *after.unsure, *moved}
        strays = [key for key in there if key not in told]
        report.strays = [oid for _, name in strays if (oid := parse_oid(name)) is not None]
        elsewhere = {name for _, name in there}
        missing = [k for k in before.there if k not in there and k in told]
        lost = [k for k in missing if not (is_content(k) and k[1] in elsewhere)]
        sizes = ((k, size, before.there.get(moved.get(k, k), UNKNOWN)) for k, size in there.items())
        doubted = [k for k, size, logged in sizes if logged not in (UNKNOWN, size)]
        damaged = self._inspection.find_damaged(list(there) if self._wishes.deep else doubted)
        strange = self._find_strange(there, damaged) if self._wishes.deep else set()
        catalogues = self._inspection.find_lost_catalogues(there, deep=self._wishes.deep)
        report.corrected = sum(key not in damaged for key in doubted)
        self._note(lost, "lost", "it is not there")
        self._note(damaged, "damaged", "its bytes are others than its name says")
        self._note(strange, "damaged", "it can be read, but its archive is not as it was written")
        report.findings += catalogues
        still_open = {one.begin.name.transaction for one in after.open}
        opened = [one for one in before.open if one.begin.name.transaction in still_open]
        ended = self._end_dead(opened, there, {log.name for log in logs if log.fault})
        adopted = self._find_stray_files(told)
        repaired = self._repair(before) if self._wishes.repair and report.findings else {}
        base = {k: size for k, size in there.items() if k in known and k not in damaged}
        if self._wishes.adopt:
            base.update((k, there[k]) for k in strays if k not in damaged)
            base.update(adopted)
            report.adopted, report.strays = len(report.strays) + len(adopted), []
        open_findings = sum(not finding.mended for finding in report.findings)
        if open_findings and not self._wishes.forget:
            report.notes.append("no base is written as long as objects are lost or damaged")
        else:
            try:
                faulty = {fault.partition(": ")[0] for fault in before.faults}
                sound = [log for log in logs if str(log.name) not in faulty]
                done = [*ended, *([self._name("end", self._repaired)] if self._repaired else [])]
                torn = self._torn(logs) if self._wishes.end_all else []
                report.base = write_base(journal, {**base, **repaired}, sound, before.latest, done, torn)
            except RemoteDenied as error:
                report.notes.append(f"{error}; no base was written")
        report.notes += [fault for fault in after.faults if fault not in report.notes]
        report.notes += [note for note in journal.notes if note not in report.notes]

    def _read_logs(self) -> list[Log]:
        """All logs; those whose copies cannot be read as the remote has them now."""
        journal = self._journal
        self._run(journal.refresh)
        logs = list(journal.copies.logs(journal.key))
        faulty = [str(log.name) for log in logs if log.fault and not log.is_newer]
        if faulty and self._remote.can_list:
            with contextlib.suppress(CacheUnusable):
                journal.copies.forget(journal.key, faulty)
            self._run(journal.refresh)
            logs = list(journal.copies.logs(journal.key))
        return logs

    def _torn(self, logs: Iterable[Log]) -> list[LogName]:
        """Those that tell nobody anything, and that nobody is writing."""
        return [log.name for log in logs if log.fault and not log.is_newer and self._is_dead(log.name)]

    def _name(self, kind: Kind, transaction: str) -> LogName:
        writer = self._journal.writer
        return LogName(kind, writer.project, writer.access, transaction)

    def _find_strange(self, there: Collection[Key], damaged: Collection[Key]) -> set[Key]:
        """What is in archives that are damaged beside their members."""
        known = {path for path, _ in damaged}
        strange = self._inspection.find_strange_archives([key for key in there if key[0] not in known])
        return {key for key in there if key[0] in strange}

    def _run(self, work: Callable[[], object]) -> None:
        """In a thread, so that the caller can be interrupted."""
        self._crew.run([work])

    def _note(self, keys: Iterable[Key], what: What, said: str) -> None:
        for path, name in sorted(keys):
            oid = parse_oid(name)
            if oid is not None:
                self.report.findings.append(Finding(oid, what, said, path))

    def _find_stray_files(self, told: Collection[Key]) -> dict[Key, int]:
        """Note what of content directories is in no log; what logs are to tell of it from now on."""
        strays, adopted = self._inspection.find_strays(told, adopt=self._wishes.adopt)
        if self.report.running:
            # A begin does not know yet which archives and parts there will be.
            strays = [one for one in strays if one.said not in (IN_NO_LOG, NO_INDEX)]
            adopted = {}
        self.report.stray_files = strays
        return adopted

    def _end_dead(
        self, opened: Sequence[Open], there: dict[Key, int], torn: Collection[LogName]
    ) -> list[LogName]:
        """End transactions that nobody works on any more: what they planned and is there they have done.

        Whoever ends his own just now is right, and an end that was torn is none."""
        ended = []
        for one in opened:
            name = one.begin.name
            if not self._is_dead(name):
                self.report.running.append(name.transaction)
                continue
            done = [record for planned in one.begin.records for record in _done(planned, there)]
            end = LogName("end", name.project, name.access, name.transaction)
            data = write_log(Log(end, one.begin.after, done))
            if not self._journal.put(str(end), data, if_absent=end not in torn):
                continue
            self.report.ended.append(name.transaction)
            ended.append(name)
        return ended

    def _is_dead(self, name: LogName) -> bool:
        if self._wishes.end_all:
            return not is_running(self._journal.writer.state, name.transaction)
        return self._journal.is_dead(name)

    def _repair(self, before: Holdings) -> dict[Key, int]:
        """Mend what was found; what is there in the end."""
        journal = self._journal
        mended: dict[Key, int] = {}
        by_path: dict[str, list[Finding]] = {}
        catalogues: list[Finding] = []
        for finding in self.report.findings:
            if _is_catalogue(finding.path):
                catalogues.append(finding)
            else:
                by_path.setdefault(finding.path, []).append(finding)
        with journal.running() as transaction:
            found = [finding for some in by_path.values() for finding in some]
            keys = {key for one in found for key in (_key(one), _plain_key(one.oid))}
            journal.begin(transaction, before.latest, [Record("PUT", *key) for key in sorted(keys)])

            def mend(findings: Sequence[Finding]) -> None:
                put = self._mend_content(findings, before)
                if put is None:
                    put = {}
                    for finding in findings:
                        put.update(self._mend_object(finding))
                with self._lock:
                    mended.update(put)

            def mend_catalogue(finding: Finding) -> None:
                finding.mended, put = self._mender.mend_catalogue(finding.oid, self._remote)
                with self._lock:
                    mended.update(put)

            try:
                self._crew.each(list(by_path.values()), mend, JOBS)
                # They tell where all is by now.
                self._crew.each(catalogues, mend_catalogue, 1)
            finally:
                done = [Record("PUT", path, name, size) for (path, name), size in sorted(mended.items())]
                journal.end(transaction, before.latest, done)
        self._repaired = transaction
        return mended

    def _mend_content(self, findings: Sequence[Finding], before: Holdings) -> dict[Key, int] | None:
        """Mend what lies at one key of a content directory; None where it is to be mended as objects are."""
        first = findings[0]
        place = parse_key(first.path)
        if place is None:
            return None
        is_damaged = any(finding.what == "damaged" for finding in findings)
        mender = self._mender.of_contents(self._remote, self._patience, self._crew)
        found = mender.mend(place, damaged=is_damaged)
        if found is None:
            return None
        source, files = found
        for finding in findings:
            finding.mended = source
        return files | {_key(one): before.there.get(_key(one), UNKNOWN) for one in findings}

    def _mend_object(self, finding: Finding) -> dict[Key, int]:
        """Put a content back whole; or, where it was a part of something that cannot be made again, in DVC's
        place, where all who read look for it. Raises `RemoteError`, `CacheUnusable`."""
        place = parse_key(finding.path)
        is_whole = place is not None and place.file == WHOLE
        key = _key(finding) if is_whole else _plain_key(finding.oid)
        try:
            source, size = self._mender.mend(finding.oid, self._remote, self._patience, self._crew, key[0])
        except (CacheUnusable, RemoteError) as error:
            finding.said = f"{finding.said}; {error}"
            if not isinstance(error, RemoteMissing):
                raise
            return {}
        finding.mended = source
        return {key: size}


def _done(planned: Record, there: dict[Key, int]) -> Collection[Record]:
    """What must have been done of what was planned."""
    key = (planned.path, planned.oid)
    if planned.op == "PUT" and key in there:
        return [Record("PUT", planned.path, planned.oid, there[key])]
    if planned.op == "DELETE" and key not in there:
        return [planned]
    return []


def _is_catalogue(path: str) -> bool:
    place = parse_key(path)
    return place is not None and place.file == CATALOGUE


def _key(finding: Finding) -> Key:
    return finding.path, format_oid(finding.oid)


def _plain_key(oid: Oid) -> Key:
    return object_path(oid), format_oid(oid)
