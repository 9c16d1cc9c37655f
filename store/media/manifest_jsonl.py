"""CVAT's `manifest.jsonl` and `index.json`, version 1.1: written byte for byte, and read for their order.

Checksums are of decoded pixels and may be left out, as CVAT's server does for images. Manifests that are read
are hostile input. Pure; any thread.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final

from store.errors import InputError

VERSION: Final = "1.1"
READABLE: Final = ("1.0", "1.1")
LARGEST_MANIFEST: Final = 256 << 20
"""Bytes."""
LONGEST_LINE: Final = 64 << 10
MOST_FRAMES: Final = 2_000_000
LONGEST_PATH: Final = 4095


@dataclass(frozen=True, slots=True)
class ImageEntry:
    """A frame of a folder: its path, its size as displayed, the images related to it."""

    path: str
    width: int
    height: int
    related: tuple[str, ...] = ()
    checksum: str | None = None


@dataclass(frozen=True, slots=True)
class KeyFrame:
    """A frame of a video where decoding can begin; `pts` in units of the stream's time base."""

    number: int
    pts: int
    checksum: str | None = None


def image_manifest(entries: Iterable[ImageEntry | None]) -> bytes:
    """The manifest of images in their order; None stands for one that start, stop or step leave out."""
    lines = [_line({"version": VERSION}), _line({"type": "images"})]
    for entry in entries:
        if entry is None:
            lines.append(_line({}))
            continue
        extension = PurePosixPath(entry.path).suffix
        properties: dict[str, Any] = {
            "name": entry.path.removesuffix(extension),
            "extension": extension,
            "width": entry.width,
            "height": entry.height,
        }
        if entry.related:
            properties["meta"] = {"related_images": list(entry.related)}
        if entry.checksum is not None:
            properties["checksum"] = entry.checksum
        lines.append(_line(properties))
    return b"".join(lines)


def video_manifest(name: str, width: int, height: int, length: int, key_frames: Iterable[KeyFrame]) -> bytes:
    """The manifest of a video: its base name, its size upright, how many frames it has, its key frames."""
    properties = {"name": PurePosixPath(name).name, "resolution": [width, height], "length": length}
    lines = [_line({"version": VERSION}), _line({"type": "video"}), _line({"properties": properties})]
    for frame in key_frames:
        entry: dict[str, Any] = {"number": frame.number, "pts": frame.pts}
        if frame.checksum is not None:
            entry["checksum"] = frame.checksum
        lines.append(_line(entry))
    return b"".join(lines)


def index_of(manifest: bytes) -> bytes:
    """The `index.json` of a manifest that was written here: entry → where its line begins."""
    lines = manifest.splitlines(keepends=True)
    headers = 3 if lines[1:2] == [_line({"type": "video"})] else 2
    offset = sum(map(len, lines[:headers]))
    index: dict[str, int] = {}
    for number, line in enumerate(lines[headers:]):
        index[str(number)] = offset
        offset += len(line)
    return json.dumps(index, separators=(",", ":")).encode()


def predefined_paths(content: bytes) -> tuple[str, ...]:
    """The images that a manifest names, in its order and as often as it does; `{}` lines name none.

    Raises `InputError` for what is no manifest of images, or names paths outside of its folder.
    """
    if len(content) > LARGEST_MANIFEST:
        raise InputError(f"manifest.jsonl has {len(content)} bytes, more than {LARGEST_MANIFEST}")
    lines = content.split(b"\n", MOST_FRAMES + 3)
    if len(lines) > MOST_FRAMES + 3:
        raise InputError(f"manifest.jsonl names more than {MOST_FRAMES} images")
    version, kind, *entries = [*lines, b"", b""] if len(lines) < 2 else lines
    if _parse(version, 1).get("version") not in READABLE:
        raise InputError(f"manifest.jsonl is of another version than {' and '.join(READABLE)}")
    if _parse(kind, 2).get("type") != "images":
        raise InputError("manifest.jsonl is not one of images: its second line says another type")
    paths: list[str] = []
    for number, line in enumerate(entries, 3):
        entry = _parse(line, number) if line.strip() else {}
        if entry:
            paths.append(_path_of(entry, number))
    return tuple(paths)


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


def _parse(line: bytes, number: int) -> dict[str, Any]:
    if len(line) > LONGEST_LINE:
        raise InputError(f"manifest.jsonl has a line of more than {LONGEST_LINE} bytes: line {number}")
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"manifest.jsonl is not JSON in line {number}") from error
    if not isinstance(value, dict):
        raise InputError(f"manifest.jsonl holds no object in line {number}")
    return value


def _path_of(entry: dict[str, Any], number: int) -> str:
    name, extension = entry.get("name"), entry.get("extension")
    if not isinstance(name, str) or not isinstance(extension, str):
        raise InputError(f"manifest.jsonl has no name and extension in line {number}")
    path = name + extension
    if not _is_inside(path.split("/")) or len(path) > LONGEST_PATH or "\0" in path or not _is_text(path):
        raise InputError(f"manifest.jsonl names a path that is none in its folder in line {number}")
    return path


def _is_inside(parts: Sequence[str]) -> bool:
    return all(part not in ("", ".", "..") for part in parts)


def _is_text(path: str) -> bool:
    """False where JSON's escapes made half a character."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True
