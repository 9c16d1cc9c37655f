"""Who starts us may have closed the standard streams, and ignore children that end: all works as ever."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.conftest import SECONDS, Fusefs, SmallDataset
from tests.process.conftest import await_end, list_daemons

pytestmark = [pytest.mark.fuse, pytest.mark.root]

IGNORE = "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); "
EXECUTE = "os.execv(sys.argv[1], sys.argv[1:])"
FILE = "a/0.txt"


def run(script: str, command: Sequence[str], fusefs: Fusefs) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script, *command],
        env=fusefs.environment,
        cwd=fusefs.directory,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


@pytest.mark.modes("fuse", "native")
def test_neither_streams_nor_children(fusefs: Fusefs, dataset: SmallDataset, mountpoint: Path) -> None:
    bare = f"{IGNORE}os.closerange(0, 3); {EXECUTE}"
    mount = fusefs.command("mount", "--cache", dataset.cache, dataset.oid, mountpoint)
    assert run(bare, mount, fusefs).returncode == 0
    assert (mountpoint / FILE).read_bytes() == dataset.files[FILE]
    (daemon,) = list_daemons(mountpoint)
    assert run(bare, fusefs.command("umount", mountpoint), fusefs).returncode == 0
    assert await_end(daemon)


def test_errors_and_exit_statuses_are_not_lost(
    fusefs: Fusefs, dataset: SmallDataset, mountpoint: Path
) -> None:
    ignoring = f"{IGNORE}{EXECUTE}"
    named = ["--cache", dataset.cache, dataset.oid]
    done = run(ignoring, fusefs.command("mount", *named, "/proc"), fusefs)
    assert (done.returncode, done.stderr) == (1, "fusefs: /proc is mounted already: proc from proc\n")
    done = run(ignoring, fusefs.command("run", *named, "--", "sh", "-c", "exit 7"), fusefs)
    assert (done.returncode, done.stderr) == (7, "")
