"""Videos that are alike on every machine, for the cases that decode."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

WIDTH, HEIGHT = 1280, 720
RATE = 30
_SHAPES = 12


def write_video(path: Path, frames: int, *, gop: int = 30) -> None:
    """720p in H.264 with B-frames: a picture with noise and smooth parts that moves, as a camera's would."""
    random = np.random.default_rng(frames)
    ground = random.integers(0, 40, (HEIGHT, 2 * WIDTH, 3), np.uint8)
    ground[..., 0] += np.linspace(0, 200, 2 * WIDTH, dtype=np.uint8)
    ground[..., 1] += np.linspace(0, 200, HEIGHT, dtype=np.uint8)[:, None]
    with av.open(str(path), "w") as output:
        stream = output.add_stream(
            "libx264",
            rate=RATE,
            options={
                "preset": "veryfast",
                "crf": "23",
                "x264-params": f"keyint={gop}:scenecut=0:log-level=-1",
            },
        )
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.thread_count = 0
        for number in range(frames):
            left = 3 * number % WIDTH
            picture = ground[:, left : left + WIDTH].copy()
            for shape in range(_SHAPES):
                x = (shape * 97 + number * (shape + 1)) % (WIDTH - 120)
                y = (shape * 53 + number * (_SHAPES - shape)) % (HEIGHT - 120)
                picture[y : y + 120, x : x + 120] = (shape * 20, 255 - shape * 20, number % 256)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture))
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
