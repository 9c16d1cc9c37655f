"""What `fusefs media` prints of what it found: lines for people, objects for programs. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fusefs.cli.commit import format_size
from fusefs.media_survey import Found, displayed_size, key_frame_gaps
from store.media.index import VideoIndex


def describe(found: Found) -> dict[str, Any]:
    """What `--json` prints. Sizes in bytes and pixels, lengths in seconds; None for what is not known."""
    described: dict[str, Any] = {
        "path": found.item.path,
        "type": "video" if found.item.is_video else "images" if found.item.is_folder else "image",
        "bytes": found.bytes,
    }
    if found.item.is_folder:
        described["images"] = len(found.item.rows)
    if found.index is not None:
        described |= _describe_video(found.index)
    if found.picture is not None:
        picture = found.picture
        described |= {"codec": picture.form.lower(), "width": picture.width, "height": picture.height}
    described["made"] = {view: {"here": here, "of": of} for view, (here, of) in found.made.items()}
    described["error"] = None if found.error is None else str(found.error)
    return described


def _describe_video(index: VideoIndex) -> dict[str, Any]:
    width, height = displayed_size(index)
    median, longest = key_frame_gaps(index)
    return {
        "codec": index.codec,
        "width": width,
        "height": height,
        "rotation": index.rotation,
        "frames": index.frame_count,
        "seconds": round(index.duration(), 6),
        "rate": float(index.rate),
        "gop": {"median": median, "longest": longest},
        "index": index.method,
    }


def show(found: Found) -> str:
    """A line for people."""
    size = "-" if found.bytes is None else format_size(found.bytes)
    parts = [found.item.path + "/" * found.item.is_folder, size]
    if found.item.is_folder:
        count = len(found.item.rows)
        parts.append(f"{count} image{'s' * (count != 1)}")
    if found.index is not None:
        parts += _show_video(found.index)
    if found.picture is not None:
        parts.append(f"{found.picture.form.lower()} {found.picture.width}x{found.picture.height}")
    parts += [
        f"{view} {'all' if here == of else f'{here} of {of}'} here" for view, (here, of) in found.made.items()
    ]
    if found.error is not None:
        parts.append(str(found.error))
    return "  ".join(parts)


def _show_video(index: VideoIndex) -> list[str]:
    width, height = displayed_size(index)
    median, longest = key_frame_gaps(index)
    spacing = f"key every {median}" if median == longest else f"key every {median}, at most {longest}"
    return [
        f"{index.frame_count} frame{'s' * (index.frame_count != 1)}",
        f"{index.duration():.4g} s",
        f"{float(index.rate):.5g}/s",
        f"{index.codec} {width}x{height}",
        spacing,
        f"by {index.method}",
    ]


@dataclass(slots=True)
class Totals:
    """Of all that was found. Bytes as far as they are known."""

    videos: int = 0
    frames: int = 0
    seconds: float = 0.0
    images: int = 0
    bytes: int = 0
    failed: int = 0

    def add(self, found: Found) -> None:
        if found.error is not None:
            self.failed += 1
        self.bytes += found.bytes or 0
        if found.item.is_video:
            self.videos += 1
        else:
            self.images += len(found.item.rows)
        if found.index is not None:
            self.frames += found.index.frame_count
            self.seconds += found.index.duration()

    def show(self) -> str:
        """The last line for people."""
        counted = f"{self.videos} video{'s' * (self.videos != 1)}"
        if self.videos:
            counted += f" ({self.frames} frames, {self.seconds:.4g} s)"
        counted += f", {self.images} image{'s' * (self.images != 1)}, {format_size(self.bytes)}"
        return f"{counted}, {self.failed} of them cannot be read" if self.failed else counted
