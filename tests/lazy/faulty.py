"""A project whose remote is to fail, and readers that tell what they got. No tests are in here."""

from __future__ import annotations

import errno
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.mount.datasets import Cache, entries_of, md5
from tests.mount.mounts import Mount, Mounter
from tests.servers.raw_answers import Script, say

SECONDS = 90.0
"""More than any reader may wait: in native mode the kernel asks for a page that failed once more, so that is
two deadlines of half a minute, and some time of a busy machine's."""
SECRET = "hunter-2-s3cret"
SLOW, UNREACHABLE, DENIED, WRONG = errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.EACCES, errno.EIO
DOCUMENTED = frozenset({SLOW, UNREACHABLE, DENIED, WRONG})
"""What a reader of a remote may get (fusefs/SEMANTICS.md)."""
PIECE = 4096


def read(path: Path) -> bytes | int:
    """All of a file, or the errno."""
    try:
        return path.read_bytes()
    except OSError as error:
        return error.errno or -1


def read_piece(path: Path, offset: int = 0, length: int = PIECE) -> bytes | int:
    """What one request to the daemon gets, or the errno: the kernel reads nothing ahead, nor again."""
    try:
        with open(path, "rb", buffering=0) as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
            return os.pread(file.fileno(), length, offset)
    except OSError as error:
        return error.errno or -1


@contextmanager
def reading(read: Callable[..., bytes | int], *arguments: object) -> Iterator[list[bytes | int]]:
    """Read in a thread; what came is in the list when the context has been left."""
    got: list[bytes | int] = []
    thread = threading.Thread(target=lambda: got.append(read(*arguments)))
    thread.start()
    try:
        yield got
    finally:
        thread.join(SECONDS)
    assert got, f"{arguments}: a reader hangs"


def objects(files: Mapping[str, bytes]) -> Callable[[str], Script]:
    """What a sound web server answers for these files' objects, by the head of a request."""
    contents = {md5(data): data for data in files.values()}

    def choose(head: str) -> Script:
        found = re.match(r"GET /files/md5/(..)/(\S+) ", head)
        data = contents.get(found[1] + found[2]) if found else None
        if data is None:
            return say("404 Not Found")
        ranged = re.search(r"(?mi)^range: bytes=(\d+)-(\d*)", head)
        if not ranged:
            return say("200 OK", data)
        first, last = int(ranged[1]), min(int(ranged[2] or len(data)), len(data) - 1)
        said = f"Content-Range: bytes {first}-{last}/{len(data)}\r\n"
        return say("206 Partial Content", data[first : last + 1], said)

    return choose


@dataclass(frozen=True, slots=True)
class Lazy:
    """A project whose cache has the manifest alone."""

    root: Path
    cache: Cache
    oid: str

    def configure(self, url: str, options: str = "") -> None:
        text = f"[core]\nremote = far\n['remote \"far\"']\nurl = {url}\n{options}"
        (self.root / ".dvc" / "config").write_text(text)

    def mount(self, mounter: Mounter, *flags: str | Path) -> Mount:
        return mounter.mount("data.dvc", "--no-pin", *flags, cwd=self.root)


QUICK = "connect_timeout = 2\nread_timeout = 1\n"
"""Options with which a remote that hangs is soon found out."""
WITH_PASSWORD = f"auth = basic\nuser = me\npassword = {SECRET}\n"


def new_project(root: Path, files: Mapping[str, bytes], url: str, options: str = "") -> Lazy:
    """Made by hand: a directory with a `.dvc`, a manifest that tells sizes, and a remote `far`."""
    (root / ".dvc").mkdir(parents=True)
    cache = Cache(root / ".dvc" / "cache")
    oid = cache.put_manifest(entries_of(files, sizes=True))
    (root / "data.dvc").write_text(f"outs:\n- md5: {oid}\n  hash: md5\n  path: data\n")
    made = Lazy(root, cache, oid)
    made.configure(url, options)
    return made


def assert_only_right(cache: Cache, files: Mapping[str, bytes]) -> int:
    """Whatever lies in the cache where DVC looks is an object, whole; how many of `files` do."""
    there = 0
    for place in cache.objects.rglob("*"):
        if place.is_file():
            name = place.parent.name + place.name
            assert md5(place.read_bytes()) == name.removesuffix(".dir"), place
            there += name in {md5(data) for data in files.values()}
    return there
