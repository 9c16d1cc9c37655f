"""`.dir` manifests: bytes in, validated entries out; and back, byte for byte as DVC writes them.

A manifest is a JSON list of `{"md5": <32 hex>, "relpath": <posix path>}`, sorted by `relpath`,
without sizes or permissions; readers accept any further key, of which `size` and `isexec` mean
something. Its oid is the MD5 of its bytes. Manifests are hostile input: every path is checked
here (the tree's compiler finds duplicates and file/directory clashes, because it sorts anyway).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable
from typing import Final

import msgspec

from store.errors import ManifestInvalid, ObjectCorrupt
from store.oid import MD5, Oid
from store.tree import NAME_MAX

# One match per path: no empty component (so no leading, trailing or double slash), none that is
# `.` or `..`, no NUL.
_GOOD_PATH = re.compile(r"(?!\.{1,2}(?:/|\Z))[^/\0]+(?:/(?!\.{1,2}(?:/|\Z))[^/\0]+)*", re.DOTALL)
_GOOD_DIGEST = re.compile(r"[0-9a-f]{32}")
PATH_MAX: Final = 4095
SIZE_MAX: Final = (1 << 63) - 1


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One file of a manifest. `relpath` is text in which undecodable bytes are lone surrogates."""

    relpath: str
    md5: str
    size: int | None = None
    isexec: bool = False


_decoder = msgspec.json.Decoder(list[Entry])


def parse_manifest(data: bytes, name: str) -> list[Entry]:
    """Decode and validate the manifest `data`, called `name` in messages.

    Raises `ManifestInvalid`, which names the entry that is wrong, counted from 1.
    """
    entries = decode_manifest(data, name)
    check_entries(entries, name)
    return entries


def decode_manifest(data: bytes, name: str) -> list[Entry]:
    """The entries as they stand there, whatever their paths, digests and sizes are.

    Raises `ManifestInvalid` for what is no list of entries.
    """
    try:
        return _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _parse_slowly(data, name)


def check_entries(entries: Iterable[Entry], name: str) -> None:
    """Raises `ManifestInvalid`, which names the entry that is wrong, counted from 1."""
    for number, entry in enumerate(entries, 1):
        fault = _fault(entry)
        if fault:
            raise ManifestInvalid(f"manifest {name}: entry {number}: {fault}")


def _parse_slowly(data: bytes, name: str) -> list[Entry]:
    """What the fast decoder refuses: lone surrogates (which `json` takes), or a fault to be named."""
    try:
        raw = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ManifestInvalid(f"manifest {name} is not JSON ({error}); it may be truncated") from None
    if not isinstance(raw, list):
        raise ManifestInvalid(f"manifest {name} is not a list of files")
    entries = []
    for number, item in enumerate(raw, 1):
        try:
            entries.append(msgspec.convert(item, Entry))
        except msgspec.ValidationError as error:
            raise ManifestInvalid(f"manifest {name}: entry {number}: {error}") from None
    return entries


def _fault(entry: Entry) -> str:
    """What is wrong with an entry, or nothing."""
    if not _GOOD_DIGEST.fullmatch(entry.md5):
        return f"{entry.md5!r} of {entry.relpath!r} is not an MD5"
    if entry.size is not None and not 0 <= entry.size <= SIZE_MAX:
        return f"the size of {entry.relpath!r} is not one that a file can have"
    return path_fault(entry.relpath)


def path_fault(path: str) -> str:
    """Why `path` names no file inside a dataset; empty where it does."""
    if not _GOOD_PATH.fullmatch(path):
        return f"{path!r} is not a path inside the dataset"
    # Three bytes a character at the most: only long paths need counting.
    if len(path) * 4 <= NAME_MAX and path.isascii():
        return ""
    try:
        encoded = os.fsencode(path)
    except UnicodeEncodeError:
        return f"{path!r} cannot be a file name"
    if len(encoded) > PATH_MAX:
        return f"a path of {len(encoded)} bytes; the longest there can be has {PATH_MAX}"
    longest = max(encoded.split(b"/"), key=len)
    if len(longest) > NAME_MAX:
        return f"the name {os.fsdecode(longest[:40])!r}… has {len(longest)} bytes, more than {NAME_MAX}"
    return ""


def serialize_manifest(entries: Iterable[tuple[str, str]]) -> bytes:
    """The bytes that DVC would write for (relpath, md5) pairs, in any order."""
    listed = [{"md5": md5, "relpath": relpath} for relpath, md5 in sorted(entries)]
    return json.dumps(listed).encode("ascii")


def manifest_oid(data: bytes) -> Oid:
    """The oid of a manifest from its bytes."""
    return Oid(hashlib.md5(data, usedforsecurity=False).hexdigest(), is_tree=True, algorithm=MD5)


def check_manifest(data: bytes, oid: Oid) -> None:
    """Raise `ObjectCorrupt` unless `data` is what `oid` names.

    Writers of DVC 2.x could store entries with further keys under the oid of the canonical form,
    so that form is tried second.
    """
    if hashlib.md5(data, usedforsecurity=False).hexdigest() == oid.digest:
        return
    try:
        canonical = serialize_manifest((e.relpath, e.md5) for e in parse_manifest(data, str(oid)))
    except ManifestInvalid:
        canonical = b""
    if manifest_oid(canonical).digest != oid.digest:
        raise ObjectCorrupt(f"manifest {oid} does not have the content that its name promises; restore it")
