"""Datasets whose objects are on a server only, and clones of their repository with nothing in the cache."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.datasets import commit_all
from benchmarks.servers import BUCKET, Server, put_object
from benchmarks.workshop import BenchError, Reading, Workshop
from store.manifest import serialize_manifest

DATA: Final = "data"
"""The dataset's name in its repository, and of the same files by their names on the server."""
GET_OBSTORE: Final = Path(__file__).with_name("get_obstore.py")
BARE_FUSE: Final = "pyfuse3 and obstore"
"""What a mount by these two comes to that does nothing beside."""
BARE_FUSE_PROGRAM: Final = Path(__file__).with_name("bare_fuse.py")

S3: Final = """\
    url = s3://{bucket}
    endpointurl = {endpoint}
    region = us-east-1
    allow_anonymous_login = true
"""
HTTP: Final = """\
    url = {endpoint}/{bucket}
"""
"""How a remote may be configured."""


@dataclass(frozen=True, slots=True)
class LazyDataset:
    """Where it is, and what is in it: `paths` and `keys` of the same files, in the same order."""

    root: Path
    """What the server serves."""
    repository: Path
    """Holds the metafile; to be cloned."""
    paths: tuple[Path, ...]
    keys: tuple[str, ...]
    bytes: int


def publish(workshop: Workshop, root: Path, files: Sequence[Path]) -> LazyDataset:
    """Make a dataset of files below `root`/bucket/data, which are served by their names, too."""
    names = [file.relative_to(root / BUCKET / DATA) for file in files]
    digests = [_link_object(root, file) for file in files]
    size = sum(file.stat().st_size for file in files)
    entries = zip(map(str, names), digests, strict=True)
    repository = make_metafile(workshop, root, serialize_manifest(entries), len(files))
    keys = tuple(f"files/md5/{digest[:2]}/{digest[2:]}" for digest in digests)
    return LazyDataset(root, repository, tuple(names), keys, size)


def object_folders(root: Path) -> dict[str, list[Path]]:
    """The objects by the prefix that lists them, for `write_listings`: a storage tells their sizes so."""
    folders: dict[str, list[Path]] = {}
    for path in (root / BUCKET / "files" / "md5").glob("*/*"):
        folders.setdefault(f"files/md5/{path.parent.name}/", []).append(path)
    return folders


def make_metafile(workshop: Workshop, root: Path, manifest: bytes, files: int) -> Path:
    """Put a manifest on the server; a repository that names it."""
    oid = put_object(root, manifest, ".dir") + ".dir"
    repository = workshop.directory("lazy")
    workshop.run("git", "init", "-q", ".", cwd=repository)
    (repository / ".dvc").mkdir()  # a clone gets its configuration
    metafile = f"outs:\n- md5: {oid}\n  nfiles: {files}\n  hash: md5\n  path: {DATA}\n"
    (repository / f"{DATA}.dvc").write_text(metafile)
    commit_all(workshop, repository)
    return repository


def _link_object(root: Path, file: Path) -> str:
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "md5").hexdigest()
    path = root / BUCKET / "files" / "md5" / digest[:2] / digest[2:]
    path.parent.mkdir(parents=True, exist_ok=True)
    os.link(file, path)
    return digest


def clone(workshop: Workshop, repository: Path, server: Server, how: str = S3) -> Path:
    """The repository on a machine that has nothing yet: an empty cache, and the server for a remote.

    Clones stay until the end: ext4 is slow where thousands of files were just deleted.
    """
    place = workshop.directory("clone") / "repository"
    shutil.copytree(repository, place)
    remote = how.format(bucket=BUCKET, endpoint=server.endpoint)
    (place / ".dvc" / "config").write_text(f"[core]\n    remote = r\n['remote \"r\"']\n{remote}")
    return place


def forget_everything(workshop: Workshop) -> None:
    """Take away what fusefs and DVC remember outside of repositories; nothing may be mounted."""
    for name in ("cache", "state", "data"):
        shutil.rmtree(workshop.root / name, ignore_errors=True)
    shutil.rmtree(workshop.dvc_state, ignore_errors=True)


def get_with_obstore(
    workshop: Workshop, server: Server, keys: Sequence[str], how: str, in_flight: int
) -> Reading:
    """What bare obstore does with these objects, in a process of its own."""
    listing = workshop.write_list([Path(key) for key in keys], 0)
    said = workshop.run(
        sys.executable, GET_OBSTORE, server.endpoint, BUCKET, how, str(in_flight), listing
    ).split()
    return Reading(float(said[0]), int(said[1]), int(said[2]))


def check(reading: Reading, expected: int) -> Reading:
    """A figure counts only where all bytes came. Raises `BenchError`."""
    if reading.bytes != expected:
        raise BenchError(f"{reading.bytes} bytes were read and not {expected}")
    return reading


def bare_fuse_command(workshop: Workshop, dataset: LazyDataset, server: Server) -> tuple[str, ...]:
    """A mount of a dataset whose files are of one size by `bare_fuse.py`, without the mountpoint."""
    size = dataset.bytes // len(dataset.paths)
    pairs = zip(dataset.paths, dataset.keys, strict=True)
    listing = workshop.directory("bare") / "listing"
    listing.write_text("".join(f"{path}\t{key}\t{size}\n" for path, key in pairs))
    return (sys.executable, str(BARE_FUSE_PROGRAM), server.endpoint, BUCKET, str(listing))


def rclone_command(server: Server) -> tuple[str, ...]:
    """`rclone mount` of the files by their names, as its manual advises for S3; without the mountpoint."""
    place = ("--s3-provider", "Other", "--s3-endpoint", server.endpoint, "--s3-region", "us-east-1")
    how = ("--s3-force-path-style", "--s3-list-version", "2", "--use-server-modtime")
    return (
        *("rclone", "mount", "--read-only", "--config", "/dev/null"),
        *place,
        *how,
        f":s3:{BUCKET}/{DATA}",
    )


def s3fs_command(server: Server) -> tuple[str, ...]:
    """`s3fs` likewise."""
    options = (
        f"url={server.endpoint},use_path_request_style,public_bucket=1,ro,umask=022,"
        "multireq_max=64,max_stat_cache_size=100000,enable_noobj_cache"
    )
    return ("s3fs", "-f", "-o", options, f"{BUCKET}:/{DATA}")
