"""Operation logs: what a transaction was to do to a remote, and what it has done; bytes in and out.

A log is a file of JSON lines, named `KIND==PROJECT==ACCESS==TRANSACTION.log`:

    {"log":1,"kind":"end","project":"…","access":"…","transaction":"…","after":["…"],"xxh3":"…"}
    {"op":"PUT","path":"files/md5/ab/cd…","oid":"md5:abcd…","size":20000,"xxh3":"…"}
    {"records":1,"xxh3":"…"}

`begin` tells what is planned, `end` what was done, `base` what there is after all that it was made of.
`after` names the transactions that whoever writes knew of: order follows from that and never from clocks.
Each line ends with the xxh3-64 of what it would be without it, the last one tells how many there are: a log
that was torn, or written by a newer version, is told from a whole one, and nothing in it is believed.

Logs are hostile input. They hold no secret. Pure; any thread.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

import msgspec
import xxhash

from store.errors import InputError
from store.oid import DVC_ALGORITHMS, Oid

DIRECTORY: Final = "META/logs/"
FORMAT: Final = 1
LARGEST: Final = 1 << 30
"""Bytes of a log."""
MOST_AFTER: Final = 100_000

Kind = Literal["begin", "end", "base"]
Verb = Literal["GET", "PUT", "DELETE", "HAS"]

_NAME: Final = re.compile(r"(begin|end|base)==([0-9a-f]{32})==([0-9a-f]{16})==([0-9a-f]{32})\.log")
_TRANSACTION: Final = re.compile(r"[0-9a-f]{32}")
LAST_LINE: Final = 128
"""Bytes: enough for a log's last line and the end of the one before."""
_SUM: Final = len(b',"xxh3":"0123456789abcdef"}')


@dataclass(frozen=True, slots=True)
class LogName:
    """A log's file name, in its parts."""

    kind: Kind
    project: str
    """The project's identity, 32 digits."""
    access: str
    """Who wrote it: 16 digits that a user has on one machine."""
    transaction: str
    """32 digits, which `begin` and `end` share."""

    def __str__(self) -> str:
        return f"{self.kind}=={self.project}=={self.access}=={self.transaction}.log"

    @classmethod
    def parse(cls, name: str) -> LogName | None:
        """None for a name that no log has."""
        match = _NAME.fullmatch(name)
        return None if match is None else cls(match[1], match[2], match[3], match[4])  # type: ignore[arg-type]


class Record(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, forbid_unknown_fields=False):
    """One operation: GET, PUT, DELETE; or HAS, of a base."""

    op: Verb
    path: str
    oid: str = ""
    """`algorithm:digest`, a manifest's with `.dir` behind."""
    size: int = -1
    """Bytes of the content."""


class _Head(msgspec.Struct, frozen=True, omit_defaults=True):
    log: int
    kind: Kind
    project: str
    access: str
    transaction: str
    after: list[str]
    projects: list[str] = []


class _Tail(msgspec.Struct, frozen=True):
    records: int


class _Version(msgspec.Struct, frozen=True):
    log: int


@dataclass(frozen=True, slots=True)
class Log:
    """A log. One that is not whole has a fault, and no records."""

    name: LogName
    after: tuple[str, ...] = ()
    records: Sequence[Record] = ()
    fault: str = ""
    projects: tuple[str, ...] = ()
    """Of a base: whose logs it stands for, beside its writer's."""
    is_newer: bool = False
    """Its fault is that a newer fusefs wrote it."""


def format_oid(oid: Oid) -> str:
    """An oid as records have it."""
    return f"{oid.algorithm}:{oid}"


def parse_oid(text: str) -> Oid | None:
    """The oid of a record; None where it has none that we know."""
    algorithm, _, digest = text.partition(":")
    if algorithm not in DVC_ALGORITHMS:
        return None
    try:
        return Oid.parse(digest, algorithm)
    except InputError:
        return None


def write_log(log: Log) -> bytes:
    """A log's bytes."""
    name = log.name
    after, projects = list(log.after), list(log.projects)
    head = _Head(FORMAT, name.kind, name.project, name.access, name.transaction, after, projects)
    encode = msgspec.json.Encoder().encode
    lines = [seal(encode(head)), *(seal(encode(record)) for record in log.records)]
    lines.append(seal(encode(_Tail(len(log.records)))))
    return b"\n".join(lines) + b"\n"


def read_log(name: LogName, data: bytes) -> Log:
    """A log of that name. What is wrong with it is its `fault`; nothing is raised."""
    log = Log(name)
    lines = data.split(b"\n")
    if len(lines) < 3 or lines.pop():
        return replace(log, fault="it is torn: its last line is missing")
    for number, line in enumerate(lines, 1):
        if not is_sealed(line):
            return replace(log, fault=f"line {number} is not as it was written")
    try:
        version = msgspec.json.decode(lines[0], type=_Version).log
        if version != FORMAT:
            return replace(log, fault=f"it has format {version}, which a newer fusefs wrote", is_newer=True)
        head = msgspec.json.decode(lines[0], type=_Head)
        tail = msgspec.json.decode(lines[-1], type=_Tail)
        records = msgspec.json.Decoder(Record).decode_lines(b"\n".join(lines[1:-1]))
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        return replace(log, fault=f"it is not a log: {str(error)[:200]}")
    said = LogName(head.kind, head.project, head.access, head.transaction)
    if said != name:
        return replace(log, fault=f"it says that it is {said}")
    if tail.records != len(records):
        return replace(log, fault=f"it has {len(records)} records and says {tail.records}")
    fault = _fault([*head.after, *head.projects], records)
    if fault:
        return replace(log, fault=fault)
    return replace(log, after=tuple(head.after), records=records, projects=tuple(head.projects))


def is_whole(tail: bytes) -> bool:
    """Is a log's last line there, as it was written? `tail` is what the log ends with."""
    lines = tail[-LAST_LINE:].split(b"\n")
    return len(lines) > 2 and not lines[-1] and is_sealed(lines[-2]) and lines[-2].startswith(b'{"records":')


def seal(line: bytes) -> bytes:
    """A line, which is a JSON object, with its checksum."""
    return line[:-1] + b',"xxh3":"' + xxhash.xxh3_64_hexdigest(line).encode() + b'"}'


def is_sealed(line: bytes) -> bool:
    """Is it as it was sealed?"""
    return len(line) > _SUM and seal(line[:-_SUM] + b"}") == line


def _fault(named: Sequence[str], records: Iterable[Record]) -> str:
    if len(named) > MOST_AFTER or not all(map(_TRANSACTION.fullmatch, named)):
        return "it names transactions or projects that cannot be"
    for record in records:
        if not record.path or record.path.startswith("/") or "\0" in record.path or record.size < -1:
            return f"it tells of {record.path[:100]!r}, which is no path of a remote"
    return ""
