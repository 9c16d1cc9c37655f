"""Makes one fixture, in a process that has mount and network name spaces of its own.

`python -m era_fixtures.isolated ERA WORK OUTPUT`: WORK/build-ERA is seen as `ROOT`, so that absolute paths
which a release writes say nothing about this machine, and the network is its loop-back only.

Callers: `era_fixtures.__main__`.
"""

from __future__ import annotations

import importlib
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Final

from era_fixtures.archive import pack
from era_fixtures.listing import dump
from era_fixtures.releases import FixtureError
from era_fixtures.workshop import Workshop

ROOT: Final = Path("/srv")
LIMIT: Final = 200_000
"""Bytes that an archive may have."""


def import_history(era: str) -> ModuleType:
    """The module that makes an era: it has `RELEASES` and `build`."""
    return importlib.import_module("era_fixtures.history_" + era.replace(".", "_"))


def main(arguments: Sequence[str]) -> int:
    era, work, output = arguments[0], Path(arguments[1]), Path(arguments[2])
    build = work / f"build-{era}"
    if build.exists():
        shutil.rmtree(build)
    build.mkdir()
    subprocess.run(["mount", "--bind", str(build), str(ROOT)], check=True)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    history = import_history(era)
    names = history.RELEASES
    workshop = Workshop(ROOT, {name: work / name / "bin" for name in names})
    try:
        history.build(workshop)
    except FixtureError as error:
        print(error, file=sys.stderr)
        return 1
    shutil.rmtree(ROOT / "home")
    archive = output / f"{era}.tar.xz"
    pack(ROOT, sorted(path.name for path in ROOT.iterdir()), archive)
    (output / f"{era}.json").write_text(dump(workshop.snapshots), encoding="utf-8")
    size = archive.stat().st_size
    print(f"{era}: {len(workshop.snapshots)} snapshots, {size} bytes")
    return 0 if size <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
