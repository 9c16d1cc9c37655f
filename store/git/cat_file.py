"""`CatFile`: one `git cat-file --batch` or `--batch-check` process, asked again and again.

Callers: `store.git.objects`. Blocking; any thread, one at a time behind the lock that `asking`
holds. Every wait has a deadline; a process that died is replaced, and one that was late, or whose
answer was not taken to its end, is ended.

It is told nothing of the repository but where its objects lie: for the rest it gets an empty git
directory. So no configuration but ours reaches it, and an object that a partial clone lacks is simply
missing; knowing of the promise git would search all packs for it and then give up with an error.

Source of the format: git-cat-file(1), "Batch output".
"""

from __future__ import annotations

import os
import select
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from store.errors import ObjectCorrupt, RepositoryUnusable, StoreTimeout
from store.git import command

AT_ONCE: Final = 50
"""So many questions and answers of `--batch-check` fit into the smallest pipe that there is (4096 bytes),
so that neither side waits for the other."""

_READ_SIZE: Final = 1 << 17
_HEADER_LIMIT: Final = 1024
_CONFIGURATIONS: Final = {
    "sha1": "[core]\n\tbare = true\n\trepositoryformatversion = 0\n",
    "sha256": "[core]\n\tbare = true\n\trepositoryformatversion = 1\n[extensions]\n\tobjectFormat = sha256\n",
}


@dataclass(frozen=True, slots=True)
class Header:
    """What git says of an object before its bytes."""

    kind: str
    """`commit`, `tree`, `blob` or `tag`."""
    size: int


class CatFile:
    """A process for an object directory that is hashed with `hash_name`, started when it is first asked."""

    def __init__(self, objects: Path, hash_name: str, mode: str) -> None:
        self._objects = objects
        self._hash_name = hash_name
        self._mode = mode
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._buffer = bytearray()
        self._deadline = 0.0
        self._seconds = 0.0

    @contextmanager
    def asking(self, *oids: str, seconds: float) -> Iterator[None]:
        """Ask for at most `AT_ONCE` objects; the answers are taken inside, within `seconds`.

        Raises `StoreTimeout`, `ObjectCorrupt` where git gives up, and `RepositoryUnusable`.
        """
        if not self._lock.acquire(timeout=seconds):
            raise StoreTimeout(f"git cat-file was busy for {seconds:g} s")
        whole = False
        try:
            self._deadline, self._seconds = time.monotonic() + seconds, seconds
            self._ask("".join(f"{oid}\n" for oid in oids).encode())
            yield
            whole = not self._buffer
        finally:
            if not whole:
                self._end()
            self._lock.release()

    def take_header(self, oid: str) -> Header | None:
        """The next answer's first line; None if git does not have the object."""
        while (end := self._buffer.find(b"\n")) < 0:
            if len(self._buffer) > _HEADER_LIMIT:
                raise ObjectCorrupt(f"git cat-file does not answer as it should in {self._objects}")
            self._fill(oid)
        fields = self._buffer[:end].decode("ascii", "replace").split(" ")
        del self._buffer[: end + 1]
        if fields == [oid, "missing"]:
            return None
        if len(fields) != 3 or fields[0] != oid or not fields[2].isdecimal():
            raise ObjectCorrupt(f"git cat-file does not answer as it should in {self._objects}")
        return Header(fields[1], int(fields[2]))

    def take(self, oid: str, most: int) -> bytes:
        """Between 1 and `most` bytes of the object whose header was taken."""
        if not self._buffer:
            self._fill(oid)
        part = bytes(self._buffer[:most])
        del self._buffer[:most]
        return part

    def finish(self, oid: str) -> None:
        """Take the line's end that follows an object."""
        if self.take(oid, 1) != b"\n":
            raise ObjectCorrupt(f"git cat-file does not answer as it should in {self._objects}")

    def close(self) -> None:
        """End the process when nobody is asking. What is asked later starts another."""
        with self._lock:
            self._end()

    def _ask(self, questions: bytes) -> None:
        for _ in range(2):
            try:
                if self._process is None:
                    self._begin(questions)
                else:
                    self._write(questions)
                return
            except (BrokenPipeError, ObjectCorrupt):
                # It died, perhaps long ago; a new one may do better.
                self._end()
        raise ObjectCorrupt(f"git cat-file ends without an answer in {self._objects}")

    def _begin(self, questions: bytes) -> None:
        with _empty_git_dir(self._hash_name) as git_dir:
            self._process = command.start(["cat-file", self._mode], git_dir=git_dir, objects=self._objects)
            assert self._process.stdout is not None
            os.set_blocking(self._process.stdout.fileno(), False)
            # With its first answer git has read all there is in the directory, and it can go.
            self._write(questions)

    def _write(self, questions: bytes) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(questions)
        self._fill("")

    def _fill(self, oid: str) -> None:
        """Read some of what git says. Raises `ObjectCorrupt` at its end."""
        assert self._process is not None
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        left = max(0.0, self._deadline - time.monotonic())
        if not poll.poll(left * 1000):
            raise StoreTimeout(f"git cat-file did not answer within {self._seconds:g} s in {self._objects}")
        part = os.read(descriptor, _READ_SIZE)
        if not part:
            raise ObjectCorrupt(f"git cannot read its object {oid} in {self._objects}; try git fsck")
        self._buffer += part

    def _end(self) -> None:
        if self._process is not None:
            command.end(self._process)
            self._process = None
        self._buffer.clear()


@contextmanager
def _empty_git_dir(hash_name: str) -> Iterator[Path]:
    """A git directory with nothing in it. Raises `RepositoryUnusable` if it cannot be made."""
    with ExitStack() as stack:
        try:
            name = stack.enter_context(tempfile.TemporaryDirectory(prefix="fusefs-git-"))
            git_dir = Path(name)
            (git_dir / "refs").mkdir()
            (git_dir / "HEAD").write_text("ref: refs/heads/none\n")
            (git_dir / "config").write_text(_CONFIGURATIONS[hash_name])
        except OSError as error:
            raise RepositoryUnusable(
                f"git cannot be asked: no temporary directory: {error.strerror}"
            ) from None
        yield git_dir
