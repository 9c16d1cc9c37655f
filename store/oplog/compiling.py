"""`python -m store.oplog.compiling CACHE REMOTE`: compile the copies of a remote's logs.

For a daemon, which would need a gigabyte for it (`store.oplog.hints`). Ends with whoever started it.
"""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import sys
from pathlib import Path
from typing import Final

from store.oplog.copies import LogCopies

_PR_SET_PDEATHSIG: Final = 1
_NICE: Final = 10


def main() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    os.nice(_NICE)
    gc.disable()  # there are millions of objects, and no cycles among them
    cache, key = sys.argv[1:]
    LogCopies(Path(cache)).compile(key)


if __name__ == "__main__":
    main()
