"""Small videos of every awkward kind, made with PyAV, and what a plain full decode says of them.

`Videos(directory).path("b-frames")` makes a video when it is first asked for. `full_decode` is the yardstick:
every packet into the decoder from the first to the last, and nothing clever.
"""

from __future__ import annotations

import hashlib
import io
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.error import FFmpegError
from av.video.reformatter import Interpolation

WIDTH, HEIGHT = 128, 72
_SCALING = (
    Interpolation.BILINEAR
    | Interpolation.FULL_CHR_H_INT
    | Interpolation.ACCURATE_RND
    | Interpolation.BITEXACT
)
Image = np.ndarray[Any, np.dtype[np.uint8]]


def picture(number: int, width: int = WIDTH, height: int = HEIGHT) -> Image:
    """What frame `number` shows: no two are alike, and everything moves."""
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0] = (np.arange(width)[None, :] * 2 + number * 3) % 256
    image[..., 1] = (np.arange(height)[:, None] * 3 + number * 5) % 256
    image[..., 2] = number * 7 % 256
    side, left = height // 3, number * 2 % (width // 2)
    image[4 : 4 + side, left : left + side] = np.random.default_rng(number).integers(
        0, 255, (side, side, 3), np.uint8
    )
    return image


def encode(
    container: str,
    codec: str,
    frames: int,
    *,
    options: dict[str, str] | None = None,
    pixels: str = "yuv420p",
    times: Callable[[int], int] = lambda number: number,
    time_base: Fraction = Fraction(1, 25),
    size: tuple[int, int] = (WIDTH, HEIGHT),
    container_options: dict[str, str] | None = None,
    rotation: int = 0,
    beside: bool = False,
    streams: Iterable[tuple[int, int]] = (),
) -> bytes:
    """A video of `frames` pictures; `beside` adds sound and subtitles, `streams` smaller videos."""
    file = io.BytesIO()
    with av.open(file, "w", format=container, options=container_options or {}) as output:
        extra = []
        for width, height in streams:
            other = output.add_stream(codec, rate=25)
            other.width, other.height, other.pix_fmt = width, height, pixels
            extra.append(other)
        stream = output.add_stream(codec, rate=25, options=options or {})
        stream.width, stream.height = size
        stream.pix_fmt = pixels
        stream.codec_context.time_base = time_base
        if rotation:
            stream.set_display_rotation(rotation)
        sound = output.add_stream("aac", rate=8000, layout="mono") if beside else None
        for number in range(frames):
            for other in extra:
                frame = av.VideoFrame.from_ndarray(picture(number + 1000, other.width, other.height))
                frame.pts, frame.time_base = number, Fraction(1, 25)
                output.mux(other.encode(frame))
            frame = av.VideoFrame.from_ndarray(picture(number, *size))
            frame.pts, frame.time_base = times(number), time_base
            output.mux(stream.encode(frame))
            if sound is not None:
                noise = av.AudioFrame.from_ndarray(np.zeros((1, 320), np.float32), "fltp", "mono")
                noise.sample_rate, noise.pts, noise.time_base = 8000, number * 320, Fraction(1, 8000)
                output.mux(sound.encode(noise))
        for other in [*extra, stream, *([sound] if sound else [])]:
            output.mux(other.encode(None))
    return file.getvalue()


def _h264(frames: int, parameters: str = "", container: str = "mp4", **more: Any) -> bytes:
    options = {"preset": "ultrafast", "x264-params": f"scenecut=0:{parameters}".rstrip(":")}
    return encode(container, "libx264", frames, options=options, **more)


_B_FRAMES = "keyint=24:min-keyint=24:bframes=3:b-adapt=0:b-pyramid=2"
_OPEN = _B_FRAMES + ":open-gop=1"


def _vfr(number: int) -> int:
    return number * 40 + number * number % 17


