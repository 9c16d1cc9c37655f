"""What the store raises, as Python's own exceptions: for callers who have no kernel between them and us."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from errno import ENOENT
from typing import Final

from fusefs.error_codes import errno_of
from store.errors import InputError, NotStored, NotTracked, RevisionUnknown, StoreError

_ABSENT: Final = (NotTracked, NotStored, RevisionUnknown)


@contextlib.contextmanager
def python_errors(path: str) -> Iterator[None]:
    """What the store raises in the block is raised as `python_error` has it."""
    try:
        yield
    except StoreError as error:
        raise python_error(error, path) from None


def python_error(error: StoreError, path: str) -> Exception:
    """The exception of Python's for an error of the store that `path` led to."""
    if isinstance(error, _ABSENT):
        return FileNotFoundError(ENOENT, str(error), path)
    if isinstance(error, InputError):
        return ValueError(str(error))
    return OSError(errno_of(error), str(error), path)
