"""How much each case does: the real figures, or a pass in seconds that shows that it works."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Scale:
    rounds: int
    small_files: int
    small_bytes: int
    dvc_files: int
    """Of them, those that DVC's own file system reads: a rate does not need all of them."""
    large_bytes: int
    random_reads: int
    entries: int
    objects: int
    """Distinct objects behind the entries of the large manifest."""
    commit_files: int
    commit_bytes: int
    """Bytes of each file that is committed."""
    first_files: tuple[int, ...]
    """Files of the datasets whose first listing is waited for."""
    versions: int
    version_files: int
    """Files of each of the many versions; one in a hundred changes from each to the next."""
    switch_files: int
    lazy_files: int
    """Objects on a server only, and below the bytes of each and the processes that read them."""
    lazy_bytes: int
    lazy_readers: int
    shared_bytes: int
    """Of a large object that many readers want at once."""
    pushed_files: int
    pushed_sample: int
    """Files that are pushed in DVC's layout, where each costs as much as any other."""
    pushed_bytes: int
    """Of each file that is pushed to a server."""
    edits: int
    """In a large file, between two pushes."""
    video_frames: int
    calibrated_bytes: int
    calibrated_reads: int
    cold: bool
    """Measure with nothing in memory, too: root only, and felt by the whole machine."""


FULL: Final = Scale(
    rounds=3,
    small_files=20_000,
    small_bytes=20_000,
    dvc_files=2_000,
    large_bytes=1 << 30,
    random_reads=20_000,
    entries=1_000_000,
    objects=4_000,
    commit_files=20_000,
    commit_bytes=100_000,
    first_files=(10, 10_000, 1_000_000),
    versions=100,
    version_files=50_000,
    switch_files=10_000,
    lazy_files=10_000,
    lazy_bytes=20_000,
    lazy_readers=64,
    shared_bytes=64 << 20,
    pushed_files=50_000,
    pushed_sample=5_000,
    pushed_bytes=4_096,
    edits=100,
    video_frames=3_000,
    calibrated_bytes=256 << 20,
    calibrated_reads=5_000,
    cold=True,
)
QUICK: Final = Scale(
    rounds=1,
    small_files=200,
    small_bytes=2_000,
    dvc_files=50,
    large_bytes=8 << 20,
    random_reads=200,
    entries=2_000,
    objects=50,
    commit_files=200,
    commit_bytes=2_000,
    first_files=(10, 500),
    versions=5,
    version_files=500,
    switch_files=200,
    lazy_files=100,
    lazy_bytes=2_000,
    lazy_readers=8,
    shared_bytes=8 << 20,
    pushed_files=100,
    pushed_sample=100,
    pushed_bytes=400,
    edits=1,
    video_frames=60,
    calibrated_bytes=8 << 20,
    calibrated_reads=200,
    cold=False,
)
