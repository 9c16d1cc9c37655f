"""The answer to PROPFIND: what lies in a collection. Hostile input; pure functions, any thread.

Parsed part by part by expat, and nothing is built but what is wanted. A document type is refused, and with
it every entity that could grow; depth, text and number of entries have bounds.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from email.utils import parsedate_to_datetime
from typing import Final, NamedTuple
from urllib.parse import unquote, urlsplit
from xml.parsers import expat

MOST_ENTRIES: Final = 200_000
MOST_BYTES: Final = 256 << 20
DEEPEST: Final = 32
LONGEST_TEXT: Final = 1 << 16
BODY: Final = (
    b'<?xml version="1.0" encoding="utf-8"?>'
    b'<propfind xmlns="DAV:"><prop><resourcetype/><getcontentlength/><getlastmodified/></prop></propfind>'
)
"""What is asked of each entry."""
_DAV: Final = "DAV: "
_ABSOLUTE: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


class Entry(NamedTuple):
    """What a server says of one thing. `path` is decoded, without host and without a slash at its end."""

    path: str
    is_collection: bool
    size: int
    """-1 where it does not say."""
    modified: float = 0.0
    """Seconds since the epoch; 0 where it does not say."""


class ListingInvalid(Exception):
    """Not an answer to PROPFIND that could be believed."""


def parse(parts: Iterable[bytes]) -> list[Entry]:
    """Raises `ListingInvalid`, and what iterating `parts` raises."""
    reader = _Reader()
    seen = 0
    for part in parts:
        seen += len(part)
        if seen > MOST_BYTES:
            raise ListingInvalid("it is too long")
        reader.feed(part, False)
    reader.feed(b"", True)
    return reader.entries


def below(entry: Entry, base: str) -> str | None:
    """Its key below the decoded path `base`; None for `base` itself. Raises `ListingInvalid` for others."""
    if entry.path == base:
        return None
    key = entry.path.removeprefix(base + "/")
    if key == entry.path or not {"", ".", ".."}.isdisjoint(key.split("/")) or "\0" in key:
        raise ListingInvalid("it names something that does not lie there")
    return key


class _Reader:
    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self._stack: list[str] = []
        self._text = ""
        self._begin()
        self._parser = expat.ParserCreate(namespace_separator=" ")
        self._parser.buffer_text = True
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._characters
        refuse: Callable[..., None] = self._refuse
        self._parser.StartDoctypeDeclHandler = refuse
        self._parser.EntityDeclHandler = refuse

    def feed(self, data: bytes, is_last: bool) -> None:
        try:
            self._parser.Parse(data, is_last)
        except expat.ExpatError:
            raise ListingInvalid("it is no XML") from None

    def _begin(self) -> None:
        self._path = ""
        self._size = -1
        self._modified = 0.0
        self._is_collection = False

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        if len(self._stack) >= DEEPEST:
            raise ListingInvalid("it is nested too deep")
        if name == _DAV + "response":
            self._begin()
        elif name == _DAV + "collection" and self._stack[-1:] == [_DAV + "resourcetype"]:
            self._is_collection = True
        self._stack.append(name)
        self._text = ""

    def _characters(self, text: str) -> None:
        self._text += text
        if len(self._text) > LONGEST_TEXT:
            raise ListingInvalid("it has a text that is too long")

    def _end(self, name: str) -> None:
        self._stack.pop()
        text, self._text = self._text.strip(), ""
        if name == _DAV + "href" and self._stack[-1:] == [_DAV + "response"]:
            self._path = _path_of(text)
        elif name == _DAV + "getcontentlength" and text.isascii() and text.isdigit() and len(text) < 20:
            self._size = int(text)
        elif name == _DAV + "getlastmodified":
            self._modified = _time_of(text)
        elif name == _DAV + "response":
            if not self._path:
                raise ListingInvalid("it has an entry without a name")
            if len(self.entries) >= MOST_ENTRIES:
                raise ListingInvalid("it has too many entries")
            self.entries.append(Entry(self._path, self._is_collection, self._size, self._modified))

    def _refuse(self, *_: object) -> None:
        raise ListingInvalid("it has a document type")


def _time_of(text: str) -> float:
    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError):
        return 0.0


def _path_of(href: str) -> str:
    try:
        path = urlsplit(href).path if _ABSOLUTE.match(href) else href
    except ValueError:
        raise ListingInvalid("it has a name that is no URL") from None
    decoded = unquote(path, errors="surrogateescape")
    return decoded.rstrip("/") or decoded[:1]
