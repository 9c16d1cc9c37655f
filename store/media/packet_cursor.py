"""`PacketCursor`: the packets of a video from a given one on, each with its number in the index.

A seek lands somewhere near; which packet came is told by its offset, size and time. Where that does not
tell, or it is one behind what was wanted, an earlier place is tried, and in the end the container is read
from its beginning. Callers: `frames`. Blocking; one thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
from av.error import FFmpegError
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from store.media.containers import Opened, open_container
from store.media.index import VideoIndex
from store.media.packets import UNKNOWN
from store.media.source import MediaSource

_KEYS: Final = 3
"""Key packets, one before the other, that are sought until reading begins at the beginning."""

Numbered = tuple[int, "Packet[VideoStream]"]


class Lost(Exception):
    """After a seek the packets are not those of the index: this container cannot be sought in."""


class PacketCursor:
    """A container that is open at some packet."""

    def __init__(self, source: MediaSource, index: VideoIndex, threads: int) -> None:
        """Opens the container. Raises `MediaInvalid`, and as the source does."""
        self._source = source
        self._index = index
        self._threads = threads
        self._can_seek = True
        self._is_fresh = True
        self._opened = self._open()

    @property
    def decoder(self) -> VideoCodecContext:
        """The stream's decoder; another one after `go_to`."""
        return self._opened.stream.codec_context

    def go_to(self, start: int) -> Iterator[Numbered]:
        """The packets from number `start` on; the decoder is empty. Ends the iteration that was before.

        The iteration raises `Lost` when it turns out that seeking went wrong: to be called again then. It and
        this raise as the source does.
        """
        if self._can_seek and not (start == 0 and self._is_fresh):
            for target in self._targets(start):
                found = self._seek(target, start)
                if found is not None:
                    return found
        if not self._is_fresh:
            self._opened.close()
            self._opened = self._open()
        self._is_fresh = False
        return (pair for pair in enumerate(self._opened.packets()) if pair[0] >= start)

    def close(self) -> None:
        """Close the container; once."""
        self._opened.close()

    def _open(self) -> Opened:
        opened = open_container(self._source, self._index.stream.stream_id)
        self._is_fresh = True
        decoder = opened.stream.codec_context
        decoder.copy_opaque = True
        decoder.thread_count = self._threads
        return opened

    def _targets(self, start: int) -> Iterator[tuple[int, bool]]:
        """Times, or offsets, to seek to, and whether they are offsets."""
        keys = self._index.starts
        packets = self._index.packets
        place = int(np.searchsorted(keys, start, "right"))
        # MOV and MP4 are sought by times of decoding, the others by those of display.
        columns = (
            (packets.dts, packets.pts)
            if "mov" in self._index.stream.container
            else (packets.pts, packets.dts)
        )
        told: set[tuple[int, bool]] = set()
        for key in keys[max(place - _KEYS, 0) : place][::-1]:
            targets = [(int(column[key]), False) for column in columns if column[key] != UNKNOWN]
            if not targets and packets.offsets[key] != UNKNOWN:
                targets = [(int(packets.offsets[key]), True)]
            for target in targets:
                if target not in told:
                    told.add(target)
                    yield target

    def _seek(self, target: tuple[int, bool], start: int) -> Iterator[Numbered] | None:
        """The packets from `start` on, when the seek landed there or before it."""
        self._is_fresh = False
        where, is_offset = target
        try:
            self._opened.container.seek(
                where, stream=self._opened.stream, backward=True, unsupported_byte_offset=is_offset
            )
        except FFmpegError:
            return None
        packets = self._opened.packets()
        first = next(packets, None)
        if first is None:
            return None
        number = self._number_of(first)
        if number is None or number > start:
            return None
        self.decoder.flush_buffers()
        return self._checked(number, first, packets, start)

    def _checked(
        self, number: int, first: Packet[VideoStream], rest: Iterator[Packet[VideoStream]], start: int
    ) -> Iterator[Numbered]:
        if number >= start:
            yield number, first
        for packet in rest:
            number += 1
            if number >= len(self._index.packets):
                return  # the rest of a packet that the file's end cuts off
            if not self._is(packet, number):
                self._can_seek = False
                raise Lost
            if number >= start:
                yield number, packet

    def _number_of(self, packet: Packet[VideoStream]) -> int | None:
        packets = self._index.packets
        is_it = packets.sizes == packet.size
        for value, column in ((packet.pos, packets.offsets), (packet.pts, packets.pts)):
            if value is not None:
                is_it &= (column == value) | (column == UNKNOWN)
        found = np.flatnonzero(is_it)
        if len(found) > 1 and packet.dts is not None:
            found = found[packets.dts[found] == packet.dts]
        return int(found[0]) if len(found) == 1 else None

    def _is(self, packet: Packet[VideoStream], number: int) -> bool:
        packets = self._index.packets
        return int(packets.sizes[number]) == packet.size and all(
            value is None or int(column[number]) in (value, UNKNOWN)
            for value, column in ((packet.pos, packets.offsets), (packet.pts, packets.pts))
        )
