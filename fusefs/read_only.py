"""`ReadOnly`: the methods of an fsspec file system that change something, each of which refuses (EROFS)."""

from __future__ import annotations

import os
from errno import EROFS
from typing import Any, NoReturn


class ReadOnly:
    """Stands before fsspec's own class, some of whose methods would silently do nothing."""

    def mkdir(self, path: str, create_parents: bool = True, **_: Any) -> None:
        refuse(path)

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        refuse(path)

    def rmdir(self, path: str) -> None:
        refuse(path)

    def rm(self, path: Any, recursive: bool = False, maxdepth: int | None = None) -> None:
        refuse(path)

    def rm_file(self, path: str) -> None:
        refuse(path)

    def _rm(self, path: str) -> None:
        refuse(path)

    def cp_file(self, path1: str, path2: str, **_: Any) -> None:
        refuse(path2)

    def mv(self, path1: str, path2: str, **_: Any) -> None:
        refuse(path2)

    def touch(self, path: str, truncate: bool = True, **_: Any) -> None:
        refuse(path)

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **_: Any) -> None:
        refuse(path)

    def put_file(self, lpath: Any, rpath: str, callback: Any = None, mode: str = "", **_: Any) -> None:
        refuse(rpath)


def refuse(path: object) -> NoReturn:
    raise OSError(EROFS, os.strerror(EROFS), str(path))
