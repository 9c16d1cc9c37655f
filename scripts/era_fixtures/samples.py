"""Contents and names that a program which reads datasets must get right.

Callers: the histories. Pure.
"""

from __future__ import annotations

import hashlib
from typing import Final

from era_fixtures.workshop import Repository

TOOL: Final = "#!/bin/sh\necho hello\n"
CRLF: Final = "one\r\ntwo\r\nlone \r return\r\n"

NAMES: Final = (
    "plain.txt",
    ".hidden",
    "two  spaces.txt",
    "#hash %20; semi.txt",
    "-dash.txt",
    'it\'s "quoted".txt',
    "back\\slash.txt",
    "new\nline.txt",
    "composed-\u00e9.txt",
    "composed-e\u0301.txt",
    "日本語/深い/\U0001f600.txt",
    "no",
    "1e3",
    "A",
    "a",
)

ODD_NAMES: Final = ('it\'s "quoted" 日本語.txt', "no", "1e3", "007", "12:30:45", "~", "a: b", "#c", "-d")


def noise(seed: str, size: int) -> bytes:
    """Bytes that do not compress and are the same for ever."""
    return hashlib.shake_128(seed.encode()).digest(size)


def write_dataset(repository: Repository, directory: str) -> None:
    """A directory with every kind of file that DVC can track in one."""
    for name in NAMES:
        repository.write(f"{directory}/names/{name}", f"named {name!r}\n")
    repository.write(f"{directory}/crlf.txt", CRLF)
    repository.write(f"{directory}/binary-with-crlf.bin", b"\0\1\2\r\n\3\r\n" + noise("binary", 40))
    repository.write(f"{directory}/empty", b"")
    repository.write(f"{directory}/tool.sh", TOOL, executable=True)
    repository.write(f"{directory}/numbers/first/1.txt", "1\n")
    repository.write(f"{directory}/numbers/first/2.txt", "2\n")
    repository.write(f"{directory}/numbers/second/1.txt", "1\n")


def write_git_files(repository: Repository) -> None:
    """Files that git tracks: text, an executable, symlinks."""
    repository.write("README.md", "# Example\n")
    repository.write("scripts/count", "#!/bin/sh\ncat \"$@\" | wc -c | tr -d ' '\n", executable=True)
    (repository.path / "current").symlink_to("README.md")
    (repository.path / "scripts/up").symlink_to("..")


def write_long_texts(repository: Repository, directory: str) -> None:
    """Texts on which the ways to hash text differ: they read blocks of 1 MiB."""
    block = 1 << 20
    line = "0123456789abcdef0123456789abc\r\n"
    text = ("->" + line * (block // len(line) + 2))[: block + 20]
    assert text[block - 1 : block + 1] == "\r\n"  # across the boundary
    repository.write(f"{directory}/split-crlf.txt", text)
    repository.write(f"{directory}/binary-later.txt", text[:block].encode() + b"\0\1\2\3\r\n" * 20)
    # The text is judged by its first 512 bytes only.
    repository.write(f"{directory}/binary-first.bin", b"\0" * 600 + b"a\r\nb\r\n")
