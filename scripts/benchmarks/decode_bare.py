"""A program: what PyAV and Pillow do to a video, one frame after the other, in one process.

    decode_bare.py VIDEO FRAME...

Decodes to each of the frames from the key frame before it and encodes it as JPEG, or all of them in order
where none is named. Prints the seconds of each, or of all, one a line.
"""

from __future__ import annotations

import io
import sys
import time

import av
from PIL import Image


def main() -> None:
    path, *wanted = sys.argv[1:]
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.thread_count = 1
        if not wanted:
            begun = time.monotonic()
            for frame in container.decode(stream):
                encode(frame)
            print(time.monotonic() - begun)
            return
        times = [packet.pts for packet in container.demux(stream) if packet.pts is not None]
        times.sort()
        for number in map(int, wanted):
            begun = time.monotonic()
            container.seek(times[number], stream=stream, backward=True)
            for frame in container.decode(stream):
                if frame.pts == times[number]:
                    encode(frame)
                    break
            print(time.monotonic() - begun)


def encode(frame: av.VideoFrame) -> None:
    Image.fromarray(frame.to_ndarray(format="rgb24")).save(io.BytesIO(), "JPEG", quality=90)


if __name__ == "__main__":
    main()
