"""`Index`: every output of one DVC repository, of its working tree or at a revision.

Outputs are sorted by path, so that what lies inside another comes after it. DVC's graph refuses
such overlaps, its readers show the inner one: here they are reported, and whoever lays outputs over
one another in this order shows the inner one too.

Callers: `store.dvc.target`, `store.dvc.imports`, and what composes trees. Blocking; frozen results,
any thread.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from store.dvc.discovery import Broken, Metafile, discover
from store.dvc.files import Files, SubFiles, join
from store.dvc.import_source import ImportSource
from store.dvc.metafile import Output


@dataclass(frozen=True, slots=True)
class TrackedOutput:
    """An output and its place in the repository."""

    path: str
    """From the DVC root, `/`-separated, normalised, never leading out of it; empty for the root itself."""
    metafile: str
    """The path of the metafile, from the DVC root."""
    output: Output

    @property
    def stage(self) -> str:
        """The stage that makes it; empty for a `.dvc` file's."""
        return self.output.stage

    @property
    def source(self) -> ImportSource | None:
        """Where it was imported from."""
        return self.output.source


@dataclass(frozen=True, slots=True)
class Index:
    """What a DVC repository tracks, external outputs excepted: they have no place in it."""

    outputs: tuple[TrackedOutput, ...]
    """Sorted by path, part by part: an outer output, then those inside of it. Paths are unique."""
    broken: tuple[Broken, ...]
    """What could not be read, what lies outside, and what overlaps: a line each."""
    _places: dict[str, int] = field(init=False, repr=False, compare=False)
    _keys: list[tuple[str, ...]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        places = {tracked.path: place for place, tracked in enumerate(self.outputs)}
        object.__setattr__(self, "_places", places)
        object.__setattr__(self, "_keys", [_parts(tracked.path) for tracked in self.outputs])

    def find(self, path: str) -> tuple[TrackedOutput, str] | None:
        """The innermost output that `path` is or lies in, and what of `path` lies below it.

        `path` is normalised and relative to the DVC root. None where nothing tracks it.
        """
        above, inside = path, ""
        while True:
            place = self._places.get(above)
            if place is not None and (not inside or self.outputs[place].output.may_enclose):
                return self.outputs[place], inside
            if not above:
                return None
            above, _, name = above.rpartition("/")
            inside = join(name, inside)

    def below(self, directory: str) -> tuple[TrackedOutput, ...]:
        """The outputs that lie in `directory`, itself not among them, in order."""
        key = _parts(directory)
        first = bisect_left(self._keys, key)
        end = first
        while end < len(self._keys) and self._keys[end][: len(key)] == key:
            end += 1
        return tuple(tracked for tracked in self.outputs[first:end] if tracked.path != directory)


def read_index(files: Files, *, root: str = "") -> Index:
    """The outputs of the DVC repository at `root` of `files`.

    Raises nothing for what is wrong with single files: that stands in `Index.broken`.
    """
    found = discover(SubFiles(files, root) if root else files)
    if root:
        found = (_within(broken, root) if isinstance(broken, Broken) else broken for broken in found)
    return make_index(found)


def make_index(found: Iterable[Metafile | Broken]) -> Index:
    """The index of what a walk found."""
    broken: list[Broken] = []
    tracked: dict[str, TrackedOutput] = {}
    for metafile in found:
        if isinstance(metafile, Broken):
            broken.append(metafile)
            continue
        for candidate in _place(metafile, broken):
            other = tracked.get(candidate.path)
            if other:
                broken.append(Broken(metafile.path, _describe_twice(other, candidate)))
            # Of two, what can be shown.
            if not other or (other.output.oid is None and candidate.output.oid):
                tracked[candidate.path] = candidate
    outputs = tuple(sorted(tracked.values(), key=lambda output: _parts(output.path)))
    broken += _find_overlaps(outputs)
    return Index(outputs, tuple(broken))


def find_dvc_roots(files: Files) -> tuple[str, ...]:
    """Every directory of `files` that holds a `.dvc` directory, outer ones first; empty for the root.

    Directories that cannot be listed hold none. Walks everything but `.git` and `.dvc`.
    """
    roots = []
    waiting = [""]
    for directory in waiting:  # grows while it is walked
        try:
            names = [item.name for item in files.list(directory) if item.is_dir]
        except OSError:
            continue
        if ".dvc" in names:
            roots.append(directory)
        waiting += [join(directory, name) for name in names if name not in (".dvc", ".git")]
    return tuple(roots)


def place_outputs(metafile: Metafile) -> Iterator[TrackedOutput]:
    """The outputs of one metafile that lie within its repository, in the file's order."""
    return _place(metafile, [])


def _place(metafile: Metafile, broken: list[Broken]) -> Iterator[TrackedOutput]:
    for output in metafile.outputs:
        if output.external:
            continue
        path = metafile.output_path(output)
        if path == ".." or path.startswith("../"):
            message = f"{metafile.path}: {output.path!r} lies outside the repository; it is left out"
            broken.append(Broken(metafile.path, message))
        else:
            yield TrackedOutput("" if path == "." else path, metafile.path, output)


def _find_overlaps(outputs: tuple[TrackedOutput, ...]) -> Iterator[Broken]:
    around: list[TrackedOutput] = []
    for tracked in outputs:
        while around and not _is_inside(tracked.path, around[-1].path):
            around.pop()
        if around:
            outer = around[-1]
            message = (
                f"{tracked.path!r} (of {tracked.metafile}) lies inside {outer.path!r} (of {outer.metafile}); "
                f"the inner one is shown there"
            )
            yield Broken(tracked.metafile, message)
        around.append(tracked)


def _is_inside(path: str, directory: str) -> bool:
    return not directory or path.startswith(f"{directory}/")


def _describe_twice(one: TrackedOutput, other: TrackedOutput) -> str:
    places = " and ".join(f"{t.metafile}:{t.stage}" if t.stage else t.metafile for t in (one, other))
    return f"{one.path!r} is tracked twice, by {places}; one of them is left out"


def _within(broken: Broken, root: str) -> Broken:
    return Broken(join(root, broken.path), f"{root}: {broken.message}")


def _parts(path: str) -> tuple[str, ...]:
    """A key that sorts a directory right before what is in it."""
    return tuple(path.split("/")) if path else ()
