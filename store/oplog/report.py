"""What a check of a remote is to do, and what it has found and done."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from store.oid import Oid

What = Literal["lost", "damaged"]


@dataclass(slots=True)
class Finding:
    """An object that is not on the remote as the logs say."""

    oid: Oid
    what: What
    said: str
    path: str = ""
    """Where the logs say that it lies, or is a part of what lies there."""
    mended: str = ""
    """Where it was mended from."""


@dataclass(frozen=True, slots=True)
class Stray:
    """A file of a remote's that nobody has told of, or that nobody names."""

    path: str
    size: int
    """Bytes."""
    said: str


@dataclass(slots=True)
class Report:
    """What a check has found and done. Bytes are those of objects."""

    objects: int = 0
    """On the remote."""
    bytes: int = 0
    known: int = 0
    """Of them, those in the logs."""
    hashed: int = 0
    findings: list[Finding] = field(default_factory=list)
    strays: list[Oid] = field(default_factory=list)
    """Objects of the remote's, in DVC's layout, that no log tells of."""
    stray_files: list[Stray] = field(default_factory=list)
    """Files of content directories, and of uploads that have not ended."""
    adopted: int = 0
    corrected: int = 0
    """Whose size the logs had wrong."""
    ended: list[str] = field(default_factory=list)
    """Transactions that had died."""
    running: list[str] = field(default_factory=list)
    """Transactions that may be under way."""
    base: bool = False
    """A new base was written."""
    notes: list[str] = field(default_factory=list)
    can_list: bool = True


@dataclass(frozen=True, slots=True)
class Wishes:
    """What is to be done beside looking."""

    deep: bool = False
    repair: bool = False
    adopt: bool = False
    """Strays go into the base."""
    forget: bool = False
    """What is lost and was not mended is forgotten."""
    end_all: bool = False
    """All open transactions count as dead, but those that run on this machine."""
