"""`dvc.yaml` and the `dvc.lock` beside it: bytes in, the outputs of every stage out.

`dvc.yaml` says which outputs there are and how each is kept; their hashes stand in the lock, under the
stage's name and the very same path. So every stage has to be made as DVC makes it: `${...}` replaced,
`foreach` and `matrix` unrolled to stages called `name@key`. Where that does not work, the lock alone
tells what there is, and the fault is reported.

`schema: '2.0'` is DVC 2's and 3's; DVC 1 wrote the stages at the top of the lock, without a schema.

Callers: `store.dvc.discovery`. Blocking reads (parameter files); one thread per call.
"""

from __future__ import annotations

import itertools
import math
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final, NamedTuple

from store.dvc.document import SIZE_LIMIT, Mapping, Value, parse_document
from store.dvc.fields import fault, read_mapping, read_mappings, read_text
from store.dvc.files import Files
from store.dvc.interpolation import Names, has_expression, is_boolean, render, resolve, resolve_path
from store.dvc.metafile import Output, parse_output, place_output
from store.dvc.parameter_context import CHARACTERS_A_STEP, Context, ContextReader, Work
from store.errors import MetafileInvalid

PIPELINE: Final = "dvc.yaml"
LOCK: Final = "dvc.lock"

_OUTPUTS: Final = ("outs", "metrics", "plots", "live")
_FLAGS: Final = ("cache", "push", "remote")
_JOIN: Final = "@"


class _Written(NamedTuple):
    """An output as a stage's definition has it; empty is what is not said."""

    path: str
    cache: str
    push: str
    remote: str


@dataclass(frozen=True, slots=True)
class Pipeline:
    """What a `dvc.yaml` and its lock say together. `faults`: what could not be understood, a line each."""

    outputs: tuple[Output, ...]
    faults: tuple[str, ...]


def read_pipeline(files: Files, path: str, where: str) -> Pipeline | None:
    """The outputs of the `dvc.yaml` at `path`, called `where` in messages; None if it is not there.

    Raises `MetafileInvalid` if it cannot be used at all, and never for a single stage or for the lock.
    """
    data = _read(files, path, where)
    if data is None:
        return None
    document = parse_document(data, where, mark_plain=True)
    stages = read_mapping(document, "stages", where)
    reader = _Reader(files, posixpath.dirname(path), where, document)
    for name, definition in stages.items():
        reader.add(name, definition)
        if reader.is_done:
            break
    return Pipeline(tuple(reader.outputs), tuple(reader.faults))


def read_locked(files: Files, path: str, where: str) -> tuple[Output, ...]:
    """Every output that the `dvc.lock` at `path` has a hash of, also of stages that are no more; none without
    a lock. How they are kept is not told here, nor are their directories.

    Raises `MetafileInvalid`.
    """
    stages = _read_stages(files, path, where).values()
    listed = [read_mappings(body, "outs", where) for body in stages if isinstance(body, Mapping)]
    return tuple(parse_output(out, "", where) for outs in listed for out in outs)


def _read_stages(files: Files, path: str, where: str) -> Mapping:
    """The stages of a lock; none without one. Raises `MetafileInvalid`."""
    data = _read(files, path, where)
    if data is None:
        return Mapping(1)
    document = parse_document(data, where)
    if "schema" not in document:
        return document
    if document["schema"] != "2.0":
        raise fault(document, where, "its schema is of a newer DVC than this program knows")
    return read_mapping(document, "stages", where)


def _read(files: Files, path: str, where: str) -> bytes | None:
    try:
        return files.read(path, SIZE_LIMIT)
    except OSError as error:
        raise MetafileInvalid(f"{where} cannot be read: {error.strerror}") from None


