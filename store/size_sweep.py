"""`SizeSweep`: learns what this machine knows of a large tree's sizes, by a process of its own.

Block by block in the daemon's threads, a million sizes are twenty seconds of the interpreter that serves the
readers. A process beside it looks for them in the order of rows and fills columns that both have mapped;
a listing that comes along waits for it, as long as it gets on.

Thread rule: belongs to the event loop; one for each tree.
"""

from __future__ import annotations

import contextlib
import logging
import mmap
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import trio

from store.errors import StoreError
from store.learnt_sizes import LearntSizes, identify
from store.size_sweep_process import ROW_BYTES, SIZE_BYTES, SWEPT_AT_ONCE
from store.threads import Threads
from store.tree import Tree

SWEPT_ROWS: Final = 1 << 14
"""With so many unknown sizes a process is worth it, which takes 0.2 s to begin."""
STALLED_SECONDS: Final = 60.0
"""Without a word of it: the disk hangs."""
AWAITED_SECONDS: Final = 1.0
"""For so long who lists waits for the part of the tree that is to come next."""
COMMAND: Final = (sys.executable, "-P", "-m", "store.size_sweep_process")
_KILLED_SECONDS: Final = 2.0
_MESSAGE_BYTES: Final = 4096

log = logging.getLogger(__name__)


class SizeSweep:
    """Of one tree. What is found goes into `sizes`."""

    def __init__(self, tree: Tree, sizes: LearntSizes, threads: Threads) -> None:
        self._tree = tree
        self._sizes = sizes
        self._threads = threads
        self._swept = 0
        """Rows, from the first on, that were looked for; 0 where no process is at it."""
        self._news = trio.Event()

    async def run(self, index: Path, roots: list[Path]) -> bool:
        """Learn what the caches at `roots`, the index in the directory `index` and logs tell.

        Whether they have told all that they know. What goes wrong costs no more than that.
        """
        rows = self._tree.rows
        parts = -(-rows // SWEPT_AT_ONCE)
        try:
            shared = os.memfd_create("sizes", os.MFD_CLOEXEC)
            with open(shared, "r+b", buffering=0) as file:
                file.truncate(rows * ROW_BYTES)
                columns = memoryview(mmap.mmap(shared, rows * ROW_BYTES))
                arguments = [str(self._tree.file), str(identify(self._tree)), str(index), *map(str, roots)]
                process = subprocess.Popen(
                    [*COMMAND, *arguments],
                    stdin=file,
                    stdout=subprocess.PIPE,
                    bufsize=0,
                    start_new_session=True,
                )
        except OSError as error:
            log.info("no process looks for sizes: %s", error.strerror)
            return False
        assert process.stdout is not None  # it is a pipe
        progress = process.stdout.fileno()
        os.set_blocking(progress, False)
        sizes, hows = columns[: rows * SIZE_BYTES].cast("q"), columns[rows * SIZE_BYTES :]
        part = 0
        try:
            while part < 2 * parts:  # once more while the index learns
                with trio.fail_after(STALLED_SECONDS):
                    await trio.lowlevel.wait_readable(progress)
                told = len(os.read(progress, _MESSAGE_BYTES))
                if not told:
                    break
                for number in range(part, min(part + told, parts)):
                    first = number * SWEPT_AT_ONCE
                    last = first + SWEPT_AT_ONCE
                    self._sizes.take(first, sizes[first:last], hows[first:last])
                    self._tell(last)
                    await trio.lowlevel.checkpoint()
                part += told
        except trio.TooSlowError:
            log.warning("no size was found for %.0f s: the disk hangs", STALLED_SECONDS)
        finally:
            self._tell(0)
            trio.lowlevel.notify_closing(progress)
            process.kill()
            process.stdout.close()
            with trio.CancelScope(shield=True):
                await self._reap(process)
        return part >= parts

    async def wait_for(self, row: int) -> None:
        """Wait until the sizes of the rows up to this one are learnt, where that is to be soon."""
        while 0 < self._swept <= row < self._swept + SWEPT_AT_ONCE:
            with trio.move_on_after(AWAITED_SECONDS) as patience:
                await self._news.wait()
            if patience.cancelled_caught:
                return

    def _tell(self, swept: int) -> None:
        self._swept = swept
        self._news.set()
        self._news = trio.Event()

    async def _reap(self, process: subprocess.Popen[bytes]) -> None:
        with contextlib.suppress(StoreError, subprocess.TimeoutExpired):
            await self._threads.on_disk(process.wait, _KILLED_SECONDS)
        if process.returncode is None:
            process.returncode = 0  # it waits for a disk; Popen must not warn that we do not