def copied(data: bytes, container: str, keep: Callable[[int], bool], **options: str) -> bytes:
    """A stream copy of the packets whose number is to be kept: a cut as editors make them."""
    file = io.BytesIO()
    with av.open(io.BytesIO(data)) as source, av.open(file, "w", format=container, options=options) as output:
        old = source.streams.video[0]
        new = output.add_stream_from_template(old)
        for number, packet in enumerate(source.demux(old)):
            if packet.size and keep(number):
                packet.stream = new
                output.mux(packet)
    return file.getvalue()


def boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """The MP4 boxes in a range: type, begin and end."""
    while start + 8 <= end:
        size = int.from_bytes(data[start : start + 4], "big")
        yield data[start + 4 : start + 8], start, start + size
        start += size


def find_box(data: bytes, *path: bytes) -> tuple[int, int]:
    """Begin and end of a box, the first one on a path from the top."""
    start, end = 0, len(data)
    for kind in path:
        begin, end = next((b, e) for k, b, e in boxes(data, start, end) if k == kind)
        start = begin + 8
    return start - 8, end


def with_edits(data: bytes, *edits: tuple[int, int]) -> bytes:
    """An MP4, made with `moov` at its end, with other edits: durations of the film and media times."""
    path: list[bytes] = []
    content = struct.pack(">II", 0, len(edits)) + b"".join(struct.pack(">iiI", *e, 0x10000) for e in edits)
    body = struct.pack(">I", 8 + len(content)) + b"elst" + content
    box = struct.pack(">I", 8 + len(body)) + b"edts" + body
    begin, end = find_box(data, b"moov", b"trak", b"edts")
    grown = bytearray(data[:begin] + box + data[end:])
    for kind in (b"moov", b"trak"):
        path.append(kind)
        start, stop = find_box(data, *path)
        grown[start : start + 4] = struct.pack(">I", stop - start + len(box) - (end - begin))
    return bytes(grown)


def _edited(*edits: tuple[int, int], parameters: str = _B_FRAMES) -> bytes:
    """25 frames are 1000 ms of the film and 12800 units of the media's time."""
    return with_edits(_h264(90, parameters), *edits)


def _text() -> bytes:
    return b"This is no video at all, although its name says so.\n" * 40


def _without_video() -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as output:
        sound = output.add_stream("aac", rate=8000, layout="mono")
        for number in range(10):
            noise = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            noise.sample_rate, noise.pts = 8000, number * 1024
            output.mux(sound.encode(noise))
        output.mux(sound.encode(None))
    return file.getvalue()


def with_moov_first(data: bytes) -> bytes:
    """An MP4 with `moov` at its end, made one that begins with it."""
    begin, end = find_box(data, b"moov")
    moov = bytearray(data[begin:end])
    header = find_box(data, b"mdat")[0]
    at = 0
    while (at := moov.find(b"stco", at)) > 0:
        count = int.from_bytes(moov[at + 8 : at + 12], "big")
        offsets = np.frombuffer(bytes(moov[at + 12 : at + 12 + 4 * count]), ">u4") + np.uint32(len(moov))
        moov[at + 12 : at + 12 + 4 * count] = offsets.astype(">u4").tobytes()
        at += 4
    return data[:header] + bytes(moov) + data[header:begin] + data[end:]


def _truncated(data: bytes, share: float) -> bytes:
    return data[: int(len(data) * share)]


def _resized() -> bytes:
    """Motion JPEG whose pictures grow in the middle."""
    small = encode("mjpeg", "mjpeg", 10, pixels="yuvj420p")
    return small + encode("mjpeg", "mjpeg", 10, pixels="yuvj420p", size=(160, 96))


