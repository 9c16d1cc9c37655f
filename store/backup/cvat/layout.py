"""Where things are in CVAT's backups, and in versions that were restored from one. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

TASK: Final = "task.json"
ANNOTATIONS: Final = "annotations.json"
PROJECT: Final = "project.json"
DATA: Final = "data"
MANIFEST: Final = f"{DATA}/manifest.jsonl"
INDEX: Final = f"{DATA}/index.json"
"""CVAT makes it anew, and refuses a backup that has it."""

_TASK_FOLDER: Final = re.compile(r"(task_[0-9]{1,9})/.")


def task_folders(paths: Iterable[str]) -> list[str]:
    """The folders of a project's tasks, `/` behind, in CVAT's order."""
    found = {match[1] for path in paths if (match := _TASK_FOLDER.match(path))}
    return [f"{folder}/" for folder in sorted(found, key=lambda folder: (int(folder[5:]), folder))]


def media_of(paths: Iterable[str], folder: str) -> list[str]:
    """What a task has in its folder (`/` behind) of media."""
    below = f"{folder}{DATA}/"
    other = {folder + MANIFEST, folder + INDEX}
    return [path for path in paths if path.startswith(below) and path not in other]
