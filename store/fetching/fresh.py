"""`Fresh`: a directory in memory, laid out as a cache, that shows verified objects before a cache has them.

An object enters a cache only when the disk has it: who reads there trusts it to survive a crash. A reader who
has waited for its bytes need not wait for that, too. Whoever made the directory (`fusefs.native.fresh`) shows
it to nobody but to its own readers. Any thread, and any process that has the descriptor; never waits.
"""

from __future__ import annotations

import contextlib
import os
from typing import Final

from store.layouts import object_path
from store.oid import DVC_ALGORITHMS, Oid
from store.ownership import OBJECT_MODE

_NAMELESS: Final = os.O_WRONLY | os.O_TMPFILE | os.O_CLOEXEC


class Fresh:
    """The directory `descriptor`, which stays its owner's."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def make_directories(self) -> None:
        """Where objects come. Once, by its owner; raises OSError."""
        made = set()
        for algorithm in DVC_ALGORITHMS:
            for first in range(256):
                path = ""
                for part in object_path(Oid(f"{first:02x}" * 16, algorithm=algorithm)).split("/")[:-1]:
                    path += part
                    if path not in made:
                        os.mkdir(path, 0o700, dir_fd=self.descriptor)
                        made.add(path)
                    path += "/"

    def show(self, oid: Oid, data: bytes) -> None:
        """Have an object found, if there is room for it: whole, from one moment to the next."""
        with contextlib.suppress(OSError):
            # Without a name until it is whole: whoever is killed meanwhile leaves nothing behind.
            file = os.open(".", _NAMELESS, OBJECT_MODE, dir_fd=self.descriptor)
            try:
                if os.write(file, data) == len(data):
                    source = f"/proc/self/fd/{file}"
                    os.link(source, object_path(oid), dst_dir_fd=self.descriptor, follow_symlinks=True)
            finally:
                os.close(file)

    def take_back(self, oid: Oid) -> None:
        """Show an object no more. Who has it open goes on reading it, and the kernel may hold it for longer
        than that: memory is free when it does not."""
        with contextlib.suppress(OSError):
            os.unlink(object_path(oid), dir_fd=self.descriptor)

    def used(self) -> float:
        """How much of its memory is in use, as a fraction."""
        status = os.fstatvfs(self.descriptor)
        return max(1 - status.f_bfree / status.f_blocks, 1 - status.f_ffree / status.f_files)
