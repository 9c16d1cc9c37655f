"""What a process has from whoever started it, made good where that is no ground to stand on.

Called first of all by the entry points of the command line, in a process with one thread.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Final

_STREAMS: Final = (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w"))


def mend_inherited() -> None:
    """Have standard streams, and hear of children that end."""
    for name, descriptor, mode in _STREAMS:
        try:
            os.fstat(descriptor)
        except OSError:
            # Else the next file would get the number: `/dev/fuse`, which a child takes for its output.
            opened = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
            if opened != descriptor:
                os.dup2(opened, descriptor)
                os.close(opened)
            os.set_inheritable(descriptor, True)
        if getattr(sys, name) is None:
            stream = open(descriptor, mode, closefd=False)  # noqa: SIM115  # for as long as we live
            setattr(sys, name, stream)
    if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:  # the kernel would throw exit statuses away
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