def _with_subtitles(data: bytes) -> bytes:
    """The video and its sound, and a track of text beside."""
    file = io.BytesIO()
    text = b"1\n00:00:00,100 --> 00:00:00,900\nhello\n\n2\n00:00:01,000 --> 00:00:01,500\nyou\n"
    with (
        av.open(io.BytesIO(data)) as source,
        av.open(io.BytesIO(text), format="srt") as titles,
        av.open(file, "w", format="matroska") as output,
    ):
        pairs = {s.index: output.add_stream_from_template(s) for s in source.streams}
        lines = output.add_stream_from_template(titles.streams.subtitles[0])
        for packet in titles.demux():
            if packet.size:
                packet.stream = lines
                output.mux(packet)
        for packet in source.demux():
            if packet.size:
                packet.stream = pairs[packet.stream.index]
                output.mux(packet)
    return file.getvalue()


MAKERS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "constant": (".mp4", lambda: _h264(60, "keyint=12:bframes=0")),
    "variable": (
        ".mp4",
        lambda: _h264(80, "keyint=20:bframes=2:b-adapt=0", times=_vfr, time_base=Fraction(1, 1000)),
    ),
    "b-frames": (".mp4", lambda: _h264(100, _B_FRAMES)),
    "open-gop": (".mp4", lambda: _h264(120, _OPEN)),
    "long-gop": (".mp4", lambda: _h264(200, "keyint=infinite:bframes=3:b-adapt=0")),
    "faststart": (".mp4", lambda: with_moov_first(_h264(60, _B_FRAMES))),
    "negative-cts": (
        ".mp4",
        lambda: _h264(60, _B_FRAMES, container_options={"movflags": "negative_cts_offsets"}),
    ),
    "fragmented": (
        ".mp4",
        lambda: _h264(60, _B_FRAMES, container_options={"movflags": "frag_keyframe+empty_moov"}),
    ),
    "quicktime": (".mov", lambda: _h264(60, _B_FRAMES, "mov")),
    "edit-start": (".mp4", lambda: _edited((3600, 10000))),
    "edit-range": (".mp4", lambda: _edited((1200, 13824))),
    "edit-range-open": (".mp4", lambda: _edited((1200, 13824), parameters=_OPEN)),
    "edit-late": (".mp4", lambda: _edited((700, -1), (2000, 1024))),
    "edit-two": (".mp4", lambda: _edited((800, 5120), (700, 30720))),
    "cut": (".mp4", lambda: copied(_h264(100, _B_FRAMES), "mp4", lambda number: number >= 24)),
    "rotated-90": (".mp4", lambda: _h264(30, "keyint=10:bframes=0", rotation=90)),
    "rotated-180": (".mov", lambda: _h264(30, "keyint=10:bframes=0", container="mov", rotation=180)),
    "rotated-270": (".mp4", lambda: _h264(30, "keyint=10:bframes=0", rotation=-90)),
    "beside": (".mp4", lambda: _h264(75, _B_FRAMES, beside=True)),
    "two-videos": (".mp4", lambda: _h264(50, _B_FRAMES, streams=[(64, 48)])),
    "hevc-open": (
        ".mp4",
        lambda: encode(
            "mp4",
            "libx265",
            72,
            options={
                "preset": "ultrafast",
                "x265-params": "log-level=none:keyint=24:min-keyint=24:bframes=3:open-gop=1:scenecut=0",
            },
        ),
    ),
    "mpeg4": (".mp4", lambda: encode("mp4", "mpeg4", 60, options={"g": "15", "bf": "2"})),
    "jpegs": (".mov", lambda: encode("mov", "mjpeg", 20, pixels="yuvj420p")),
    "prores": (".mov", lambda: encode("mov", "prores_ks", 12, pixels="yuv422p10le")),
    "full-range": (
        ".mp4",
        lambda: _h264(20, "keyint=10:bframes=0:fullrange=on:colormatrix=bt709", pixels="yuv420p"),
    ),
    "matroska": (".mkv", lambda: _h264(100, _OPEN, "matroska")),
    "subtitles": (".mkv", lambda: _with_subtitles(_h264(60, _B_FRAMES, "matroska", beside=True))),
    "vp9": (
        ".webm",
        lambda: encode(
            "webm",
            "libvpx-vp9",
            48,
            options={"deadline": "realtime", "cpu-used": "8", "g": "16", "auto-alt-ref": "1"},
        ),
    ),
    "vp8-hidden": (
        ".webm",
        lambda: encode(
            "webm",
            "libvpx",
            60,
            options={
                "deadline": "good",
                "cpu-used": "5",
                "g": "30",
                "auto-alt-ref": "1",
                "lag-in-frames": "16",
            },
        ),
    ),
    "transport": (".ts", lambda: _h264(100, _B_FRAMES, "mpegts", beside=True)),
    "transport-open": (".ts", lambda: _h264(100, _OPEN, "mpegts")),
    "transport-cut": (
        ".ts",
        lambda: copied(_h264(100, _B_FRAMES, "mpegts"), "mpegts", lambda number: number >= 7),
    ),
    "mpeg2": (".mpg", lambda: encode("mpeg", "mpeg2video", 60, options={"g": "12", "bf": "2"})),
    "avi-jpegs": (".avi", lambda: encode("avi", "mjpeg", 30, pixels="yuvj420p")),
    "avi-b-frames": (".avi", lambda: _h264(100, _B_FRAMES, "avi")),
    "raw": (".h264", lambda: _h264(100, _B_FRAMES, "h264")),
    "raw-open": (".h264", lambda: _h264(120, _OPEN, "h264")),
    "intra-refresh": (".mp4", lambda: _h264(100, "keyint=30:intra-refresh=1:bframes=0")),
    "resized": (".mjpeg", _resized),
    "truncated": (
        ".mp4",
        lambda: _truncated(with_moov_first(_h264(100, _B_FRAMES)), 0.6),
    ),
    "truncated-matroska": (".mkv", lambda: _truncated(_h264(100, _B_FRAMES, "matroska"), 0.6)),
    "truncated-transport": (".ts", lambda: _truncated(_h264(100, _B_FRAMES, "mpegts"), 0.6)),
}
"""Name → suffix and how to make it. All of them are videos that libav reads."""

