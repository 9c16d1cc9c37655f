"""`Relay`: our say in what libfuse and the kernel agree upon when a session begins.

libfuse answers the kernel's INIT by itself, and has no switch for `FUSE_PARALLEL_DIROPS`, without which the
kernel asks for one name of a directory at a time: a slow look-up keeps all others there waiting. So libfuse
gets one end of a socket for its device. The one exchange goes through us, who add to the answer; then the
device takes the socket's place, and nobody is between the two any more.

In the same way a daemon goes on with the session of one that was killed: its libfuse gets the request that
the kernel sent that one, must answer the same, and the kernel is told to send again what was not answered.

Source: linux/fuse.h (`fuse_in_header`, `fuse_init_in`, `fuse_out_header`, `fuse_init_out`). Lives on the
event loop; one for the one session that a process has.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import pyfuse3
import trio

from fusefs.kernel_mount import MAX_BACKGROUND, MountFailed

SECONDS: Final = 30.0
PARALLEL_DIROPS: Final = 1 << 18

_MESSAGE_BYTES: Final = 1 << 20
"""More than libfuse's buffers have, which the kernel requires of whoever reads."""
_OFFERED: Final = 40 + 12
_FLAGS: Final = 16 + 12
_BACKGROUND: Final = 16 + 16
"""Where the flags are in the request, the flags in the answer, and the two bounds behind them."""
_OFFERED_MORE: Final = _OFFERED + 4
_INIT_EXT: Final = 1 << 30
_HAS_RESEND: Final = 1 << 39 - 32
_WORD: Final = struct.Struct("=I")
_BOUNDS: Final = struct.Struct("=HH")
_RESEND: Final = struct.pack("=IiQ", 16, 7, 0)
"""Length, FUSE_NOTIFY_RESEND, and zero: not an answer to a request."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """The exchange by which a session began."""

    request: bytes
    answer: bytes

    @property
    def can_resend(self) -> bool:
        """Can the kernel send again what was not answered (Linux 6.9)?"""
        (offered,) = _WORD.unpack_from(self.request, _OFFERED)
        if not offered & _INIT_EXT or len(self.request) < _OFFERED_MORE + _WORD.size:
            return False
        return bool(_WORD.unpack_from(self.request, _OFFERED_MORE)[0] & _HAS_RESEND)


class Relay:
    """Of the device `fuse_fd`, which is used up. `mountpoint` is for `pyfuse3.init`.

    `agreed` is how the session began that is to go on, None for a new one.
    """

    def __init__(self, fuse_fd: int) -> None:
        self._device = fuse_fd
        self.agreed: Agreement | None = None
        theirs, self._ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._ours.setblocking(False)
        self.descriptor = theirs.detach()
        """libfuse's, which closes it: the device, when the session has begun."""
        self.mountpoint = f"/dev/fd/{self.descriptor}"

    async def serve(self, begun: Callable[[Agreement], None], *, max_tasks: int) -> None:
        """Serve the session until its connection ends; `begun` is told how it began. Raises `MountFailed` if
        it does not begin."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._begin, begun)
            await pyfuse3.main(min_tasks=1, max_tasks=max_tasks)  # until the socket goes
        await pyfuse3.main(min_tasks=1, max_tasks=max_tasks)

    def close(self) -> None:
        """Let go of everything but what libfuse has."""
        self._ours.close()
        if self._device >= 0:
            os.close(self._device)
        self._device = -1

    async def _begin(self, begun: Callable[[Agreement], None]) -> None:
        before = self.agreed
        try:
            with trio.fail_after(SECONDS):
                request = await self._receive_request() if before is None else before.request
                self._ours.send(request)
                await trio.lowlevel.wait_readable(self._ours)
                answer = bytearray(self._ours.recv(_MESSAGE_BYTES))
        except trio.TooSlowError:
            raise MountFailed("the kernel and libfuse do not come to terms") from None
        except OSError as error:
            raise MountFailed(f"the mount is gone before it was served: {error.strerror}") from error
        (offered,) = _WORD.unpack_from(request, _OFFERED)
        (agreed,) = _WORD.unpack_from(answer, _FLAGS)
        _WORD.pack_into(answer, _FLAGS, agreed | (PARALLEL_DIROPS & offered))
        _BOUNDS.pack_into(answer, _BACKGROUND, MAX_BACKGROUND, MAX_BACKGROUND * 3 // 4)
        agreement = Agreement(request, bytes(answer))
        if before is not None and before != agreement:
            raise MountFailed("this libfuse is another one than that which the mount was begun with")
        trio.lowlevel.notify_closing(self.descriptor)
        os.dup2(self._device, self.descriptor, inheritable=False)
        # Before anything is read: what is read by then would come a second time.
        os.write(self._device, answer if before is None else _RESEND)
        self.close()
        begun(agreement)

    async def _receive_request(self) -> bytes:
        await trio.lowlevel.wait_readable(self._device)
        return os.read(self._device, _MESSAGE_BYTES)