class _Reader:
    """Collects the outputs and faults of one `dvc.yaml`."""

    def __init__(self, files: Files, directory: str, where: str, document: Mapping) -> None:
        self.outputs: list[Output] = []
        self.faults: list[str] = []
        self._directory = directory
        self._where = where
        self._document = document
        self._work = Work()
        self._contexts = ContextReader(files, self._work)
        self._lock_where = where.removesuffix(PIPELINE) + LOCK
        self._lock = self._read_lock(files)

    @property
    def is_done(self) -> bool:
        """Whether more has been made than can be listed: then there is no end to it."""
        return self._work.is_done

    def add(self, name: str, definition: Value) -> None:
        """Add the outputs of a stage, or of all that it stands for."""
        made: set[str] = set()
        try:
            self._work.spend(1)
            if not isinstance(definition, Mapping):
                raise fault(self._document, self._where, "a stage that is not a mapping")
            for stage, body, context in self._unroll(name, definition):
                self._work.spend(1)
                self._add_stage(stage, body, context)
                made.add(stage)
        except MetafileInvalid as error:
            known = self._add_locked(name, definition, made)
            taken = f"; taken from {LOCK} as it stands there" if known else ""
            self.faults.append(f"{self._where}: stage {name[:80]!r}: {error}{taken}")

    @cached_property
    def _context(self) -> Context:
        """What every stage can name. Made when the first one does: a faulty `vars` may matter to none."""
        return self._contexts.read(self._document.get("vars"), self._directory)

    def _unroll(self, name: str, definition: Mapping) -> Iterator[tuple[str, Mapping, Context | None]]:
        """The stages that a definition stands for: name, definition, context (None: the common one)."""
        if "matrix" in definition:
            for key, values in self._combine(read_mapping(definition, "matrix", self._where)):
                yield f"{name}{_JOIN}{key}", definition, self._context.with_item({"item": values, "key": key})
        elif "foreach" in definition:
            template = read_mapping(definition, "do", self._where)
            for key, item, has_key in self._iterate(definition["foreach"]):
                names: dict[str, Value] = {"item": item, "key": key} if has_key else {"item": item}
                yield f"{name}{_JOIN}{key}", template, self._context.with_item(names)
        else:
            yield name, definition, None

    def _iterate(self, written: Value) -> list[tuple[str, Value, bool]]:
        """What `foreach` goes over: key, item, and whether the key is there to be named."""
        over = self._resolve(written)
        if isinstance(over, Mapping):
            return [(render(key), item, True) for key, item in over.items()]
        if not isinstance(over, list):
            raise MetafileInvalid("foreach goes over something that is neither a list nor a mapping")
        if any(isinstance(item, list | Mapping) for item in over):
            return [(str(place), item, False) for place, item in enumerate(over)]
        keys = _label(written, over)
        return [(key, item, False) for key, item in dict(zip(keys, over, strict=True)).items()]

    def _combine(self, matrix: Mapping) -> Iterator[tuple[str, Mapping]]:
        """Every combination of a matrix: its key, and its values by axis."""
        axes: list[list[tuple[str, Value]]] = []
        for axis, written in matrix.items():
            values = self._resolve(written)
            if not isinstance(values, list):
                raise MetafileInvalid(f"the axis {axis[:80]!r} of matrix is not a list")
            composite = [isinstance(value, list | Mapping) for value in values]
            labels = _label(written, values)
            named = [
                f"{axis}{place}" if is_composite else label
                for place, (is_composite, label) in enumerate(zip(composite, labels, strict=True))
            ]
            axes.append(list(zip(named, values, strict=True)))
        self._work.spend(math.prod(len(axis) for axis in axes) * (len(axes) + 1))
        combinations: dict[str, Mapping] = {}
        for combination in itertools.product(*axes):
            item = Mapping(matrix.line)
            item.update(zip(matrix, (value for _, value in combination), strict=True))
            combinations["-".join(label for label, _ in combination)] = item
        yield from combinations.items()

    def _resolve(self, written: Value) -> Value:
        return resolve(written, self._context.values)

    def _add_stage(self, stage: str, definition: Mapping, context: Context | None) -> None:
        wdir = read_text(definition, "wdir", self._where)
        written = self._read_written(definition)
        names: Names = {}
        if has_expression(wdir) or any(has_expression(text) for output in written for text in output):
            common = context or self._context
            below = posixpath.join(self._directory, resolve_path(wdir, common.values))
            names = self._contexts.extend(common, definition.get("vars"), below).values
        wdir = resolve_path(wdir, names)
        for place, output in enumerate(written):
            resolved = written[place] = _Written(*(resolve_path(text, names) for text in output))
            self._work.spend(1 + sum(map(len, (wdir, *resolved))) // CHARACTERS_A_STEP)
        locked = self._locked_outputs(stage)
        # All or none: what is left out here is taken from the lock.
        self.outputs += [self._join(stage, output, wdir, locked.get(output.path)) for output in written]

    def _read_written(self, definition: Mapping) -> list[_Written]:
        """The outputs of a stage's definition, as they are written there."""
        written: dict[str, Mapping] = {}
        for kind in _OUTPUTS:
            for item in _items(definition, kind, self._where):
                for path, flags in item.items():
                    merged = written.setdefault(path, Mapping(item.line))
                    # Plots may be listed under their file, each with flags of its own.
                    for some in flags if isinstance(flags, list) else [flags]:
                        merged.update(some if isinstance(some, Mapping) else {})
        texts = (
            (path, *(read_text(flags, key, self._where) for key in _FLAGS)) for path, flags in written.items()
        )
        return [_Written(*text) for text in texts]

    def _join(self, stage: str, written: _Written, wdir: str, locked: Mapping | None) -> Output:
        """An output with what the lock knows of it."""
        if not written.path or "\0" in written.path or "\0" in wdir:
            raise MetafileInvalid("an output without a path")
        path, external = place_output(written.path, wdir)
        output = Output(path, None, None, None, False, True, True, "", external)
        if locked is not None:
            try:
                output = parse_output(locked, wdir, self._lock_where)
            except MetafileInvalid as error:
                self.faults.append(str(error))
        return replace(
            output,
            cached=written.cache.lower() != "false",
            push=written.push.lower() != "false",
            remote=written.remote,
            stage=stage,
        )

    def _read_lock(self, files: Files) -> Mapping:
        """The stages of the lock; none where there is no lock, or none that can be read."""
        try:
            return _read_stages(files, posixpath.join(self._directory, LOCK), self._lock_where)
        except MetafileInvalid as error:
            self.faults.append(str(error))
            return Mapping(1)

    def _locked_outputs(self, stage: str) -> dict[str, Mapping]:
        """What the lock says of a stage's outputs, by path."""
        body = self._lock.get(stage)
        if not isinstance(body, Mapping):
            return {}
        outs = read_mappings(body, "outs", self._lock_where)
        return {read_text(out, "path", self._lock_where): out for out in outs}

    @cached_property
    def _locked_stages(self) -> dict[str, list[str]]:
        """The stages of the lock by what they may have been made of: `train@x` by itself and `train`."""
        groups: dict[str, list[str]] = {}
        for stage in self._lock:
            for name in dict.fromkeys((stage, stage.rpartition(_JOIN)[0])):
                groups.setdefault(name, []).append(stage)
        return groups

    def _add_locked(self, name: str, definition: Value, made: set[str]) -> bool:
        """Add what the lock says of a stage that could not be understood; whether it says anything."""
        generated = isinstance(definition, Mapping) and ("foreach" in definition or "matrix" in definition)
        template = definition.get("do") if isinstance(definition, Mapping) and generated else definition
        wdir = (template if isinstance(template, Mapping) else Mapping(1)).get("wdir")
        known = wdir if isinstance(wdir, str) and not has_expression(wdir) else ""
        before = len(self.outputs)
        for stage in self._locked_stages.get(name, []):
            if stage in made or (stage != name) != generated:
                continue
            try:
                outputs = [
                    parse_output(out, known, self._lock_where) for out in self._locked_outputs(stage).values()
                ]
            except MetafileInvalid as error:
                self.faults.append(str(error))
            else:
                self.outputs += [replace(output, stage=stage) for output in outputs]
        return len(self.outputs) > before


def _items(definition: Mapping, kind: str, where: str) -> Iterator[Mapping]:
    """The outputs under `kind` as mappings of a path to its flags."""
    listed = definition.get(kind)
    if listed is None:
        return
    for item in listed if isinstance(listed, list) else [listed]:
        if isinstance(item, Mapping):
            yield item
        elif isinstance(item, str):
            bare = Mapping(definition.line)
            bare[item] = None
            yield bare
        else:
            raise fault(definition, where, f"{kind} holds something that is neither a path nor a mapping")


def _label(written: Value, values: list[Value]) -> list[str]:
    """The part of a stage's name that each value makes, as DVC prints it.

    A boolean that comes out of a parameter is printed as Python does, `True`; one that stands there
    itself as YAML does.
    """
    itself = written if isinstance(written, list) else [""] * len(values)
    labels = []
    for text, value in zip(itself, values, strict=True):
        if is_boolean(value) and not is_boolean(text):
            labels.append(str(value).capitalize())
        else:
            labels.append("None" if value is None else render(value) if isinstance(value, str) else "")
    return labels
