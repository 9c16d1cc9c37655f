"""CVAT's `task.json`, `annotations.json` and `project.json`: judged by what its importer takes, and made.

What is judged is what an import fails at; everything else in them is left as it is. They are hostile input.
Pure; any thread.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from store.errors import InputError

VERSION: Final = "1.0"
LIMIT: Final = 64 << 20
"""Bytes of `task.json` or `project.json`."""
ANNOTATIONS_LIMIT: Final = 256 << 20
"""Bytes of `annotations.json`, which has to be read at once."""
LONGEST_NAME: Final = 200
"""Bytes of a version's name."""
LOCAL: Final = "local"

_LABEL_KEYS: Final = {"name", "color", "type", "attributes", "sublabels", "svg"}
_STEP: Final = re.compile(r"step=([1-9][0-9]{0,8})")
_UNFIT: Final = re.compile(r"[/\0-\x1f\x7f\ud800-\udfff]")


class _Job(msgspec.Struct):
    """What an importer looks for in a job's annotations; what is in them is not taken apart."""

    tags: list[msgspec.Raw]
    shapes: list[msgspec.Raw]
    tracks: list[msgspec.Raw]


_annotations = msgspec.json.Decoder(list[_Job])


def parse(data: bytes, where: str) -> dict[str, Any]:
    """A document of version 1.0. Raises `InputError`."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        raise InputError(f"{where} is not JSON") from None
    if not isinstance(document, dict) or document.get("version") != VERSION:
        raise InputError(f"{where} is not one of CVAT's, version {VERSION}")
    return document


def count_jobs(data: bytes, where: str) -> int:
    """Of how many jobs these are the annotations. Raises `InputError`."""
    try:
        return len(_annotations.decode(data))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise InputError(f"{where} is not CVAT's list of annotations by job") from None


def task_fault(task: dict[str, Any], annotated_jobs: int, images: int | None) -> str:
    """Why CVAT would not import a task with media of so many images or frames (None: it is not known how
    many), or nothing. `data.storage` is not looked at: it is what it is written to be."""
    labels, data, jobs = task.get("labels"), task.get("data"), task.get("jobs")
    if not isinstance(labels, list) or not all(map(_is_label, labels)):
        return "its labels are not ones that can be imported"
    if not isinstance(data, dict) or not {"image_quality", "chunk_type"} <= data.keys():
        return "it does not describe its data"
    if not isinstance(jobs, list) or not jobs or not all(map(_is_job, jobs)):
        return "its jobs do not say where they begin and end"
    if annotated_jobs != len(jobs):
        return f"there are annotations of {annotated_jobs} jobs and not of {len(jobs)}"
    frames = None if images is None else _selected(data, images)
    if "validation_layout" in task or "validation_layout" in data:
        return ""  # honeypots are frames beyond the images
    last = max(job["stop_frame"] for job in jobs)
    if frames is not None and last >= frames:
        return f"its jobs go to frame {last}, and there are {frames} frames"
    return ""


def localized(task: dict[str, Any], data: bytes) -> bytes:
    """The task for media that are in the backup itself, as it was where it says so already."""
    if task["data"].get("storage") == LOCAL:
        return data
    return _dump(task | {"data": task["data"] | {"storage": LOCAL}})


def minimal_task(name: str, frames: int, *, is_video: bool, sorting: str) -> bytes:
    """A task of one job, without labels."""
    data: dict[str, Any] = {
        "image_quality": 70,
        "chunk_type": "video" if is_video else "imageset",
        "storage": LOCAL,
        "storage_method": "cache",
        "sorting_method": sorting,
        "deleted_frames": [],
    }
    job = {"start_frame": 0, "stop_frame": frames - 1, "status": "annotation", "type": "annotation"}
    task = {"version": VERSION, "name": name, "labels": [], "data": data, "jobs": [job | {"frames": []}]}
    return _dump(task)


def minimal_annotations() -> bytes:
    """Of one job, none."""
    return _dump([{"version": 0, "tags": [], "shapes": [], "tracks": []}])


def minimal_project(name: str, tasks: Sequence[dict[str, Any]]) -> bytes:
    """A project with the labels of all its tasks, which CVAT ignores there.

    Raises `InputError` where two tasks mean different things by a label.
    """
    labels: dict[str, Any] = {}
    for task in tasks:
        for label in task["labels"]:
            if labels.setdefault(label["name"], label) != label:
                raise InputError(
                    f"the tasks have different labels {label['name']!r}, and a project has one; "
                    "back them up one by one"
                )
    return _dump({"version": VERSION, "name": name, "status": "annotation", "labels": [*labels.values()]})


def version_name(document: dict[str, Any], otherwise: str) -> str:
    """A name for the version of a task or project, fit to be that of a file."""
    name = document.get("name")
    fit = _UNFIT.sub("_", name).strip(". ") if isinstance(name, str) else ""
    fit = fit.encode()[:LONGEST_NAME].decode(errors="ignore").removesuffix(".dvc").strip(". ")
    return fit or otherwise


def _is_label(label: object) -> bool:
    return isinstance(label, dict) and isinstance(label.get("name"), str) and label.keys() <= _LABEL_KEYS


def _is_job(job: object) -> bool:
    return (
        isinstance(job, dict)
        and "status" in job
        and all(isinstance(job.get(key), int) for key in ("start_frame", "stop_frame"))
        and 0 <= job["start_frame"] <= job["stop_frame"]
    )


def _selected(data: dict[str, Any], images: int) -> int:
    """How many frames a task takes of so many."""
    start, stop, step = data.get("start_frame", 0), data.get("stop_frame"), 1
    if "frame_filter" in data:
        match = _STEP.search(str(data["frame_filter"]))
        if match is None:
            return 0
        step = int(match[1])
    if not isinstance(start, int) or not isinstance(stop, int | None) or start < 0:
        return 0
    end = images if stop is None else min(stop + 1, images)
    return len(range(start, end, step))


def _dump(document: object) -> bytes:
    return json.dumps(document).encode() + b"\n"
