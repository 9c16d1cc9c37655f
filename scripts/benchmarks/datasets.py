"""Datasets of the benchmark's own making: files of distinct bytes, repositories, large manifests."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from pathlib import Path

from benchmarks.workshop import Workshop
from store.manifest import serialize_manifest

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
    initialize_repository(workshop, repository)
    return repository


def initialize_repository(workshop: Workshop, repository: Path) -> None:
    """`git init` and `dvc init` in a directory, which is made if it is not there."""
    repository.mkdir(exist_ok=True)
    workshop.run("git", "init", "-q", ".", cwd=repository)
    workshop.run("dvc", "init", "-q", cwd=repository)


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


def write_objects(cache: Path, count: int) -> list[str]:
    """`count` small distinct objects in a cache; their digests."""
    return [write_object(cache, b"object %d\n" % number) for number in range(count)]


def entry_path(number: int) -> str:
    """The path of a manifest's entry of that number: a thousand to a directory."""
    return f"part-{number // FILES_A_DIRECTORY:04d}/{number:07d}.txt"


def write_manifest(cache: Path, digests: Sequence[str]) -> str:
    """A manifest in a cache whose entries have these digests; returns its oid."""
    entries = ((entry_path(number), digest) for number, digest in enumerate(digests))
    return write_object(cache, serialize_manifest(entries), ".dir") + ".dir"


def tag_versions(workshop: Workshop, repository: Path, versions: dict[str, tuple[str, int]]) -> None:
    """Make a commit and a tag of each version of `data`: tag → (oid, number of files), oldest first.

    The working tree stays as it is, without `data`: revisions are read from git.
    """
    commit_all(workshop, repository)
    parent = workshop.run("git", "rev-parse", "HEAD", cwd=repository).strip()
    committer = "committer bench <bench> 1700000000 +0000"
    stream = []
    for mark, (tag, (oid, files)) in enumerate(versions.items(), 1):
        metafile = f"outs:\n- md5: {oid}\n  nfiles: {files}\n  hash: md5\n  path: data\n"
        stream.append(
            f"commit refs/heads/versions\nmark :{mark}\n{committer}\n"
            f"data {len(tag)}\n{tag}\nfrom {parent}\n"
            f"M 100644 inline data.dvc\ndata {len(metafile)}\n{metafile}\n"
            f"reset refs/tags/{tag}\nfrom :{mark}\n\n"
        )
        parent = f":{mark}"
    workshop.run("git", "fast-import", "--quiet", cwd=repository, stdin="".join(stream))
