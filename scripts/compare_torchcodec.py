"""Hold the numbers of frames against another decoder: torchcodec in exact mode, with libraries of its own.

    .venv/bin/python scripts/compare_torchcodec.py [VIDEO...]

Without names, of the videos that the tests make. Both decode every frame; each of theirs must look like
ours of the same number, and not more like a neighbour of it. Colours are converted differently, so pixels
are close and not equal. Prints a line a video; exit status 1 where one differs. Where FFmpeg's versions
differ, so may what they show of damaged streams, of edit lists and of transport streams.

Not part of the suite: torchcodec is built for one version of PyTorch and wants FFmpeg's libraries. Its
version 0.11.1 goes with the PyTorch that the tests have: `pip install --no-deps torchcodec==0.11.1`.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from store.errors import MediaInvalid  # noqa: E402 -- behind the path
from store.media.frames import FrameReader  # noqa: E402
from store.media.index import build_index  # noqa: E402
from store.media.source import open_source_file  # noqa: E402
from tests.store.media.videos import MAKERS, Videos  # noqa: E402

MOST = 600
"""Frames of a video that are compared."""
NEAR = 12.0
"""The mean difference of a value, of 255, that converting colours may make."""


def compare(path: Path) -> str:
    """What is different; empty for nothing. Raises `MediaInvalid`, and what torchcodec raises."""
    from torchcodec.decoders import VideoDecoder

    theirs = VideoDecoder(str(path), seek_mode="exact", dimension_order="NHWC")
    with open_source_file(path) as source:
        index = build_index(source)
        if len(theirs) != index.frame_count:
            return f"{index.frame_count} frames here and {len(theirs)} there"
        count = min(index.frame_count, MOST)
        with FrameReader(source, index) as reader:
            ours = [frame.rgb(upright=True).astype(np.int16) for frame in reader.decode(0, count)]
    for number, mine in enumerate(ours):
        other = theirs[number].numpy().astype(np.int16)
        if other.shape != mine.shape:
            return f"frame {number} is {mine.shape} here and {other.shape} there"
        distance = float(np.abs(mine - other).mean())
        for neighbour in (number - 1, number + 1):
            if not 0 <= neighbour < count or ours[neighbour].shape != other.shape:
                continue
            if float(np.abs(ours[neighbour] - other).mean()) + 0.01 < distance:
                return f"frame {number} there looks like frame {neighbour} here"
        if distance > NEAR:
            return f"frame {number} differs by {distance:.1f} of 255"
    return ""


def main() -> int:
    with tempfile.TemporaryDirectory() as directory:
        videos = Videos(Path(directory))
        named = [Path(name) for name in sys.argv[1:]]
        status = 0
        for path in named or map(videos.path, MAKERS):
            try:
                fault = compare(path)
            except (MediaInvalid, RuntimeError, ValueError) as error:
                print(f"{path.name}: not compared: {str(error).splitlines()[0][:120]}")
                continue
            print(f"{path.name}: {fault or 'the same'}")
            status |= bool(fault)
    return status


if __name__ == "__main__":
    sys.exit(main())
