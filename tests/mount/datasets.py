"""Caches, manifests and folders made by hand, from the description of the formats and nothing of ours.

Plain blocking code for the tests of mounts. A dataset is a mapping from relative path to bytes; in
a path, bytes that are not UTF-8 are lone surrogates, as `os.fsdecode` makes them.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
from collections.abc import Iterable, Mapping
from pathlib import Path


def md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


class Cache:
    """A cache directory of DVC 3, or with `legacy` of DVC 2."""

    def __init__(self, root: Path, *, legacy: bool = False) -> None:
        self.root = root
        self.objects = root if legacy else root / "files" / "md5"

    def place(self, oid: str) -> Path:
        """Where the object lies, whether it is there or not."""
        return self.objects / oid[:2] / oid[2:]

    def put(self, data: bytes, oid: str = "") -> str:
        """Store an object whole, under another oid than its own where one is given; returns the oid."""
        oid = oid or md5(data)
        place = self.place(oid)
        place.parent.mkdir(parents=True, exist_ok=True)
        if not place.exists():
            temporary = place.with_name(f".{place.name}.{os.getpid()}.tmp")
            temporary.write_bytes(data)
            temporary.chmod(0o444)
            temporary.rename(place)
        return oid

    def remove(self, oid: str) -> None:
        self.place(oid).unlink()

    def put_manifest(self, entries: Iterable[Mapping[str, object]]) -> str:
        """Store the manifest of these entries; returns its oid."""
        data = manifest_bytes(entries)
        return self.put(data, md5(data) + ".dir")

    def put_dataset(self, files: Mapping[str, bytes], *, sizes: bool = False) -> str:
        """Store the files and their manifest; returns its oid."""
        for data in files.values():
            self.put(data)
        return self.put_manifest(entries_of(files, sizes=sizes))


def entries_of(files: Mapping[str, bytes], *, sizes: bool = False) -> list[dict[str, object]]:
    entries: list[dict[str, object]] = []
    for path, data in files.items():
        entry: dict[str, object] = {"md5": md5(data), "relpath": path}
        if sizes:
            entry["size"] = len(data)
        entries.append(entry)
    return entries


def manifest_bytes(entries: Iterable[Mapping[str, object]]) -> bytes:
    return json.dumps(sorted(entries, key=lambda entry: str(entry["relpath"])), sort_keys=True).encode()


def write_folder(root: Path, files: Mapping[str, bytes]) -> None:
    """The same files as an ordinary directory."""
    for path, data in files.items():
        place = root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)


def filler(length: int, seed: int) -> bytes:
    """Bytes in which every page differs from every other."""
    return random.Random(seed).randbytes(length)


STRANGE_NAMES = (
    "with space",
    " leading",
    "trailing ",
    "new\nline",
    "tab\tbell\x07",
    "quotes'\"`",
    "back\\slash",
    "$(reboot);&|<>",
    "*?[a-z]{x,y}",
    "-rf",
    "--help",
    "#~%:,=@+",
    ".hidden",
    "...",
    "UPPER",
    "upper",
    "\u00e9 composed",
    "e\u0301 decomposed",
    "\u65e5\u672c\u8a9e",
    "\U0001f600",
    "\u202e right to left",
    "x" * 255,
    "\u00e9" * 127 + "y",
)
"""Legal file names that DVC can add too."""

BROKEN_NAMES = ("latin \udce9", "\udcff\udcfe\udc80")
"""Legal file names that are not UTF-8: DVC cannot add them, a manifest can hold them."""

EDGES = (0, 1, 511, 512, 513, 4095, 4096, 4097, 131071, 131072, 131073, 1048575, 1048576, 1048577)
"""Lengths next to those that sectors, pages, requests and buffers have."""


def varied_files() -> dict[str, bytes]:
    """Every kind of name, every length that is near an edge, nested and flat: 3 MB more or less."""
    files = {f"edges/{length}": filler(length, length) for length in EDGES}
    for number, name in enumerate(STRANGE_NAMES):
        files[f"names/{name}"] = filler(100 + number, number)
        files[f"directories/{name}/file"] = b"in " + name.encode()
    files["empty"] = b""
    files["text.txt"] = b"a line of text\n" * 500
    files["windows.txt"] = b"a line of text\r\n" * 500
    files["picture.png"] = (
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x10\0\0\0\x10\x08\x02\0\0\0\x90\x91h6" + filler(90, 1)
    )
    files["copies/one"] = files["copies/two"] = files["copies/below/three"] = filler(5000, 99)
    files["/".join(["deep"] * 60 + ["bottom"])] = b"down here"
    for number in range(150):
        files[f"flat/{number:05d}.bin"] = filler(number * 7, 1000 + number)
    return files


def directories_of(files: Iterable[str]) -> set[str]:
    """The directories that the paths imply, without the root."""
    found: set[str] = set()
    for path in files:
        while path := path.rpartition("/")[0]:
            found.add(path)
    return found


def tree_of(root: Path) -> dict[str, bytes]:
    """What a walk finds: every file with its bytes."""
    found = {}
    for here, _, names in os.walk(root, onerror=_raise):
        for name in names:
            path = Path(here, name)
            found[str(path.relative_to(root))] = path.read_bytes()
    return found


def _raise(error: OSError) -> None:
    raise error
