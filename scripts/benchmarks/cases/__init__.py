"""The cases by name, in the order in which they run. A case is a function of workshop and scale."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from benchmarks.cases.backup import compare_backup
from benchmarks.cases.commit import compare_commit
from benchmarks.cases.frames import compare_frames
from benchmarks.cases.large_file import compare_large_file
from benchmarks.cases.lazy_epochs import compare_lazy_epochs
from benchmarks.cases.lazy_large import compare_lazy_large
from benchmarks.cases.lazy_many import measure_lazy_many
from benchmarks.cases.lazy_small import compare_lazy_small
from benchmarks.cases.loader import compare_loader
from benchmarks.cases.many_entries import measure_many_entries
from benchmarks.cases.materialize import measure_materialize
from benchmarks.cases.miss import compare_miss
from benchmarks.cases.native import compare_native
from benchmarks.cases.native_names import compare_native_names
from benchmarks.cases.push import compare_push
from benchmarks.cases.remote_logs import measure_remote_logs
from benchmarks.cases.revisions_first import compare_first_access
from benchmarks.cases.revisions_many import measure_many_revisions
from benchmarks.cases.shards import compare_shards
from benchmarks.cases.small_files import compare_small_files
from benchmarks.cases.switch import measure_switch
from benchmarks.measure import Results
from benchmarks.scale import Scale
from benchmarks.workshop import Workshop

CASES: Final[dict[str, Callable[[Workshop, Scale], Results]]] = {
    "small-files": compare_small_files,
    "large-file": compare_large_file,
    "native": compare_native,
    "native-names": compare_native_names,
    "loader": compare_loader,
    "many-entries": measure_many_entries,
    "commit": compare_commit,
    "backup": compare_backup,
    "revisions-first": compare_first_access,
    "revisions-many": measure_many_revisions,
    "switch": measure_switch,
    "shards": compare_shards,
    "frames": compare_frames,
    "materialize": measure_materialize,
    "push": compare_push,
    "remote-logs": measure_remote_logs,
    "lazy-small": compare_lazy_small,
    "miss": compare_miss,
    "lazy-large": compare_lazy_large,
    "lazy-many": measure_lazy_many,
    "lazy-epochs": compare_lazy_epochs,
}
