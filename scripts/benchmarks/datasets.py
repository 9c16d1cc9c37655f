"""Datasets of the benchmark's own making: files of distinct bytes, repositories, large manifests."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path

from benchmarks.workshop import Workshop

FILES_A_DIRECTORY = 1000


def write_files(directory: Path, count: int, size: int, seed: int = 0) -> list[Path]:
    """`count` files of `size` distinct, incompressible bytes each, a thousand to a directory."""
    bytes_of = random.Random(seed)
    paths = []
    for number in range(count):
        folder = directory / f"part-{number // FILES_A_DIRECTORY:03d}"
        if number % FILES_A_DIRECTORY == 0:
            folder.mkdir(parents=True)
        path = folder / f"{number:06d}.bin"
        path.write_bytes(bytes_of.randbytes(size))
        paths.append(path)
    return paths


def write_large_file(path: Path, size: int) -> None:
    bytes_of = random.Random(size)
    with path.open("wb") as file:
        for start in range(0, size, 1 << 20):
            file.write(bytes_of.randbytes(min(1 << 20, size - start)))


def make_repository(workshop: Workshop, name: str) -> Path:
    """An empty git repository in which `dvc init` was run."""
    repository = workshop.directory(name)
    workshop.run("git", "init", "-q", ".", cwd=repository)
    workshop.run("dvc", "init", "-q", cwd=repository)
    return repository


def commit_all(workshop: Workshop, repository: Path) -> None:
    workshop.run("git", "add", "-A", cwd=repository)
    workshop.run("git", "commit", "-q", "-m", "data", cwd=repository)


def write_object(cache: Path, content: bytes, suffix: str = "") -> str:
    """Put bytes into a DVC 3 cache; returns the oid's digits."""
    digest = hashlib.md5(content, usedforsecurity=False).hexdigest()
    path = cache / "files" / "md5" / digest[:2] / (digest[2:] + suffix)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(0o444)
    return digest


def write_manifest(cache: Path, entries: int, objects: int) -> str:
    """A manifest whose entries share `objects` distinct objects, all in `cache`; returns its oid."""
    digests = [write_object(cache, b"object %d\n" % number) for number in range(min(objects, entries))]
    listed = [
        {
            "md5": digests[number % objects],
            "relpath": f"part-{number // FILES_A_DIRECTORY:04d}/{number:07d}.txt",
        }
        for number in range(entries)
    ]
    return write_object(cache, json.dumps(listed).encode(), ".dir") + ".dir"
