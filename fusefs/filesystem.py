"""`FusefsFileSystem`: a version as an fsspec file system, without a mount: for containers that may not.

    import fusefs
    with fusefs.open("data", rev="v1.0") as files:
        files.ls("")
        files.cat_file("images/1.jpg")

    fsspec.open("fusefs:///srv/project/data@v1.0!/images/1.jpg")
    pandas.read_csv("fusefs://labels.csv", storage_options={"target": "/srv/project/data", "rev": "v1.0"})

Paths are relative to the version's root. In a URL the target may stand before `!/`; without it the whole is
a path, and the target is an option. Names and sizes come from the compiled tree, bytes from the cache, and
what is missing from the remotes, as in a mount (`fusefs.session`). Everything is read-only.

An instance may be used by many threads and after a fork; pickled, it opens the same again. It shows the
version that its names led to when it was first used, until it is closed. Errors are Python's own: what is not
in the version is FileNotFoundError, what cannot be had is the OSError that a mount would give, with the line
that would stand in its log.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from fsspec.callbacks import DEFAULT_CALLBACK
from fsspec.spec import AbstractFileSystem
from fsspec.utils import isfilelike, stringify_path

from fusefs import sessions
from fusefs.opening import canonical, make_opening
from fusefs.python_errors import python_error, python_errors
from fusefs.read_only import ReadOnly, refuse
from fusefs.session import OpenedObject, Session
from fusefs.version_file import BLOCK_BYTES, VersionFile, copy_object
from fusefs.version_paths import describe, find_file, find_row, join, time_of_row, walk_rows
from store.errors import StoreError

PROTOCOL: Final = "fusefs"
SEPARATOR: Final = "!/"
"""In a URL: between the target and the path in it."""


class _Canonical(type(AbstractFileSystem)):  # type: ignore[misc]  # fsspec has no types
    """Instances are kept by what their options mean: names made absolute, defaults left out."""

    def __call__(cls, target: str | os.PathLike[str] = "", **options: Any) -> Any:
        return super().__call__(**canonical(target, options))


class FusefsFileSystem(ReadOnly, AbstractFileSystem, metaclass=_Canonical):  # type: ignore[misc]
    """See the module. Options are those of `fusefs mount`: `target`, `rev`, `repo`, `cache`, `remote` (one or
    several), `trust`, `offline`, `verify`, `cache_size`, `cache_free`.

    Nothing is opened before the first use, or `connect`.
    """

    protocol = PROTOCOL
    root_marker = ""
    cachable = True

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._opening = make_opening(options)
        self._borrowed: sessions.Borrowed | None = None

    # The version

    def connect(self) -> FusefsFileSystem:
        """Open the version now and not at the first use. Raises OSError, and ValueError for options that
        cannot be used."""
        self._session()
        return self

    def close(self) -> None:
        """Let go of the version, for good when the files are closed that are open. Used again, it is opened
        anew."""
        self._borrowed = None

    def __enter__(self) -> FusefsFileSystem:
        return self.connect()

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def rev(self) -> str:
        """The git commit that is shown; empty where none is known."""
        return self._session().rev

    @property
    def oid(self) -> str:
        """What is shown, as DVC prints it; empty for several outputs."""
        return self._session().oid

    def _session(self) -> Session:
        return self._borrow().session

    def _borrow(self) -> sessions.Borrowed:
        borrowed = self._borrowed
        if borrowed is None or not borrowed.is_here:
            with python_errors(self._opening.request.target):
                # Of two threads that come here at a time the later one's stays, and the other is given back.
                borrowed = self._borrowed = sessions.lend(self._opening)
        return borrowed

    @property
    def session(self) -> Session:
        """What reads the version in this process."""
        return self._session()

    # URLs

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        if isinstance(path, list):
            return [cls._strip_protocol(one) for one in path]
        path = stringify_path(path)
        if path.startswith(f"{PROTOCOL}://"):
            path = path.removeprefix(f"{PROTOCOL}://")
            _, separator, inner = path.partition(SEPARATOR)
            path = inner if separator else path
        return path.strip("/")

    def unstrip_protocol(self, name: str) -> str:
        path = self._strip_protocol(name)
        return f"{PROTOCOL}://{self.storage_options['target']}{SEPARATOR}{path}"

    @staticmethod
    def _get_kwargs_from_urls(path: str) -> dict[str, str]:
        target, separator, _ = path.removeprefix(f"{PROTOCOL}://").partition(SEPARATOR)
        return {"target": target} if separator else {}

    # Names

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        session = self._session()
        path = self._strip_protocol(path)
        row = find_row(session, path)
        tree = session.tree
        if not tree.is_directory(row):
            return [describe(session, row, path)] if detail else [path]
        rows = tree.children(row)
        names = [join(path, tree.name(child)) for child in rows]
        if not detail:
            return names
        with python_errors(path):
            session.learn(rows)
        return [describe(session, child, name) for child, name in zip(rows, names, strict=True)]

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        session = self._session()
        path = self._strip_protocol(path)
        row = find_row(session, path)
        if not session.tree.is_directory(row):
            with python_errors(path):
                session.find_sizes([row])
        found = describe(session, row, path)
        if find_row(session, path, follow=False) != row:
            found["islink"] = True
        return found

    def exists(self, path: str, **_: Any) -> bool:
        try:
            find_row(self._session(), self._strip_protocol(path))
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def lexists(self, path: str, **_: Any) -> bool:
        try:
            find_row(self._session(), self._strip_protocol(path), follow=False)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def isdir(self, path: str) -> bool:
        return self._is(path, directory=True)

    def isfile(self, path: str) -> bool:
        return self._is(path, directory=False)

    def find(
        self, path: str, maxdepth: int | None = None, withdirs: bool = False, detail: bool = False, **_: Any
    ) -> Any:
        if maxdepth is not None and maxdepth < 1:
            raise ValueError("maxdepth must be at least 1")
        session = self._session()
        path = self._strip_protocol(path)
        found = sorted(walk_rows(session, path, maxdepth, withdirs))
        if not detail:
            return [name for name, _ in found]
        return {name: describe(session, row, name) for name, row in found}

    def du(
        self, path: str, total: bool = True, maxdepth: int | None = None, withdirs: bool = False, **_: Any
    ) -> Any:
        session = self._session()
        path = self._strip_protocol(path)
        found = list(walk_rows(session, path, maxdepth, withdirs))
        with python_errors(path):
            sizes = session.find_sizes([row for _, row in found])
        if total:
            return sum(sizes)
        return {name: size for (name, _), size in zip(found, sizes, strict=True)}

    def checksum(self, path: str) -> str:
        """The oid of a file; of a directory what stands for all that is below it."""
        tree = self._session().tree
        row = find_row(self._session(), self._strip_protocol(path))
        return tree.digest_of(row).hex() if tree.is_directory(row) else str(tree.oid(row))

    def ukey(self, path: str) -> str:
        return self.checksum(path)

    def created(self, path: str) -> datetime:
        """As `modified`."""
        return self.modified(path)

    def modified(self, path: str) -> datetime:
        """A date that follows from the content, as in a mount: equal for equal content and for no other."""
        session = self._session()
        row = find_row(session, self._strip_protocol(path))
        return datetime.fromtimestamp(time_of_row(session.tree, row), UTC)

    # Bytes

    def _open(
        self,
        path: str,
        mode: str = "rb",
        block_size: int | None = None,
        autocommit: bool = True,
        cache_options: dict[str, Any] | None = None,
        **options: Any,
    ) -> VersionFile:
        if mode != "rb":
            refuse(path)
        return VersionFile(
            self, path, block_size=block_size or BLOCK_BYTES, cache_options=cache_options, **options
        )

    def open_object(self, path: str) -> OpenedObject:
        """A file's bytes, held open. For `VersionFile`."""
        borrowed = self._borrow()
        row = find_file(borrowed.session, path)
        with python_errors(path):
            return borrowed.session.open(row, borrowed)

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        (found,) = self._read_many([path], [start], [end])
        if isinstance(found, Exception):
            raise found
        return found

    def cat(self, path: Any, recursive: bool = False, on_error: str = "raise", **options: Any) -> Any:
        paths = self.expand_path(path, recursive=recursive)
        if isinstance(path, str | os.PathLike) and paths == [self._strip_protocol(path)]:
            return self.cat_file(paths[0], **options)
        files = [one for one in paths if not (recursive and self.isdir(one))]
        unbounded = [None] * len(files)
        found = self._read_many(files, unbounded, unbounded, stops=on_error == "raise")
        kept = dict(zip(files, found, strict=True))
        if on_error == "omit":
            return {name: data for name, data in kept.items() if not isinstance(data, Exception)}
        return kept

    def cat_ranges(
        self,
        paths: list[str],
        starts: Any,
        ends: Any,
        max_gap: int | None = None,
        on_error: str = "return",
        **_: Any,
    ) -> list[bytes | Exception]:
        """As fsspec has it; all ranges are fetched at the same time."""
        if max_gap is not None:
            raise NotImplementedError("ranges are not merged: blocks that two of them need are fetched once")
        if not isinstance(paths, list):
            raise TypeError("paths must be a list")
        starts, ends = (one if isinstance(one, list) else [one] * len(paths) for one in (starts, ends))
        if not len(starts) == len(ends) == len(paths):
            raise ValueError("there must be as many starts and ends as paths")
        return self._read_many(paths, starts, ends, stops=on_error != "return")

    def get_file(
        self, rpath: str, lpath: Any = None, callback: Any = DEFAULT_CALLBACK, outfile: Any = None, **_: Any
    ) -> None:
        """Copy a file to a local one, which is removed again where that fails."""
        if outfile is None and isfilelike(lpath):
            outfile = lpath
        rpath = self._strip_protocol(rpath)
        if outfile is not None:
            copy_object(self.open_object(rpath), rpath, outfile, callback)
            return
        local = Path(lpath)
        if self.isdir(rpath):
            local.mkdir(parents=True, exist_ok=True)
            return
        opened = self.open_object(rpath)
        local.parent.mkdir(parents=True, exist_ok=True)
        with local.open("wb") as file:
            try:
                copy_object(opened, rpath, file, callback)
            except BaseException:
                if not local.is_symlink() and local.is_file():  # and no device
                    local.unlink()
                raise

    def _read_many(
        self,
        paths: Sequence[str],
        starts: Sequence[int | None],
        ends: Sequence[int | None],
        *,
        stops: bool = False,
    ) -> list[bytes | Exception]:
        """The bytes of ranges, or what keeps them from being had; with `stops` that is raised."""
        session = self._session()
        found: list[bytes | Exception] = [b""] * len(paths)
        wanted: dict[int, tuple[int, int | None, int | None]] = {}
        for place, path in enumerate(paths):
            try:
                row = find_file(session, self._strip_protocol(path))
                wanted[place] = (row, starts[place], ends[place])
            except OSError as error:
                found[place] = error
        with python_errors(self._opening.request.target):
            read = session.read_many(list(wanted.values()))
        for place, data in zip(wanted, read, strict=True):
            found[place] = python_error(data, paths[place]) if isinstance(data, StoreError) else data
        failures = [data for data in found if isinstance(data, Exception)]
        if stops and failures:
            raise failures[0]
        return found

    # Rows

    def _is(self, path: str, *, directory: bool) -> bool:
        session = self._session()
        try:
            row = find_row(session, self._strip_protocol(path))
        except (FileNotFoundError, NotADirectoryError):
            return False
        return session.tree.is_directory(row) is directory and not session.tree.is_symlink(row)


def open_file_system(target: str | os.PathLike[str], options: Mapping[str, Any]) -> FusefsFileSystem:
    """What `fusefs.open` returns: connected, so that what is wrong with the target is raised now."""
    made: FusefsFileSystem = FusefsFileSystem(target=target, **options)
    return made.connect()