BAD_MAKERS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "text": (".mp4", _text),
    "empty": (".mp4", lambda: b""),
    "no-video": (".mp4", _without_video),
    "half-without-moov": (".mp4", lambda: _truncated(_h264(60, _B_FRAMES), 0.5)),
}
"""The same for what is no video."""


class Videos:
    """The videos in a directory, made when they are first asked for."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def path(self, name: str) -> Path:
        """Where the video of that name is."""
        suffix, make = (MAKERS | BAD_MAKERS)[name]
        path = self._directory / (name + suffix)
        if not path.exists():
            path.write_bytes(make())
        return path


@dataclass(frozen=True, slots=True)
class Plain:
    """A frame of a full decode: its time, size, the hash of its planes and of its RGB picture."""

    pts: int | None
    width: int
    height: int
    planes: str
    rgb: str


def plain(frame: av.VideoFrame) -> Plain:
    """What there is to compare of a frame."""
    rgb = frame.to_ndarray(format="rgb24", interpolation=int(_SCALING), threads=1)
    return Plain(frame.pts, frame.width, frame.height, md5_of(frame.to_ndarray()), md5_of(rgb))


def full_decode(path: Path) -> list[Plain]:
    """Every frame of the best video stream; packets that the decoder refuses give none."""
    frames = []
    with av.open(str(path)) as container:
        stream = container.streams.best("video")
        assert stream is not None
        for packet in container.demux(stream):
            try:
                frames += [plain(frame) for frame in packet.decode()]  # type: ignore[attr-defined]
            except FFmpegError:
                continue
    return frames


def md5_of(array: np.ndarray[Any, Any]) -> str:
    """The hash of an array's values, row after row."""
    return hashlib.md5(np.ascontiguousarray(array).tobytes(), usedforsecurity=False).hexdigest()
