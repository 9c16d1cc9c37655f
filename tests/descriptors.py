"""What this process has open, by place: a count of all would count what other tests left to be closed."""

from __future__ import annotations

import contextlib
from pathlib import Path


def open_below(directory: Path) -> list[str]:
    """Paths of what is open at or below a directory, also of what was removed; sorted."""
    targets = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            targets.append(str(descriptor.readlink()))
    return sorted(target for target in targets if target.startswith(str(directory)))
