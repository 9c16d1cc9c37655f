"""`scripts/make_era_fixtures [ERA…]`: install the releases, make the fixtures."""

from __future__ import annotations

import argparse
import fcntl
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from era_fixtures.isolated import import_history
from era_fixtures.releases import FixtureError, install

ERAS: Final = ("0.94", "1.11", "2.58", "3", "cloud", "upgraded")

_OUTPUT = Path(__file__).parents[2] / "tests/fixtures/eras"


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/make_era_fixtures",
        description="Make repositories with DVC releases of every era, and write them with what each "
        "release's own checkout gave into tests/fixtures/eras. Needs root (mount and network name spaces, so "
        "that neither this machine's paths nor the network have a part in it), Python 3.8 and 3.11, and for "
        "the installation of the releases the network.",
        epilog="Making a fixture anew changes it only where a history, a release or a pin was changed.",
    )
    parser.add_argument("eras", nargs="*", metavar="ERA", help=f"of {', '.join(ERAS)} (default: all)")
    parser.add_argument(
        "--work",
        type=Path,
        default=Path("/var/tmp/fusefs-eras"),
        metavar="DIR",
        help="where the releases are installed, and stay (default: /var/tmp/fusefs-eras; 1 GB)",
    )
    options = parser.parse_args(arguments)
    unknown = [era for era in options.eras if era not in ERAS]
    if unknown:
        parser.error(f"no such era: {', '.join(unknown)}; there are {', '.join(ERAS)}")
    return options


def main(arguments: Sequence[str]) -> int:
    options = parse_arguments(arguments)
    if os.geteuid() != 0:
        print("make_era_fixtures: please run as root: it needs a mount name space", file=sys.stderr)
        return 1
    work = options.work.absolute()
    work.mkdir(mode=0o700, parents=True, exist_ok=True)
    _OUTPUT.mkdir(parents=True, exist_ok=True)
    lock = os.open(work, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print(f"make_era_fixtures: another one works in {work}", file=sys.stderr)
        return 1
    try:
        for era in options.eras or ERAS:
            for name in import_history(era).RELEASES:
                install(name, work)
            isolated = (sys.executable, "-m", "era_fixtures.isolated", era, str(work), str(_OUTPUT))
            done = subprocess.run(["unshare", "--mount", "--net", *isolated], check=False)
            if done.returncode:
                raise FixtureError(f"{era} was not made")
    except FixtureError as error:
        print(f"make_era_fixtures: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
