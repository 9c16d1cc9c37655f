"""`.dvc` files: bytes in, validated outputs out. Versions 0.x to 3.x of DVC; unknown keys are let be.

The `Dvcfile` and the stage files of DVC 0.x (with `cmd` in them) are the same format.

    outs:
    - md5: 92ea5dc312bbab1be4c38c7b05d14fd6.dir
      size: 12
      nfiles: 11
      hash: md5
      path: data

`hash: md5` says that the hash is of the raw bytes; without `hash` the entry is of DVC 0.x to 2.x and
its algorithm `md5-dos2unix`. A non-empty `files` list (remotes with versioned objects) stands in for
the hash. Metafiles are hostile input; where an output's path leads is for the caller to judge.

Callers: `store.dvc.discovery`, `store.dvc.pipeline`. Pure functions, any thread.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass, replace

from store.dvc.document import Mapping, parse_document
from store.dvc.fields import fault, read_boolean, read_mappings, read_number, read_text
from store.dvc.import_source import ImportSource, RepositoryImport, parse_import_source
from store.errors import InputError
from store.manifest import Entry, manifest_oid, serialize_manifest
from store.oid import MD5, MD5_DOS2UNIX, Oid

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


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
    stage: str = ""
    """The stage of a pipeline that makes it, as `dvc.yaml` names it; empty for a `.dvc` file's."""
    source: ImportSource | None = None
    """Where it was imported from."""

    @property
    def is_dir(self) -> bool:
        return bool((self.oid and self.oid.is_tree) or self.files or self.nfiles)

    @property
    def is_partial_import(self) -> bool:
        """Of another repository and not downloaded: whether it is a file or a directory is not told here."""
        return self.oid is None and not self.external and isinstance(self.source, RepositoryImport)

    @property
    def may_enclose(self) -> bool:
        """Whether there may be paths in it."""
        return self.is_dir or self.is_partial_import

    @property
    def entries(self) -> tuple[Entry, ...]:
        """What a directory holds, where the metafile itself says so: `oid` then needs no manifest.

        Empty where it does not, and where a file has no hash. Paths are unchecked.
        """
        listed = [(file.relpath, file.oid, file.size) for file in self.files]
        known = tuple(Entry(relpath, oid.digest, size) for relpath, oid, size in listed if oid)
        return known if len(known) == len(listed) else ()


def parse_dvc_file(data: bytes, where: str) -> tuple[Output, ...]:
    """The outputs of the `.dvc` file `data`, called `where` in messages, in the file's order.

    Raises `MetafileInvalid`, which names file and line.
    """
    document = parse_document(data, where)
    wdir = read_text(document, "wdir", where)
    source = parse_import_source(document, where)
    outputs = (parse_output(out, wdir, where) for out in read_mappings(document, "outs", where))
    return tuple(replace(output, source=source) if source else output for output in outputs)


def place_output(written: str, wdir: str) -> tuple[str, bool]:
    """Where an output written as `written` lies, as `Output.path` has it; whether it is external."""
    external = bool(_URL.match(written)) or written.startswith("/") or wdir.startswith("/")
    return written if external else posixpath.normpath(posixpath.join(wdir, written)), external


def parse_output(out: Mapping, wdir: str, where: str) -> Output:
    """One entry of `outs` in a `.dvc` file or a `dvc.lock`. Raises `MetafileInvalid`."""
    written = read_text(out, "path", where)
    if not written or "\0" in written or "\0" in wdir:
        raise fault(out, where, "an output without a path")
    path, external = place_output(written, wdir)
    files = tuple(_parse_cloud_file(file, where) for file in read_mappings(out, "files", where))
    size = read_number(out, "size", where)
    return Output(
        path=path,
        oid=None if external else _output_oid(out, files, where),
        size=_total_size(files) if size is None else size,
        nfiles=len(files) or read_number(out, "nfiles", where),
        isexec=read_boolean(out, "isexec", False, where),
        cached=read_boolean(out, "cache", True, where),
        push=read_boolean(out, "push", True, where),
        remote=read_text(out, "remote", where),
        external=external,
        files=files,
        cloud=_parse_cloud(out, where),
    )


def _total_size(files: tuple[CloudFile, ...]) -> int | None:
    """What the files have together, where that is known of each; DVC does not write it beside them."""
    known = [file.size for file in files if file.size is not None]
    return sum(known) if files and len(known) == len(files) else None


def _output_oid(out: Mapping, files: tuple[CloudFile, ...], where: str) -> Oid | None:
    """The hash of an output in the repository. `files`, where there are any, overrides `md5`."""
    if not files:
        return _parse_oid(out, where)
    pairs = [(file.relpath, str(file.oid)) for file in files if file.oid]
    return manifest_oid(serialize_manifest(pairs)) if len(pairs) == len(files) else None


def _parse_oid(entry: Mapping, where: str, default: str = MD5_DOS2UNIX) -> Oid | None:
    """The entry's `md5`; its algorithm is `default` where the entry does not name one."""
    digest = read_text(entry, "md5", where)
    if not digest:
        return None
    algorithm = read_text(entry, "hash", where) or default
    if algorithm not in (MD5, MD5_DOS2UNIX):
        raise fault(entry, where, f"the hash {algorithm!r} is of a newer DVC than this program knows")
    try:
        return Oid.parse(digest, algorithm)
    except InputError:
        raise fault(entry, where, f"{digest[:80]!r} is not an MD5") from None


def _parse_cloud_file(file: Mapping, where: str) -> CloudFile:
    relpath = read_text(file, "relpath", where)
    if not relpath:
        raise fault(file, where, "a file without a relpath")
    return CloudFile(
        relpath, _parse_oid(file, where, MD5), read_number(file, "size", where), _parse_cloud(file, where)
    )


def _parse_cloud(entry: Mapping, where: str) -> CloudVersion | None:
    """`cloud: {remote: {etag, version_id}}`, of one remote; or a bare `version_id` (DVC 2)."""
    cloud = entry.get("cloud")
    if isinstance(cloud, Mapping):
        for remote, version in cloud.items():
            if isinstance(version, Mapping):
                version_id = read_text(version, "version_id", where)
                return CloudVersion(remote, version_id, read_text(version, "etag", where))
    elif cloud is not None:
        raise fault(entry, where, "cloud is not a mapping")
    version_id = read_text(entry, "version_id", where)
    return CloudVersion("", version_id, read_text(entry, "etag", where)) if version_id else None
