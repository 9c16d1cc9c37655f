"""The cases by name, in the order in which they run. A case is a function of workshop and scale."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from benchmarks.cases.commit import compare_commit
from benchmarks.cases.large_file import compare_large_file
from benchmarks.cases.many_entries import measure_many_entries
from benchmarks.cases.revisions_first import compare_first_access
from benchmarks.cases.revisions_many import measure_many_revisions
from benchmarks.cases.small_files import compare_small_files
from benchmarks.cases.switch import measure_switch
from benchmarks.measure import Results
from benchmarks.scale import Scale
from benchmarks.workshop import Workshop

CASES: Final[dict[str, Callable[[Workshop, Scale], Results]]] = {
    "small-files": compare_small_files,
    "large-file": compare_large_file,
    "many-entries": measure_many_entries,
    "commit": compare_commit,
    "revisions-first": compare_first_access,
    "revisions-many": measure_many_revisions,
    "switch": measure_switch,
}
