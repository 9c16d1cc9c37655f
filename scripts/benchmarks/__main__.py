"""`scripts/bench [CASE…]`: run cases, print their tables, and write JSON where it is asked for."""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import FrameType
from typing import NoReturn

from benchmarks.calibration import calibrate, watch_load
from benchmarks.cases import CASES
from benchmarks.measure import Results
from benchmarks.scale import FULL, QUICK
from benchmarks.workshop import MEMORY_FILE_SYSTEMS, BenchError, Workshop, can_drop_caches, file_system


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Compare fusefs with the local disk, rclone mount and DVC on this machine. "
        "Best as root on a quiet machine: only then are cold reads measured (it drops the machine's caches). "
        "All of it takes some half an hour.",
        epilog="A target that is missed is reported, not an error.",
    )
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)} (default: all)")
    parser.add_argument(
        "--quick", action="store_true", help="small numbers: shows that it works, measures nothing"
    )
    parser.add_argument(
        "--rounds", type=int, metavar="N", help="interleaved rounds of each case (default: 3)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all samples there, too")
    parser.add_argument(
        "--directory",
        type=Path,
        default=Path("/var/tmp"),
        metavar="DIR",
        help="where the temporary data lie; a local disk with 10 GB free (default: /var/tmp)",
    )
    options = parser.parse_args(arguments)
    unknown = [name for name in options.cases if name not in CASES]
    if unknown:
        parser.error(f"no such case: {', '.join(unknown)}; there are {', '.join(CASES)}")
    if options.rounds is not None and options.rounds < 1:
        parser.error("--rounds must be at least 1")
    return options


def _exit_on(number: int, _frame: FrameType | None) -> NoReturn:
    # As an exception, so that everything on the way out is unmounted and removed.
    sys.exit(128 + number)


def describe_machine(directory: Path) -> dict[str, object]:
    kind, source = file_system(directory)
    return {
        "kernel": platform.release(),
        "cpus": len(os.sched_getaffinity(0)),
        "file_system": kind,
        "device": source,
    }


def main(arguments: Sequence[str]) -> int:
    options = parse_arguments(arguments)
    scale = QUICK if options.quick else FULL
    scale = replace(scale, rounds=options.rounds or scale.rounds, cold=scale.cold and can_drop_caches())
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, _exit_on)
    finished: list[Results] = []
    try:
        machine = describe_machine(options.directory)
        print(f"data in {options.directory} ({machine['file_system']} on {machine['device']})")
        print(f"rounds: {scale.rounds}; Linux {machine['kernel']}, {machine['cpus']} CPUs")
        if machine["file_system"] in MEMORY_FILE_SYSTEMS:
            print("caveat: this is memory, not a disk; give --directory on a local disk")
        load = watch_load()
        with Workshop(options.directory) as workshop:
            calibration = calibrate(workshop, scale)
        print("\n".join([*load.lines(), *calibration.lines()]))
        if scale.rounds == 1:
            print("caveat: one round: nothing tells how far the figures spread")
        if options.quick:
            print("quick: these figures show that the benchmark works, and nothing else")
        for name in options.cases or CASES:
            with Workshop(options.directory) as workshop:
                start = time.monotonic()
                results = CASES[name](workshop, scale)
            print("\n".join(results.lines()), f"  ({time.monotonic() - start:.0f} s)", sep="\n", flush=True)
            finished.append(results)
    except (BenchError, OSError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    if options.json:
        report = {
            "machine": machine | {"load": asdict(load), "calibration": asdict(calibration)},
            "quick": options.quick,
            "cases": [r.as_json() for r in finished],
        }
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    missed = sum(not verdict.met for results in finished for verdict in results.verdicts())
    if missed and not options.quick:
        print(f"\n{missed} target(s) missed")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
