"""What a logged run of a stage left: its outputs as a version, although no commit names it.

Callers: `fusefs.dataset`, for targets `run:KEY[:OUT]`. Blocking; any thread.
"""

from __future__ import annotations

import posixpath
from pathlib import Path

from store.dvc.metafile import Output
from store.dvc.runs import Run, find_run
from store.errors import NotStored, NotTracked
from store.revision import Located, place_outputs, told_manifests
from store.version import Version


def locate_run(cache: Path, key: str, out: str, where: str) -> Located:
    """The output `out` of the newest run whose key begins with `key`, or all of them where it is empty.

    `out` is a path as the run has it, or one in a directory among its outputs. `where` is the target, for
    messages. Raises `NotTracked`, `NotStored`, `MetafileInvalid`.
    """
    run = find_run(cache, key)
    kept = [output for output in run.outs if output.oid is not None]
    if not kept:
        raise NotStored(f"{where}: this run has no outputs that a cache could have")
    if not out:
        return Located(Version(place_outputs(kept, where)), (), told_manifests(kept))
    output, inside = _choose(kept, posixpath.normpath(out), run, where)
    return Located(Version(place_outputs([output], where), inside), (), told_manifests([output]))


def _choose(outputs: list[Output], wanted: str, run: Run, where: str) -> tuple[Output, str]:
    """The output that a path is, or the innermost that it lies in, and what of the path lies below."""
    outputs = sorted(outputs, key=lambda output: len(output.path), reverse=True)
    for output in outputs:
        if wanted == output.path:
            return output, ""
        if output.is_dir and wanted.startswith(f"{output.path}/"):
            return output, wanted[len(output.path) + 1 :]
    named = ", ".join(repr(output.path) for output in run.outs[:3])
    more = f" and {len(run.outs) - 3} more" if len(run.outs) > 3 else ""
    raise NotTracked(f"{where}: this run has no output {wanted!r}; it has {named}{more}")
