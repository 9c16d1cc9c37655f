"""The decorator that no handler goes without: an errno for every error (`fusefs.error_codes`).

pyfuse3 takes `FUSEError` and nothing else: any other exception that leaves a handler ends the
whole mount. So every handler is wrapped, what is known gets its errno, and what is not is EIO
with a traceback in the log. `trio.Cancelled` is no `Exception` and passes: that is how a mount ends.
"""

from __future__ import annotations

import errno
import functools
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, Final, ParamSpec, Protocol, TypeVar

import pyfuse3

from fusefs.error_codes import errno_of
from store.errors import StoreError

log = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")


class HasFailures(Protocol):
    """What the decorated class offers: it is told of every failed request, with a line for the log."""

    requests: dict[str, int]
    """How often each handler was called."""

    def failed(self, message: str) -> None: ...


Self_ = TypeVar("Self_", bound=HasFailures)


def answering(
    handler: Callable[Concatenate[Self_, P], Coroutine[Any, Any, R]],
) -> Callable[Concatenate[Self_, P], Coroutine[Any, Any, R]]:
    """Make a handler answer an errno for whatever is raised in it."""

    kind = handler.__name__

    @functools.wraps(handler)
    async def wrapped(self: Self_, /, *args: P.args, **kwargs: P.kwargs) -> R:
        self.requests[kind] = self.requests.get(kind, 0) + 1
        try:
            return await handler(self, *args, **kwargs)
        except pyfuse3.FUSEError:
            raise
        except StoreError as error:
            self.failed(str(error))
            raise pyfuse3.FUSEError(errno_of(error)) from None
        except OSError as error:
            self.failed(f"{kind}: {error}")
            raise pyfuse3.FUSEError(errno.EIO) from None
        except Exception:  # a bug of ours must cost one request, not the mount
            log.exception("%s failed; the reader gets EIO", kind)
            self.failed("")
            raise pyfuse3.FUSEError(errno.EIO) from None

    return wrapped


EINVAL: Final = errno.EINVAL
EISDIR: Final = errno.EISDIR
ENOENT: Final = errno.ENOENT
ESTALE: Final = errno.ESTALE
ENAMETOOLONG: Final = errno.ENAMETOOLONG
ENODATA: Final = pyfuse3.ENOATTR
