"""Opening a source with libav, so that a hostile file can reach nothing but its own bytes.

A container may name others: playlists, `concat` scripts, references to files. Only formats that hold their
streams themselves are opened, and whatever is asked for beyond the source's bytes is refused.

Callers: `demuxed`, `index`, `frames`. Blocking; a container belongs to one thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import av
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.stream import Discard
from av.video.stream import VideoStream

from store.errors import MediaInvalid
from store.media.source import MediaSource, SourceFile

MOST_STREAMS: Final = 100
DECODER: Final = "PyAV {} libavcodec {}.{}.{} libavformat {}.{}.{}".format(
    av.__version__, *av.library_versions["libavcodec"], *av.library_versions["libavformat"]
)
"""What indexes and frames follow from besides the source: other versions may give other frames."""

_FORMATS: Final = (
    "mov,mp4,m4a,3gp,3g2,mj2 matroska,webm avi mpegts mpeg mpegvideo flv live_flv kux h261 h263 h264 hevc "
    "vvc evc m4v ivf ogg asf asf_o mjpeg mjpeg_2000 obu av1 nut mxf dv rm gif apng webp yuv4mpegpipe vc1 "
    "vc1test dirac cavsvideo avs2 avs3 wtv nsv nuv smjpeg swf gxf lxf roq bink smk flic dnxhd ivr r3d vivo "
    "dhav film_cpk xmv pva ty"
)
_BUFFER_BYTES: Final = 32 << 10
_PROBE_BYTES: Final = 2 << 20
"""What libav may read of the packets to learn what its header does not tell."""


class Opened:
    """A container with its one video stream; everything else in it is left unread."""

    def __init__(self, container: InputContainer, stream: VideoStream, file: SourceFile, name: str) -> None:
        self.container = container
        self.stream = stream
        self._file = file
        self._name = name

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Turn libav's errors into `MediaInvalid`, and tell those of the source first."""
        with _errors(self._file, self._name):
            yield

    def packets(self) -> Iterator[Packet[VideoStream]]:
        """The stream's packets from here to the end. Where libav can read no further, the stream ends.

        Raises as the source does.
        """
        try:
            for packet in self.container.demux(self.stream):
                self._file.raise_error()
                if packet.size:
                    yield packet
        except (FFmpegError, ValueError):
            self._file.raise_error()
        self._file.raise_error()

    def close(self) -> None:
        """Give memory and threads back; once."""
        self.container.close()


def open_container(source: MediaSource, stream_id: int | None = None) -> Opened:
    """Open the video stream that libav thinks best, or the one with an id (a track's number in an MP4).

    Raises `MediaInvalid` for what is no video, and as the source does.
    """
    file = SourceFile(source, hold_errors=True)
    with _errors(file, source.name):
        container = av.open(
            file,
            "r",
            options={
                "format_whitelist": ",".join(_FORMATS.split()),
                "max_streams": str(MOST_STREAMS),
                "probesize": str(_PROBE_BYTES),
            },
            metadata_errors="replace",
            buffer_size=_BUFFER_BYTES,
            io_open=_refuse,
        )
    try:
        file.raise_error()
        stream = _choose(container, stream_id)
        if stream is None:
            raise MediaInvalid(f"{source.name} has no video stream")
        if not _has_decoder(stream):
            raise MediaInvalid(f"{source.name} is in a codec that there is no decoder for")
        for other in container.streams:
            if other.index != stream.index:
                other.discard = Discard.all
    except BaseException:
        container.close()
        raise
    return Opened(container, stream, file, source.name)


def _choose(container: InputContainer, stream_id: int | None) -> VideoStream | None:
    if stream_id is not None:
        return next((stream for stream in container.streams.video if stream.id == stream_id), None)
    best = container.streams.best("video")
    if not isinstance(best, VideoStream) or best.disposition & av.stream.Disposition.attached_pic:
        return None
    return best


def _has_decoder(stream: VideoStream) -> bool:
    context: object = stream.codec_context  # None for a codec that libav does not know
    return context is not None


@contextmanager
def _errors(file: SourceFile, name: str) -> Iterator[None]:
    try:
        yield
    except (FFmpegError, ValueError, MemoryError) as error:
        file.raise_error()
        why = error.strerror if isinstance(error, FFmpegError) else str(error)
        raise MediaInvalid(f"{name} is no video that can be read: {why}") from error
    file.raise_error()


def _refuse(*_: Any) -> None:
    raise PermissionError("a video may not name other files")
