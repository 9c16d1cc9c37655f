"""The one table from the store's errors to errnos. Without pyfuse3, for whoever has no kernel to answer.

Callers: `fusefs.errnos` for handlers of a mount, `fusefs.filesystem` for Python. Pure.
"""

from __future__ import annotations

import errno
from typing import Final

from store.errors import (
    CacheUnusable,
    ObjectCorrupt,
    ObjectMissing,
    Offline,
    RemoteDenied,
    RemoteSlow,
    RemoteUnreachable,
    StoreError,
    StoreTimeout,
)

# Most specific first. A missing or corrupt object is EIO and never ENOENT: the name is there.
_TABLE: Final = (
    (ObjectMissing, errno.EIO),
    (ObjectCorrupt, errno.EIO),
    (StoreTimeout, errno.ETIMEDOUT),
    (CacheUnusable, errno.EIO),
    (RemoteSlow, errno.ETIMEDOUT),
    (RemoteDenied, errno.EACCES),
    (RemoteUnreachable, errno.EHOSTUNREACH),
    (Offline, errno.ENETUNREACH),
    (StoreError, errno.EIO),
)


def errno_of(error: StoreError) -> int:
    """The errno that a reader gets for a store error."""
    return next(code for kind, code in _TABLE if isinstance(error, kind))
