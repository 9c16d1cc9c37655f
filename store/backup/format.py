"""A backup's format: one file with all that versions are made of, written and read as a stream.

It is a tar archive without any special headers, of regular files alone, in this order:

    fusefs-backup.json     the versions: outputs, revisions, metafiles, and how much follows (`Header`)
    files/md5/ab/cdef…     objects, each once, where a cache of DVC's has them
    files/md5/ab/cdef….dir manifests, each behind everything that it names
    fusefs/derived/ab/cd…  products of views, each once, as a cache keeps them (`store.making.products`)
    fusefs-backup.end      how many members there were, and the xxh3-128 of all of them (`Trailer`)

So `tar -xf FILE -C .dvc/cache files` restores a cache without us. Objects are proved by their oids, products
by their own checksums, which guard against accident only; all of it together by the trailer: a backup without
one is cut short. It holds no secret: no remote, no configuration.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any, Final

import xxhash

from store.errors import InputError
from store.manifest import path_fault
from store.oid import DVC_ALGORITHMS, Oid

FORMAT: Final = 1
HEADER_NAME: Final = "fusefs-backup.json"
TRAILER_NAME: Final = "fusefs-backup.end"
END_BLOCKS: Final = 2
HEADER_LIMIT: Final = 64 << 20
"""Bytes of the header: of hundred thousands of outputs."""
TRAILER_LIMIT: Final = 1 << 12
MOST_VERSIONS: Final = 1_000_000
METAFILE_LIMIT: Final = 1 << 20
LARGEST_PRODUCT: Final = 1 << 30
"""Bytes. A larger one stays behind, and is made anew."""
MOST_VIEWS: Final = 1000
LONGEST_VIEW: Final = 300
"""Characters."""
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}|")


@dataclass(frozen=True, slots=True)
class Revision:
    """The commit that a version is from; all is empty where it is from none."""

    oid: str = ""
    name: str = ""
    """As the user called it."""
    time: int = 0
    """Seconds since the epoch."""
    author: str = ""
    subject: str = ""


@dataclass(frozen=True, slots=True)
class Recorded:
    """An output as it was in a version."""

    path: str
    """From the project's root, `/`-separated."""
    oid: Oid
    size: int | None = None
    nfiles: int | None = None
    isexec: bool = False
    revision: Revision = field(default_factory=Revision)
    metafile: str = ""
    """Its `.dvc` file as it was; empty where a pipeline made it, or nothing but the oid is known."""


@dataclass(frozen=True, slots=True)
class Header:
    """What a backup begins with."""

    outputs: tuple[Recorded, ...]
    objects: int
    """That follow."""
    content_bytes: int
    """What is in them."""
    since: tuple[Oid, ...] = ()
    """Versions whose objects are not in here: they must be restored before."""
    views: tuple[str, ...] = ()
    """Whose products follow behind the objects (`KIND:RECIPE`)."""
    products: int = 0
    product_bytes: int = 0

    @property
    def members(self) -> int:
        """Objects and products."""
        return self.objects + self.products

    @property
    def all_bytes(self) -> int:
        """What is in objects and products."""
        return self.content_bytes + self.product_bytes

    def to_bytes(self) -> bytes:
        described = {
            "format": FORMAT,
            "objects": self.objects,
            "bytes": self.content_bytes,
            "since": [_write_oid(oid) for oid in self.since],
            "views": list(self.views),
            "products": self.products,
            "product_bytes": self.product_bytes,
            "outputs": [_write_recorded(output) for output in self.outputs],
        }
        return json.dumps(described, indent=1, ensure_ascii=True).encode() + b"\n"

    @classmethod
    def from_bytes(cls, data: bytes, where: str) -> Header:
        """Raises `InputError` for what is no header of a backup that this version can read."""
        try:
            described = json.loads(data)
            if not isinstance(described, dict) or "format" not in described:
                raise ValueError("it does not say which format it has")
            if described["format"] != FORMAT:
                raise InputError(
                    f"{where} has format {str(described['format'])[:20]!r}, which a newer fusefs wrote; "
                    f"this one reads format {FORMAT}"
                )
            outputs = _listed(described["outputs"])
            if len(outputs) > MOST_VERSIONS:
                raise ValueError(f"it has {len(outputs)} outputs")
            views = tuple(_text(view) for view in _listed(described["views"]))
            if len(views) > MOST_VIEWS or any(len(view) > LONGEST_VIEW for view in views):
                raise ValueError("it has more views than there are, or longer ones")
            return cls(
                tuple(_read_recorded(output) for output in outputs),
                _number(described["objects"]),
                _number(described["bytes"]),
                tuple(_read_oid(oid) for oid in _listed(described["since"])),
                views,
                _number(described["products"]),
                _number(described["product_bytes"]),
            )
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise InputError(f"{where} is not a backup that can be read: {str(error)[:200]}") from None


@dataclass(slots=True)
class Sum:
    """The checksum of members, one behind the other."""

    members: int = 0
    _state: xxhash.xxh3_128 = field(default_factory=xxhash.xxh3_128)

    def add(self, name: str, size: int, content: xxhash.xxh3_128) -> None:
        """Take in a member: its name, its length in bytes, the hash of what is in it."""
        self.members += 1
        self._state.update(f"{name}\0{size}\0{content.hexdigest()}\n".encode())

    def trailer(self) -> bytes:
        return json.dumps({"members": self.members, "xxh3-128": self._state.hexdigest()}).encode() + b"\n"


def _write_oid(oid: Oid) -> str:
    return f"{oid.algorithm}:{oid}"


def _read_oid(text: object) -> Oid:
    algorithm, _, digest = _text(text).partition(":")
    if algorithm not in DVC_ALGORITHMS:
        raise ValueError(f"{algorithm[:40]!r} is no hash algorithm of DVC's")
    return Oid.parse(digest, algorithm)


def _write_recorded(output: Recorded) -> dict[str, Any]:
    revision = output.revision
    return {
        "path": output.path,
        "oid": _write_oid(output.oid),
        "size": output.size,
        "nfiles": output.nfiles,
        "isexec": output.isexec,
        "revision": {
            "oid": revision.oid,
            "name": revision.name,
            "time": revision.time,
            "author": revision.author,
            "subject": revision.subject,
        },
        "metafile": output.metafile,
    }


def _read_recorded(described: object) -> Recorded:
    if not isinstance(described, dict):
        raise TypeError("an output is no mapping")
    path = _text(described["path"])
    fault = path_fault(path)
    if fault:
        raise ValueError(fault)
    revision = described["revision"]
    if not isinstance(revision, dict) or not _COMMIT.fullmatch(_text(revision["oid"])):
        raise ValueError(f"the revision of {path!r} is none")
    metafile = _text(described["metafile"])
    if len(metafile) > METAFILE_LIMIT:
        raise ValueError(f"the metafile of {path!r} has {len(metafile)} characters")
    return Recorded(
        path,
        _read_oid(described["oid"]),
        _number_or_none(described["size"]),
        _number_or_none(described["nfiles"]),
        isexec=described["isexec"] is True,
        revision=Revision(
            revision["oid"],
            _text(revision["name"]),
            _number(revision["time"]),
            _text(revision["author"]),
            _text(revision["subject"]),
        ),
        metafile=metafile,
    )


def _listed(value: object) -> list[object]:
    if not isinstance(value, list):
        raise TypeError("a list is none")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("a text is none")
    return value


def _number_or_none(value: object) -> int | None:
    return None if value is None else _number(value)


def _number(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 63:
        raise ValueError(f"{str(value)[:40]} is no number that can be")
    return value
