"""`.dvc` files: bytes in, validated outputs out. Versions 0.x to 3.x of DVC; unknown keys are let be.

    outs:
    - md5: 92ea5dc312bbab1be4c38c7b05d14fd6.dir
      size: 12
      nfiles: 11
      hash: md5
      path: data

`hash: md5` says that the hash is of the raw bytes; without `hash` the entry is of DVC 0.x to 2.x and
its algorithm `md5-dos2unix`. A non-empty `files` list (remotes with versioned objects) stands in for
the hash. Metafiles are hostile input; where an output's path leads is for the caller to judge.

Callers: `store.dvc.discovery`, `store.dvc.target`. Pure functions, any thread.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from typing import Final

from store.dvc.document import Mapping, Value, parse_document
from store.errors import InputError, MetafileInvalid
from store.manifest import manifest_oid, serialize_manifest
from store.oid import MD5, MD5_DOS2UNIX, Oid

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_NUMBER = re.compile(r"[0-9]{1,18}", re.ASCII)
_BOOLEANS: Final = {"true": True, "false": False}


@dataclass(frozen=True, slots=True)
class CloudVersion:
    """Where a remote that keeps versions has an object. Fields that are not known are empty."""

    remote: str
    version_id: str
    etag: str


@dataclass(frozen=True, slots=True)
class CloudFile:
    """One entry of `files`. `relpath` is unchecked: whoever makes a tree of it must."""

    relpath: str
    oid: Oid | None
    size: int | None
    cloud: CloudVersion | None


@dataclass(frozen=True, slots=True)
class Output:
    """One thing that a metafile tracks."""

    path: str
    """Relative to the metafile's directory, `wdir` applied, normalised, `/`-separated; it may begin
    with `..`. As written where `external`."""
    oid: Oid | None
    """The content; None for a partial import, an output that was never made, or an external one."""
    size: int | None
    """Bytes, of all files together for a directory; DVC 0.x did not write it."""
    nfiles: int | None
    isexec: bool
    cached: bool
    """False: the content is in git and the hash only tells about it."""
    push: bool
    remote: str
    """The remote that has the content; empty for the default one."""
    external: bool
    """Outside the repository: an absolute path or a URL."""
    files: tuple[CloudFile, ...] = ()
    cloud: CloudVersion | None = None

    @property
    def is_dir(self) -> bool:
        return bool((self.oid and self.oid.is_tree) or self.files or self.nfiles)


def parse_dvc_file(data: bytes, where: str) -> tuple[Output, ...]:
    """The outputs of the `.dvc` file `data`, called `where` in messages, in the file's order.

    Raises `MetafileInvalid`, which names file and line.
    """
    document = parse_document(data, where)
    wdir = _text(document, "wdir", where)
    return tuple(_parse_output(out, wdir, where) for out in _mappings(document, "outs", where))


def _parse_output(out: Mapping, wdir: str, where: str) -> Output:
    written = _text(out, "path", where)
    if not written or "\0" in written or "\0" in wdir:
        raise _fault(out, where, "an output without a path")
    external = bool(_URL.match(written)) or written.startswith("/") or wdir.startswith("/")
    files = tuple(_parse_cloud_file(file, where) for file in _mappings(out, "files", where))
    return Output(
        path=written if external else posixpath.normpath(posixpath.join(wdir, written)),
        oid=None if external else _output_oid(out, files, where),
        size=_number(out, "size", where),
        nfiles=_number(out, "nfiles", where),
        isexec=_boolean(out, "isexec", False, where),
        cached=_boolean(out, "cache", True, where),
        push=_boolean(out, "push", True, where),
        remote=_text(out, "remote", where),
        external=external,
        files=files,
        cloud=_parse_cloud(out, where),
    )


def _output_oid(out: Mapping, files: tuple[CloudFile, ...], where: str) -> Oid | None:
    """The hash of an output in the repository. `files`, where there are any, overrides `md5`."""
    if not files:
        return _parse_oid(out, where)
    pairs = [(file.relpath, str(file.oid)) for file in files if file.oid]
    return manifest_oid(serialize_manifest(pairs)) if len(pairs) == len(files) else None


def _parse_oid(entry: Mapping, where: str, default: str = MD5_DOS2UNIX) -> Oid | None:
    """The entry's `md5`; its algorithm is `default` where the entry does not name one."""
    digest = _text(entry, "md5", where)
    if not digest:
        return None
    algorithm = _text(entry, "hash", where) or default
    if algorithm not in (MD5, MD5_DOS2UNIX):
        raise _fault(entry, where, f"the hash {algorithm!r} is of a newer DVC than this program knows")
    try:
        return Oid.parse(digest, algorithm)
    except InputError:
        raise _fault(entry, where, f"{digest[:80]!r} is not an MD5") from None


def _parse_cloud_file(file: Mapping, where: str) -> CloudFile:
    relpath = _text(file, "relpath", where)
    if not relpath:
        raise _fault(file, where, "a file without a relpath")
    return CloudFile(
        relpath, _parse_oid(file, where, MD5), _number(file, "size", where), _parse_cloud(file, where)
    )


def _parse_cloud(entry: Mapping, where: str) -> CloudVersion | None:
    """`cloud: {remote: {etag, version_id}}`, of one remote; or a bare `version_id` (DVC 2)."""
    cloud = entry.get("cloud")
    if isinstance(cloud, Mapping):
        for remote, version in cloud.items():
            if isinstance(version, Mapping):
                version_id = _text(version, "version_id", where)
                return CloudVersion(remote, version_id, _text(version, "etag", where))
    elif cloud is not None:
        raise _fault(entry, where, "cloud is not a mapping")
    version_id = _text(entry, "version_id", where)
    return CloudVersion("", version_id, _text(entry, "etag", where)) if version_id else None


def _mappings(mapping: Mapping, key: str, where: str) -> list[Mapping]:
    """The list of mappings under `key`; none where the key is absent or null."""
    value = mapping.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise _fault(mapping, where, f"{key} is not a list")
    mappings = [item for item in value if isinstance(item, Mapping)]
    if len(mappings) != len(value):
        raise _fault(mapping, where, f"{key} holds something that is not a mapping")
    return mappings


def _text(mapping: Mapping, key: str, where: str) -> str:
    """The text under `key`; empty where the key is absent or null."""
    value: Value = mapping.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise _fault(mapping, where, f"{key} is not text")
    return value


def _number(mapping: Mapping, key: str, where: str) -> int | None:
    text = _text(mapping, key, where)
    if not text:
        return None
    if not _NUMBER.fullmatch(text):
        raise _fault(mapping, where, f"{key} is not a number of reasonable size")
    return int(text)


def _boolean(mapping: Mapping, key: str, default: bool, where: str) -> bool:
    text = _text(mapping, key, where)
    if not text:
        return default
    if text.lower() not in _BOOLEANS:
        raise _fault(mapping, where, f"{key} is neither true nor false")
    return _BOOLEANS[text.lower()]


def _fault(mapping: Mapping, where: str, message: str) -> MetafileInvalid:
    return MetafileInvalid(f"{where} line {mapping.line}: {message}")
