"""`Succession`: what a daemon has of the one before it, and keeps for the one after it.

The daemon's side of `fusefs.supervisor`. Lives on the event loop.
"""

from __future__ import annotations

import logging
import os

import trio

from fusefs.journal import Journal
from fusefs.notify import notify
from fusefs.supervisor import ENDING, NOTIFY, SERVING, TOLD, Supervision
from store.errors import StoreError

log = logging.getLogger(__name__)


class Succession:
    """Of one daemon."""

    def __init__(self, supervision: Supervision, journal: Journal) -> None:
        self.journal = journal
        self.handles = supervision.handles
        """The memory file of `fusefs.handles`."""
        self.restarts = supervision.restarts
        self._supervision = supervision
        self._is_supervised = True

    @property
    def supervisor(self) -> int | None:
        """The process that ends after us; None if it is gone already."""
        return self._supervision.supervisor if os.getppid() == self._supervision.supervisor else None

    def tell_ready(self) -> None:
        """The command was told that the mount is ready."""
        self._tell(TOLD)

    def keep_agreement(self, can_resend: bool, request: bytes, answer: bytes) -> None:
        """Keep how the session began, and say that another daemon could go on from here, if the kernel can
        send again what was not answered."""
        if not can_resend:
            log.info(
                "before Linux 6.9 no other daemon can take the place of one that dies: the mount ends then"
            )
            return
        if not self.restarts:
            try:
                self.journal.append("agreed", request=request, answer=answer)
            except StoreError as error:
                log.warning("%s", error)
                return
        self._tell(SERVING)

    def tell_ending(self) -> None:
        """Nobody is to take our place."""
        self._tell(ENDING)

    def notify(self, *assignments: str) -> None:
        """As `fusefs.notify`, by the process that the service manager listens to."""
        lines = [" ".join(assignment.splitlines()) for assignment in assignments]
        if os.environ.get("NOTIFY_SOCKET") and not self._tell(NOTIFY + os.fsencode("\0".join(lines))):
            notify(*assignments)

    def _tell(self, message: bytes) -> bool:
        try:
            os.write(self._supervision.told, message + b"\n")
        except OSError:
            return False
        return True

    async def watch(self) -> None:
        """Say in the log when there is no supervisor any more."""
        await trio.lowlevel.wait_readable(self._supervision.alive)
        log.warning("the supervisor is gone: when this daemon dies, the mount ends")
