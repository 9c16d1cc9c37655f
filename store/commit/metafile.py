"""Writes a version into its `.dvc` file, as `dvc add` would: what else stands there stays.

ruamel.yaml writes YAML as DVC does (DVC uses it, with these settings), and keeps comments, order
and keys of an existing file. Used by `version`; `compose_metafile` is pure.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import posixpath
import secrets
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any, Final

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from store.dvc.document import SIZE_LIMIT, parse_document
from store.dvc.files import read_regular
from store.errors import InputError, MetafileInvalid
from store.oid import MD5, Oid

SUFFIX: Final = ".dvc"
_WRITTEN: Final = os.O_WRONLY | os.O_CLOEXEC
_VALUE_KEYS: Final = (
    "md5", "size", "nfiles", "isexec", "hash", "etag", "checksum", "version_id", "files", "cloud",
)  # fmt: skip
"""What describes content: replaced as a whole, so that nothing of the old version stays."""


def content_fields(oid: Oid, size: int, nfiles: int | None, isexec: bool) -> dict[str, str | int | bool]:
    """The keys that describe a version, in DVC's order. `nfiles` is None for a single file."""
    fields: dict[str, str | int | bool] = {"md5": str(oid), "size": size}
    if nfiles is not None:
        fields["nfiles"] = nfiles
    if isexec:
        fields["isexec"] = True
    fields["hash"] = MD5
    return fields


def compose_metafile(old: bytes | None, where: str, path: str, fields: dict[str, str | int | bool]) -> bytes:
    """The metafile's new bytes. `old` are those it has, `where` its name in messages.

    `path` is the output's, relative to the metafile's directory and normalised. Raises
    `MetafileInvalid` for an old file that cannot be read, `InputError` for one that is not `dvc add`'s
    to change: an import, or an output whose content is in git.
    """
    yaml = YAML()
    yaml.default_flow_style = False
    if old is None:
        return _dump(yaml, {"outs": [{**fields, "path": path}]})
    parse_document(old, where)  # names the line of what is wrong, and bounds what is hostile
    try:
        document = yaml.load(old.decode())
    except (YAMLError, RecursionError, ValueError) as error:
        raise MetafileInvalid(f"{where} cannot be changed: {str(error).splitlines()[0]}") from None
    if not document:
        return _dump(yaml, {"outs": [{**fields, "path": path}]})
    if document.get("deps") or document.get("cmd"):
        raise InputError(
            f"{where} was imported or made by a command; bring it up to date with dvc, or remove it first"
        )
    document.pop("md5", None)  # of the metafile itself, as old versions of DVC wrote
    wdir = str(document.get("wdir") or ".")
    for out in document.get("outs") or []:
        if posixpath.normpath(posixpath.join(wdir, str(out.get("path", "")))) == path:
            _replace_content(out, fields, where)
            return _dump(yaml, document)
    raise InputError(f"{where} is there and tracks something else; rename it or remove it")


def _replace_content(out: MutableMapping[str, Any], fields: dict[str, str | int | bool], where: str) -> None:
    if out.get("cache") is False:
        raise InputError(f"{where} says that the content is kept in git (cache: false); nothing to commit")
    for key in _VALUE_KEYS:
        if key not in fields and key in out:
            del out[key]
    for key, value in fields.items():
        if key not in out or out[key] != value:
            out[key] = value
    for key, default in (("cache", True), ("push", True), ("persist", False), ("metric", False)):
        if out.get(key) is default:  # said by DVC 0.x, implied since
            del out[key]


def _dump(yaml: YAML, document: object) -> bytes:
    stream = io.StringIO()
    yaml.dump(document, stream)
    return stream.getvalue().encode()


def read_metafile(path: Path) -> bytes | None:
    """The bytes of an existing metafile. Raises `InputError` for what is there and is not a file."""
    try:
        if path.is_symlink():
            raise InputError(f"{str(path)!r} is a symbolic link; put a file in its place")
        return read_regular(path, SIZE_LIMIT, follow=False)
    except OSError as error:
        raise InputError(f"cannot read {str(path)!r}: {error.strerror}") from None


def replace_file(path: Path, data: bytes) -> None:
    """Write `data` to `path` in one step: the old file or the new one, after a crash too.

    A new file belongs to the directory's owner where root writes it. What becomes of it has no name while it
    is written; one that takes the place of another has a second one for a moment, which the next writer
    removes where we were killed in it. Raises `InputError`.
    """
    try:
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            old = path.stat() if path.exists() else None
            try:
                _replace(directory, path.name, old, data, nameless=True)
            except (FileExistsError, FileNotFoundError):
                # Of two who write at once one takes the second name from the other, whose file is then lost:
                # what was nameless, got a name and lost it cannot get another.
                _replace(directory, path.name, old, data, nameless=False)
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        raise InputError(f"cannot write {str(path)!r}: {error.strerror}") from None


def _replace(directory: int, name: str, old: os.stat_result | None, data: bytes, *, nameless: bool) -> None:
    with _new_file(directory, nameless=nameless) as (fd, temporary):
        owner = old or os.fstat(directory)
        if os.geteuid() == 0 and (owner.st_uid, owner.st_gid) != (0, 0):
            os.fchown(fd, owner.st_uid, owner.st_gid)
        if old:
            os.fchmod(fd, old.st_mode & 0o777)
        with open(fd, "wb", closefd=False) as file:
            file.write(data)
        os.fsync(fd)
        if temporary:
            os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
        else:
            _give_name(fd, directory, name)


@contextlib.contextmanager
def _new_file(directory: int, *, nameless: bool) -> Iterator[tuple[int, str]]:
    """A new file, to be written, and its temporary name: none where it is to be `nameless`, and can be."""
    temporary, fd = "", -1
    if nameless:
        with contextlib.suppress(OSError):
            fd = os.open(".", _WRITTEN | os.O_TMPFILE, 0o666, dir_fd=directory)
    if fd < 0:
        temporary = f".{secrets.token_hex(8)}.tmp"
        fd = os.open(temporary, _WRITTEN | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666, dir_fd=directory)
    try:
        yield fd, temporary
    except BaseException:
        if temporary:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=directory)
        raise
    finally:
        os.close(fd)


def _give_name(fd: int, directory: int, name: str) -> None:
    """Have a nameless file take a name, and the place of what has it. Raises `OSError`; `FileExistsError` and
    `FileNotFoundError` where somebody else does so at the same time, and the file is lost."""
    source = f"/proc/self/fd/{fd}"
    temporary = f".{hashlib.blake2b(os.fsencode(name), digest_size=8).hexdigest()}.tmp"
    with contextlib.suppress(FileNotFoundError):  # of one who was killed between the two steps below
        os.unlink(temporary, dir_fd=directory)
    try:
        os.link(source, name, dst_dir_fd=directory, follow_symlinks=True)
    except FileExistsError:
        os.link(source, temporary, dst_dir_fd=directory, follow_symlinks=True)
        os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
