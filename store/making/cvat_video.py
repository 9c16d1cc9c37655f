"""What CVAT makes of a run of a video's frames: an MP4, or JPEG files for a zip; and PNG files.

Makers take a video and its index for sources, and from `arguments` the `frames`, as start, stop and step of a
range, and the `quality`. The same frames give the same bytes on every machine, for as long as `VIDEO_VERSION`
is the same: one thread encodes, by code that does not depend on the processor.

Where this differs from CVAT: the encoder is x264 on every machine, in a preset that takes a quarter of the
time for no more bytes; and what CVAT calls original and encodes again is each frame as it was decoded, in RGB
of 8 bits, as PNG.

Blocking; worker processes. Raise `MediaInvalid` for a frame that cannot be decoded, and as sources do.
"""

from __future__ import annotations

import io
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from fractions import Fraction
from typing import Any, Final

import av
from av.error import FFmpegError
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Interpolation
from av.video.stream import VideoStream

from store.errors import MediaInvalid
from store.making.makers import Piece
from store.making.readers import reading
from store.making.zipped import zipped
from store.media.containers import DECODER
from store.media.encode import encoder
from store.media.frames import COLOUR_VERSION, Frame
from store.media.index_file import INDEX_VERSION
from store.media.source import MediaSource

VIDEO_VERSION: Final = f"1 {COLOUR_VERSION} {INDEX_VERSION} {DECODER} {encoder()}"
"""Of all makers here."""
RATE: Final = 25
"""Frames a second of every chunk, whatever the video's: CVAT counts frames and knows no times."""
LARGEST_AREA: Final = 36_864 * 256
"""Pixels of a picture that CVAT puts into an MP4."""

_LOW: Final = 1080
"""Pictures are halved until they are lower."""
_PNG_LEVEL: Final = 2
"""A chunk is waited for: 6 would take twice as long for an eighth less."""
_PIXELS: Final = "yuv420p"
_BT601: Final = 6
_MATRICES: Final = {1: 1, 2: 5, 5: 5, _BT601: 5}
"""Matrices that pictures may keep (2: none is named, which means BT.601): how swscale numbers them."""
_SCALING: Final = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.BITEXACT


def make_mp4(arguments: Mapping[str, Any], sources: Sequence[MediaSource]) -> Iterator[bytes]:
    """The frames as one MP4: H.264, constrained baseline, `RATE` frames a second, no sound.

    Halved until they are lower than 1080 pixels, and sides made even; all frames get the first one's size.
    """
    file = io.BytesIO()
    with (
        closing(_frames(arguments, sources)) as frames,
        av.open(file, "w", format="mp4", container_options={"fflags": "+bitexact"}) as output,
    ):
        stream: VideoStream | None = None
        for place, frame in enumerate(frames):
            if stream is None:
                stream = output.add_stream("libx264", rate=RATE, options=_options(arguments["quality"]))
                _prepare(stream, frame, sources[0].name)
            picture = _picture(frame, stream)
            picture.pts, picture.time_base = place, Fraction(1, RATE)
            output.mux(stream.encode(picture))
        if stream is not None:
            output.mux(stream.encode(None))
    yield file.getvalue()


def make_jpegs(arguments: Mapping[str, Any], sources: Sequence[MediaSource]) -> Iterator[Piece]:
    """Each frame upright as a JPEG file; see `store.making.zipped`."""
    return zipped(
        _jpeg(frame, arguments["quality"], sources[0].name) for frame in _frames(arguments, sources)
    )


def make_pngs(arguments: Mapping[str, Any], sources: Sequence[MediaSource]) -> Iterator[Piece]:
    """Each frame upright as a PNG file, with exactly the values that decoding gives; as above."""
    return zipped(map(_png, _frames(arguments, sources)))


def quantizer(quality: int) -> int:
    """The encoder's rate factor for a quality from 1 to 100, by CVAT's rule.

    It would be 0 for 100, which is lossless, and the baseline profile has no such thing.
    """
    return max(round(51 * (100 - quality) / 99), 1)


def halved(width: int, height: int) -> tuple[int, int]:
    """The size that pictures of a size have in an MP4."""
    factor = 1
    while height / factor >= _LOW:
        factor *= 2
    width, height = max(width // factor, 1), height // factor
    return width + width % 2, height + height % 2


def _frames(arguments: Mapping[str, Any], sources: Sequence[MediaSource]) -> Generator[Frame, None, None]:
    with reading(*sources) as (reader, _):
        for number in range(*arguments["frames"]):
            yield from reader.decode(number, 1)


def _png(frame: Frame) -> bytes:
    file = io.BytesIO()
    frame.image(upright=True).save(file, "PNG", compress_level=_PNG_LEVEL)
    return file.getvalue()


def _jpeg(frame: Frame, quality: int, name: str) -> bytes:
    file = io.BytesIO()
    try:
        frame.image(upright=True).save(file, "JPEG", quality=quality, optimize=True)
    except OSError as error:  # a side of more than 65500
        raise MediaInvalid(f"{name}: no JPEG can be made of frame {frame.number}") from error
    return file.getvalue()


def _options(quality: int) -> dict[str, str]:
    return {
        "preset": "veryfast",
        "profile": "baseline",
        "coder": "0",
        "wpredp": "0",
        "crf": str(quantizer(quality)),
        "threads": "1",
        "x264-params": "no-deblock=1:cpu-independent=1",
    }


def _prepare(stream: VideoStream, frame: Frame, name: str) -> None:
    """Say what the stream's pictures are, by the first of them."""
    width, height = frame.native.width, frame.native.height
    if round(frame.rotation / 90) % 2:
        width, height = height, width
    width, height = halved(width, height)
    if width * height > LARGEST_AREA:
        raise MediaInvalid(
            f"{name} has pictures of {width}x{height}, and CVAT makes an MP4 of at most {LARGEST_AREA} pixels"
            ": take a recipe with zip=1"
        )
    stream.width, stream.height, stream.pix_fmt = width, height, _PIXELS
    context = stream.codec_context
    context.thread_count = 1
    context.time_base = Fraction(1, RATE)
    context.color_range = ColorRange.MPEG
    context.colorspace = frame.native.colorspace if _is_plain(frame) else _BT601


def _picture(frame: Frame, stream: VideoStream) -> VideoFrame:
    """A frame in the stream's size and colours, upright; its planes as they are where they can stay."""
    native = frame.native
    matrix = int(stream.codec_context.colorspace)
    if not _is_plain(frame) or native.colorspace != matrix:
        native = VideoFrame.from_ndarray(frame.rgb(upright=True), "rgb24")
    elif (native.width, native.height) == (stream.width, stream.height):
        native.pict_type = 0
        return native
    try:
        return native.reformat(
            stream.width,
            stream.height,
            _PIXELS,
            dst_colorspace=_MATRICES[matrix],
            dst_color_range=ColorRange.MPEG,
            interpolation=_SCALING,
            threads=1,
        )
    except (FFmpegError, ValueError) as error:
        raise MediaInvalid(f"frame {frame.number} cannot be scaled: {error}") from error


def _is_plain(frame: Frame) -> bool:
    """Whether the decoder's planes are what the encoder takes: upright, 4:2:0, of the narrow range."""
    native = frame.native
    return (
        native.format.name == _PIXELS
        and native.color_range != ColorRange.JPEG
        and native.colorspace in _MATRICES
        and round(frame.rotation / 90) % 4 == 0
    )
