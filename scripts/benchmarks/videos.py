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


def repeat_video(path: Path, length: int) -> int:
    """A video of some `length` bytes: the same groups of pictures again and again. How many frames it has."""
    short = path.with_name(f".{path.name}.short.mp4")
    write_video(short, 60, gop=30)
    frames = 0
    with av.open(str(short)) as source, av.open(str(path), "w", format="mp4") as output:
        old = source.streams.video[0]
        new = output.add_stream_from_template(old)
        packets = [packet for packet in source.demux(old) if packet.size]
        assert old.time_base is not None
        step = 60 * (packets[0].duration or 1)
        while frames * short.stat().st_size < length * len(packets):
            for packet in packets:
                assert packet.pts is not None and packet.dts is not None
                again = av.Packet(bytes(packet))
                again.pts = packet.pts + frames // len(packets) * step
                again.dts = packet.dts + frames // len(packets) * step
                again.time_base, again.stream, again.is_keyframe = old.time_base, new, packet.is_keyframe
                output.mux(again)
            frames += len(packets)
    short.unlink()
    return frames
