"""A version with videos and images, without any repository."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image

from tests.conftest import SmallDataset, small_dataset
from tests.store.media.videos import BAD_MAKERS, MAKERS, picture

VIDEOS = {"clips/a.mp4": "b-frames", "clips/b.mkv": "matroska", "clips/turned.mp4": "rotated-90"}
IMAGES = 12


def image(number: int, form: str = "JPEG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture(number)).save(file, form)
    return file.getvalue()


def media_dataset(directory: Path, *, bad: bool = False) -> SmallDataset:
    """Three videos, a folder of images and a text; with `bad`, a text that is called a video, too."""
    files = {path: MAKERS[name][1]() for path, name in VIDEOS.items()}
    files |= {f"pictures/{number}.jpg": image(number) for number in range(IMAGES)}
    files["notes.txt"] = b"nothing to see"
    if bad:
        files["clips/text.mp4"] = BAD_MAKERS["text"][1]()
    return small_dataset(directory / "cache", files)
