"""What the tools that everybody has make of a mount, held against an ordinary directory."""

from __future__ import annotations

import os
import subprocess
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.mount.datasets import directories_of, md5, tree_of, varied_files, write_folder
from tests.mount.mounts import Mounter

pytestmark = [pytest.mark.fuse, pytest.mark.modes("fuse", "native")]

TOOL_SECONDS = 60.0


@dataclass(frozen=True)
class Pair:
    """The mount and an ordinary directory with the same files."""

    mount: Path
    plain: Path
    files: Mapping[str, bytes]


@pytest.fixture(scope="module")
def pair(shared_mounter: Mounter) -> Pair:
    files = varied_files()
    plain = shared_mounter.home / "plain"
    write_folder(plain, files)
    return Pair(shared_mounter.mount_files(files).path, plain, files)


def run(*command: str | Path, cwd: Path | None = None, status: int = 0) -> bytes:
    """Run a tool that has nothing to complain about; returns what it prints."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=TOOL_SECONDS,
        check=False,
    )
    assert done.stderr == b"", done.stderr
    assert done.returncode == status
    return done.stdout


def test_the_tree_is_the_folder_that_was_committed(pair: Pair) -> None:
    assert tree_of(pair.mount) == pair.files


def test_ls_lists_everything(pair: Pair) -> None:
    command = ["ls", "-lanRb", "--time-style=+", "."]
    # How wide a column is depends on the directories' own sizes.
    here = [b" ".join(line.split()) for line in run(*command, cwd=pair.mount).splitlines()]
    there = [b" ".join(line.split()) for line in run(*command, cwd=pair.plain).splitlines()]
    for kind in (b"-rw-r--r-- 1 ", b"./"):  # the files' lines, and the directories' headings
        assert Counter(line for line in here if line.startswith(kind)) == Counter(
            line for line in there if line.startswith(kind)
        )
    assert sum(line.startswith(b"-") for line in here) == len(pair.files)
    # Every directory is listed by its parent and as its own `.`, and lists its parent as `..`.
    assert sum(line.startswith(b"d") for line in here) == 3 * len(directories_of(pair.files)) + 2


def test_find_sees_the_same_names_types_and_sizes(pair: Pair) -> None:
    files = ["find", ".", "-type", "f", "-printf", r"%p\0%y\0%s\0"]
    directories = ["find", ".", "-mindepth", "1", "-not", "-type", "f", "-printf", r"%p\0%y\0"]
    for command in (files, directories):
        here = run(*command, cwd=pair.mount).split(b"\0")
        there = run(*command, cwd=pair.plain).split(b"\0")
        assert Counter(here) == Counter(there)


def test_find_selects_by_size_and_emptiness(pair: Pair) -> None:
    empty = run("find", ".", "-empty", cwd=pair.mount).split()
    assert sorted(empty) == sorted([b"./empty", b"./edges/0", b"./flat/00000.bin"])
    large = run("find", ".", "-size", "+1000k", cwd=pair.mount).split()
    assert sorted(large) == [b"./edges/1048575", b"./edges/1048576", b"./edges/1048577"]


def test_stat_prints_what_the_folder_has(pair: Pair) -> None:
    command = ["stat", "--printf", "%n %s %F %h\\n", "text.txt", "edges/0", "edges/1048577"]
    assert run(*command, cwd=pair.mount) == run(*command, cwd=pair.plain)


def test_du_counts_every_file_at_its_size(pair: Pair) -> None:
    sizes = run("du", "-0", "--apparent-size", "--block-size=1", "edges", cwd=pair.mount)
    directory = (pair.mount / "edges").stat().st_size
    assert sizes == b"%d\tedges\0" % (
        sum(len(d) for p, d in pair.files.items() if p.startswith("edges/")) + directory
    )
    used = int(run("du", "-s", "--block-size=1", pair.mount).split()[0])
    assert used >= sum(map(len, pair.files.values()))


def test_df_shows_a_full_file_system_of_the_version_s_size(pair: Pair) -> None:
    tree_of(pair.mount)  # the manifest has no sizes: now they are known
    fields = "size,avail,itotal,iavail,target"
    size, available, inodes, free, target = (
        run("df", "--block-size=1", f"--output={fields}", pair.mount).splitlines()[1].split(maxsplit=4)
    )
    total = sum(map(len, pair.files.values()))
    assert total <= int(size) <= total + 4096
    assert int(inodes) == len(pair.files) + len(directories_of(pair.files)) + 1
    assert (int(available), int(free)) == (0, 0)
    assert os.fsdecode(target) == str(pair.mount)


def test_cp_keeps_bytes_times_and_modes(pair: Pair, tmp_path: Path) -> None:
    run("cp", "-a", pair.mount, tmp_path / "copy")
    run("diff", "-r", pair.mount, tmp_path / "copy")
    for path in ["text.txt", "deep", "names/" + "x" * 255, "edges/0"]:
        copy, original = (tmp_path / "copy" / path).stat(), (pair.mount / path).stat()
        assert (copy.st_mtime_ns, copy.st_mode) == (original.st_mtime_ns, original.st_mode)


def test_the_second_rsync_transfers_nothing(pair: Pair, tmp_path: Path) -> None:
    command = ["rsync", "-a", "--itemize-changes", f"{pair.mount}/", f"{tmp_path}/copy/"]
    first = run(*command)
    assert first.count(b"\n>f") == len(pair.files)
    assert run(*command) == b""
    run("rsync", "-a", "--checksum", "--itemize-changes", f"{pair.plain}/", f"{tmp_path}/copy/", "--dry-run")
    run("diff", "-r", pair.plain, tmp_path / "copy")


def test_tar_packs_and_compares(pair: Pair, tmp_path: Path) -> None:
    archive = tmp_path / "archive.tar"
    run("tar", "--create", "--file", archive, "--directory", pair.mount, ".")
    run("tar", "--compare", "--file", archive, "--directory", pair.mount)
    (tmp_path / "out").mkdir()
    run("tar", "--extract", "--file", archive, "--directory", tmp_path / "out")
    run("diff", "-r", pair.plain, tmp_path / "out")


def test_diff_finds_nothing(pair: Pair) -> None:
    assert run("diff", "-r", pair.plain, pair.mount) == b""


def test_checksums_are_right(pair: Pair, tmp_path: Path) -> None:
    (tmp_path / "sums").write_bytes(
        run("find", ".", "-type", "f", "-exec", "sha256sum", "-z", "{}", "+", cwd=pair.plain)
    )
    lines = (tmp_path / "sums").read_bytes().split(b"\0")
    here = run("find", ".", "-type", "f", "-exec", "sha256sum", "-z", "{}", "+", cwd=pair.mount)
    assert Counter(here.split(b"\0")) == Counter(lines)
    assert len(lines) == len(pair.files) + 1


def test_file_tells_types(pair: Pair) -> None:
    command = ["file", "-N", "--mime-type", "picture.png", "text.txt", "empty", "deep"]
    assert run(*command, cwd=pair.mount) == run(*command, cwd=pair.plain)


def test_less_and_the_ends_of_files(pair: Pair) -> None:
    text = pair.files["text.txt"]
    assert run("less", "-F", "text.txt", cwd=pair.mount) == text
    assert run("tail", "-c", "20", "text.txt", cwd=pair.mount) == text[-20:]
    assert run("tail", "-n", "3", "text.txt", cwd=pair.mount) == b"a line of text\n" * 3
    assert run("head", "-c", "7", "edges/1048577", cwd=pair.mount) == pair.files["edges/1048577"][:7]
    assert run("grep", "-c", "line", "text.txt", cwd=pair.mount) == b"500\n"


@pytest.mark.parametrize("flags", ["", "direct", "fullblock,direct"])
def test_dd_reads_a_range(pair: Pair, flags: str) -> None:
    options = [f"iflag={flags}"] if flags else []
    got = run(
        "dd", "if=edges/1048577", "bs=4096", "skip=3", "count=10", "status=none", *options, cwd=pair.mount
    )
    assert md5(got) == md5(pair.files["edges/1048577"][3 * 4096 : 13 * 4096])


def test_git_can_compare_it(pair: Pair) -> None:
    command = ["git", "diff", "--no-index", "--quiet", pair.plain / "flat", pair.mount / "flat"]
    assert run(*command) == b""
