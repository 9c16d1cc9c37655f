"""`Context`: what expressions in a `dvc.yaml` can name, and where it comes from.

In this order, none of which may redefine what an earlier one says: `params.yaml` beside the file,
its `vars` (mappings, or `file[:key1,key2]`), a stage's own `vars`; above all of them `item` and `key`
of what `foreach` and `matrix` make.

Callers: `store.dvc.pipeline`. Blocking reads; one thread per reader, contexts never change.
"""

from __future__ import annotations

import posixpath
from collections import ChainMap
from collections.abc import Mapping as AnyMapping
from dataclasses import dataclass, field
from typing import Final

from store.dvc.document import Mapping, Value
from store.dvc.files import Files
from store.dvc.interpolation import has_expression
from store.dvc.parameters import SIZE_LIMIT, parse_parameters
from store.errors import MetafileInvalid

DEFAULT_FILE: Final = "params.yaml"
WORK_LIMIT: Final = 250_000
"""Steps that one `dvc.yaml` may take: about one for an output and for a name that is merged. The
largest pipelines that people generate have some ten thousand outputs."""

CHARACTERS_A_STEP: Final = 64


class Work:
    """The steps that are left for one `dvc.yaml`: what it may make is bounded, whatever it says."""

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left = WORK_LIMIT

    @property
    def is_done(self) -> bool:
        """Whether there are no more steps."""
        return self._left < 0

    def spend(self, steps: int) -> None:
        """Raises `MetafileInvalid` once they are used up."""
        self._left -= steps
        if self._left < 0:
            raise MetafileInvalid("it makes more stages and outputs than can be listed")


@dataclass(frozen=True, slots=True)
class Context:
    """Values by name, and the files that they came from: whole (None) or some keys of them."""

    values: ChainMap[str, Value]
    files: AnyMapping[str, frozenset[str] | None] = field(default_factory=dict)
    reserved: frozenset[str] = frozenset()

    def with_item(self, names: AnyMapping[str, Value]) -> Context:
        """With `item` and `key`, which hide what had these names and cannot be redefined."""
        # In front of the others instead of among them: there may be many items.
        return Context(ChainMap(dict(names), *self.values.maps), self.files, self.reserved | frozenset(names))


class ContextReader:
    """Builds the contexts of one `dvc.yaml`; reads a parameter file once."""

    __slots__ = ("_files", "_known", "_work")

    def __init__(self, files: Files, work: Work) -> None:
        self._files = files
        self._work = work
        self._known: dict[str, Mapping] = {}

    def read(self, variables: Value, directory: str) -> Context:
        """The context of a `dvc.yaml` in `directory` whose `vars` are given. Raises `MetafileInvalid`."""
        context = Context(ChainMap())
        default = posixpath.normpath(posixpath.join(directory, DEFAULT_FILE))
        if self._files.exists(default):
            context = self._merge_file(context, DEFAULT_FILE, directory)
        return self.extend(context, variables, directory)

    def extend(self, context: Context, variables: Value, directory: str) -> Context:
        """`context` with more `vars`, whose files are relative to `directory`. Raises `MetafileInvalid`."""
        if variables is None:
            return context
        if not isinstance(variables, list):
            raise MetafileInvalid("vars is not a list")
        for item in variables:
            _refuse_expressions(item)
            if isinstance(item, Mapping):
                context = self._merge(context, item, context.files)
            elif isinstance(item, str):
                context = self._merge_file(context, item, directory)
            else:
                raise MetafileInvalid("vars holds something that is neither a file nor a mapping")
        return context

    def _merge_file(self, context: Context, item: str, directory: str) -> Context:
        name, _, listed = item.partition(":")
        path = posixpath.normpath(posixpath.join(directory, name))
        keys = frozenset(key for key in listed.split(",") if key)
        if path in context.files:
            before = context.files[path]
            if before is None and not keys:
                return context
            if before is None or not keys or before & keys:
                raise MetafileInvalid(f"vars names {item!r}, which is loaded already")
            known: frozenset[str] | None = before | keys
        else:
            known = keys or None
        values = self._read(path, item)
        if keys:
            if not keys <= values.keys():
                raise MetafileInvalid(f"vars names {item!r}, but the file does not have all of these keys")
            selected = Mapping(values.line)
            selected.update({key: value for key, value in values.items() if key in keys})
            values = selected
        return self._merge(context, values, {**context.files, path: known})

    def _read(self, path: str, item: str) -> Mapping:
        if path in self._known:
            return self._known[path]
        if path.startswith(("/", "../")):
            raise MetafileInvalid(f"vars names {item!r}, which lies outside the repository")
        try:
            data = self._files.read(path, SIZE_LIMIT)
        except OSError as error:
            raise MetafileInvalid(f"{path} cannot be read: {error.strerror}") from None
        if data is None:
            raise MetafileInvalid(f"vars names {item!r}, which does not exist")
        self._work.spend(len(data) // CHARACTERS_A_STEP)
        values = self._known[path] = parse_parameters(data, path)
        return values

    def _merge(
        self, context: Context, update: Mapping, files: AnyMapping[str, frozenset[str] | None]
    ) -> Context:
        taken = sorted(context.reserved & update.keys())
        if taken:
            raise MetafileInvalid(f"vars sets {taken[0]!r}, which foreach and matrix set")
        return Context(ChainMap(self._merged(context.values, update)), files, context.reserved)

    def _merged(self, into: AnyMapping[str, Value], update: Mapping) -> Mapping:
        """Both; mappings of one name are merged, anything else may be said only once."""
        self._work.spend(len(into) + len(update))
        merged = Mapping(update.line)
        merged.update(into)
        for key, value in update.items():
            present = into.get(key)
            if isinstance(present, Mapping) and isinstance(value, Mapping):
                merged[key] = self._merged(present, value)
            elif key in into:
                raise MetafileInvalid(f"vars sets {key[:80]!r} a second time")
            else:
                merged[key] = value
        return merged


def _refuse_expressions(value: Value) -> None:
    """As DVC: what parameters are made of cannot depend on parameters."""
    waiting = [value]
    while waiting:
        here = waiting.pop()
        if isinstance(here, Mapping):
            waiting += [*here.keys(), *here.values()]
        elif isinstance(here, list):
            waiting += here
        elif isinstance(here, str) and has_expression(here):
            raise MetafileInvalid("vars holds an expression, which DVC does not allow there")
