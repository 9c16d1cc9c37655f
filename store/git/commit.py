"""`Commit`: what a commit object says, parsed from its bytes.

The bytes were verified, so nothing depends on a repository's settings, caches or replacements.

Callers: `store.git.repository`. Pure; frozen results.

Source of the format: gitformat-commit as `git cat-file commit` prints it.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass
from typing import Final

from store.errors import ObjectCorrupt
from store.git.command import printable
from store.git.objects import is_oid

_PERSON: Final = re.compile(rb"(.*?) ?<(.*)> ?(-?\d+)?")
_SUBJECT_LIMIT: Final = 1000
_LATEST: Final = 1 << 62
"""Seconds; git itself takes what lies beyond for a mistake, and shows the epoch."""


@dataclass(frozen=True, slots=True)
class Commit:
    """A commit. The texts are one printable line each."""

    oid: str
    tree: str
    """The oid of its root directory."""
    time: int
    """When it was committed, in seconds since the epoch."""
    author: str
    """The author's name; the address where there is no name."""
    subject: str
    """The first paragraph of the message."""


def parse_commit(data: bytes, oid: str) -> Commit:
    """Parse the bytes of the commit `oid`. Raises `ObjectCorrupt` if it names no tree."""
    head, _, message = data.partition(b"\n\n")
    fields: dict[bytes, bytes] = {}
    for line in head.split(b"\n"):
        name, _, value = line.partition(b" ")
        fields.setdefault(name, value)  # continued lines begin with a space: their name is empty
    tree = fields.get(b"tree", b"").decode("ascii", "replace")
    if not is_oid(tree) or len(tree) != len(oid):
        raise ObjectCorrupt(f"git commit {oid} names no tree; the repository is damaged, try git fsck")
    encoding = _encoding(fields.get(b"encoding", b"utf-8"))
    name, address, _ = _person(fields.get(b"author", b""))
    _, _, time = _person(fields.get(b"committer", b""))
    subject = b" ".join(message.lstrip(b"\n").split(b"\n\n", 1)[0].split(b"\n"))
    return Commit(
        oid,
        tree,
        time,
        printable(_decode(name or address, encoding)),
        printable(_decode(subject, encoding).strip(), _SUBJECT_LIMIT),
    )


def _person(value: bytes) -> tuple[bytes, bytes, int]:
    """Name, address, and seconds since the epoch (0 where they make no sense)."""
    match = _PERSON.match(value)
    if match is None:
        return value, b"", 0
    digits = match[3] or b"0"
    seconds = int(digits) if len(digits) < 20 else 0
    return match[1], match[2], seconds if abs(seconds) < _LATEST else 0


def _encoding(name: bytes) -> str:
    try:
        info = codecs.lookup(name.decode("ascii", "replace"))
    except (LookupError, ValueError):
        return "utf-8"
    # Codecs that are no text encodings (zip, say) would unpack what a stranger wrote.
    return info.name if getattr(info, "_is_text_encoding", False) else "utf-8"


def _decode(data: bytes, encoding: str) -> str:
    try:
        return data.decode(encoding, "replace")
    except (LookupError, ValueError):
        return data.decode("utf-8", "replace")
