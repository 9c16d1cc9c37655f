"""YAML as DVC writes it, with every scalar left as text. Hostile input gives one line, never a hang.

DVC writes YAML 1.2, in which `path: no` and `path: 12:30:45` are text; readers of YAML 1.1 make
booleans and numbers of them, and an unquoted all-digit hash loses its zeros in either. So nothing
is guessed here: whoever knows what a key means converts it. Only a plain null is told apart, for
an absent value may be written so; and, for those who have to print a number as DVC does, on demand
whether a scalar stood there without quotes.

The library is PyYAML for its events: over libyaml they come at about 15 MB a second, where the pure
parser that DVC uses makes a fifth of one. A `dvc.lock` can have megabytes.

Callers: whatever reads metafiles, pipelines, parameters and logged runs. Pure functions, any thread.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import yaml

from store.errors import MetafileInvalid

SIZE_LIMIT: Final = 64 << 20
"""Bytes of one document: room for a list of half a million cloud-versioned files."""
DEPTH_LIMIT: Final = 64
"""Nesting; DVC's own formats need less than ten, what users hang below `meta` hardly more."""
ALIASED_NODES: Final = 10_000
"""Nodes that aliases may make of a document that has fewer bytes; else a node has a byte or more."""

_LOADER = yaml.CBaseLoader if yaml.__with_libyaml__ else yaml.BaseLoader
_NULLS = frozenset(("", "~", "null", "Null", "NULL"))
_CONFLICT = re.compile(rb"^(?:<{7}|>{7}) ", re.MULTILINE)
_MERGE_KEY = "<<"


class Mapping(dict[str, "Value"]):
    """A YAML mapping that knows the line it starts on, counted from 1."""

    __slots__ = ("line",)

    def __init__(self, line: int) -> None:
        super().__init__()
        self.line = line


class Plain(str):
    """A scalar that stood there without quotes, as numbers and booleans do: the text as written."""

    __slots__ = ()


Value: TypeAlias = "str | list[Value] | Mapping | None"


@dataclass(slots=True)
class _Open:
    """A collection whose end has not come yet."""

    content: list[Value] | Mapping
    anchor: str | None
    weight: int = 1
    key: str | None = None
    merges: list[Value] = field(default_factory=list)


def parse_document(data: bytes, where: str, *, mark_plain: bool = False) -> Mapping:
    """The mapping that the document `data`, called `where` in messages, consists of.

    With `mark_plain` every scalar without quotes is a `Plain`. An empty document is an empty mapping.
    Anchors, aliases and merge keys work as in YAML. Raises `MetafileInvalid` with the line for
    anything else: duplicate keys, conflict markers of a merge, several documents, and what is too
    large, too deep, or grows too much by its aliases.
    """
    if len(data) > SIZE_LIMIT:
        raise MetafileInvalid(f"{where} has more than {SIZE_LIMIT >> 20} MiB; DVC does not write such files")
    conflict = _CONFLICT.search(data)
    if conflict:
        line = data.count(b"\n", 0, conflict.start()) + 1
        raise MetafileInvalid(f"{where} line {line}: a merge conflict that is not resolved")
    try:
        root = _Composer(where, max(len(data), ALIASED_NODES), mark_plain).compose(data)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise MetafileInvalid(f"{where} line {line}: not YAML: {error.problem or error.context}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        # Bytes that cannot be text: the reader tells the place, not the line.
        reason = getattr(error, "reason", "not UTF-8")
        raise MetafileInvalid(f"{where} is not YAML text: {reason}") from None
    if root is None:
        return Mapping(1)
    if not isinstance(root, Mapping):
        raise MetafileInvalid(f"{where} is not a mapping of keys to values")
    return root


class _Composer:
    """Builds values from the parser's events, without recursion."""

    __slots__ = ("_anchors", "_budget", "_mark_plain", "_root", "_seen_root", "_stack", "_where")

    def __init__(self, where: str, budget: int, mark_plain: bool) -> None:
        self._where = where
        self._budget = budget
        self._mark_plain = mark_plain
        self._stack: list[_Open] = []
        self._anchors: dict[str, tuple[Value, int]] = {}
        self._root: Value = None
        self._seen_root = False

    def compose(self, data: bytes) -> Value:
        for event in yaml.parse(data, Loader=_LOADER):
            match event:
                case yaml.ScalarEvent():
                    self._add(self._scalar(event), 1, event, event.anchor)
                case yaml.MappingStartEvent():
                    self._open(Mapping(event.start_mark.line + 1), event)
                case yaml.SequenceStartEvent():
                    self._open([], event)
                case yaml.CollectionEndEvent():
                    self._close(event)
                case yaml.AliasEvent():
                    if event.anchor not in self._anchors:
                        raise self._fault(event, f"alias *{event.anchor} of nothing that is complete")
                    self._add(*self._anchors[event.anchor], event, None)
                case yaml.DocumentStartEvent() if self._seen_root:
                    raise self._fault(event, "a second document")
        return self._root

    def _scalar(self, event: Any) -> str | None:
        text: str = event.value
        if event.implicit[0]:
            if text in _NULLS:
                return None
            if self._mark_plain:
                return Plain(text)
        return text

    def _open(self, content: list[Value] | Mapping, event: Any) -> None:
        if len(self._stack) >= DEPTH_LIMIT:
            raise self._fault(event, f"nested deeper than {DEPTH_LIMIT} levels")
        if self._stack and isinstance(self._stack[-1].content, Mapping) and self._stack[-1].key is None:
            raise self._fault(event, "a key that is not text")
        self._stack.append(_Open(content, event.anchor))

    def _close(self, event: Any) -> None:
        done = self._stack.pop()
        if isinstance(done.content, Mapping):
            for merge in done.merges:
                self._merge(done.content, merge, event)
        self._add(done.content, done.weight, event, done.anchor)

    def _merge(self, target: Mapping, merge: Value, event: Any) -> None:
        """`<<: *defaults`: keys that the mapping does not have itself; of several, the first's."""
        for source in merge if isinstance(merge, list) else [merge]:
            if not isinstance(source, Mapping):
                raise self._fault(event, "a merge key (<<) of something that is not a mapping")
            for key, value in source.items():
                target.setdefault(key, value)

    def _add(self, value: Value, weight: int, event: Any, anchor: str | None) -> None:
        """Put a complete value where it belongs. `weight`: nodes in it, those behind aliases too."""
        if anchor is not None:
            self._anchors[anchor] = (value, weight)
        if not self._stack:
            self._root, self._seen_root = value, True
            return
        parent = self._stack[-1]
        parent.weight += weight
        if parent.weight > self._budget:
            raise self._fault(event, "aliases that make too much of too little")
        content = parent.content
        if not isinstance(content, Mapping):
            content.append(value)
        elif parent.key is None:
            parent.key = self._key(value, content, event)
        else:
            if parent.key == _MERGE_KEY:
                parent.merges.append(value)
            else:
                content[parent.key] = value
            parent.key = None

    def _key(self, value: Value, content: Mapping, event: Any) -> str:
        if value is None:
            return ""
        if not isinstance(value, str):
            raise self._fault(event, "a key that is not text")
        if value in content:
            raise self._fault(event, f"the key {value[:80]!r} stands here twice")
        return value

    def _fault(self, event: Any, message: str) -> MetafileInvalid:
        return MetafileInvalid(f"{self._where} line {event.start_mark.line + 1}: {message}")
