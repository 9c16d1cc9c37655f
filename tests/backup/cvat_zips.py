"""Backups as CVAT writes them. No tests."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

LABEL = {"name": "car", "color": "#ff0000", "type": "any", "attributes": [], "sublabels": [], "svg": ""}
SHAPE = {
    "type": "points",
    "label": "car",
    "frame": 1,
    "points": [1.5, 2.0],
    "attributes": [],
    "occluded": False,
}


def picture(number: int, size: tuple[int, int] = (8, 6)) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", size, (number * 40 % 256, 7, 9)).save(stream, "PNG")
    return stream.getvalue()


def task(last: int, **changes: Any) -> bytes:
    """A `task.json` whose one job ends with a frame."""
    document = {
        "version": "1.0",
        "name": "crossing",
        "bug_tracker": "",
        "status": "validation",
        "labels": [LABEL],
        "data": {
            "image_quality": 70,
            "chunk_type": "imageset",
            "storage": "local",
            "storage_method": "cache",
            "sorting_method": "lexicographical",
        },
        "jobs": [
            {"start_frame": 0, "stop_frame": last, "status": "annotation", "type": "annotation", "frames": []}
        ],
    }
    return json.dumps(document | changes, indent=2).encode()


ANNOTATIONS = json.dumps([{"version": 0, "tags": [], "shapes": [SHAPE], "tracks": []}]).encode()


def task_files(count: int = 3) -> dict[str, bytes]:
    """Of a task of pictures, as CVAT has them in a zip."""
    images = {f"data/street/{number:02}.png": picture(number) for number in range(count)}
    lines = [{"version": "1.1"}, {"type": "images"}]
    lines += [{"name": f"street/{n:02}", "extension": ".png", "width": 8, "height": 6} for n in range(count)]  # type: ignore[dict-item]
    manifest = "".join(json.dumps(line) + "\n" for line in lines).encode()
    return {
        "task.json": task(count - 1),
        "annotations.json": ANNOTATIONS,
        "annotation_guide.md": b"# How to\n",
        "assets/guide.png": picture(9),
        **images,
        "data/manifest.jsonl": manifest,
    }


def write_zip(file: Path, members: Mapping[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file


def read_zip(file: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(file) as archive:
        assert archive.testzip() is None
        infos = archive.infolist()
        assert {info.compress_type for info in infos} == {zipfile.ZIP_STORED}
        assert len({info.filename for info in infos}) == len(infos)
        return {info.filename: archive.read(info) for info in infos}
