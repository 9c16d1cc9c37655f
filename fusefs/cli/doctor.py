"""`fusefs doctor`: what this machine can do for fusefs, why not, and the remedy."""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

from fusefs.capabilities import Check, State, can_mount, check_machine

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

_COLOURS: Final = {State.OK: "32", State.LIMITED: "33", State.NO: "31"}


def add_parser(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "doctor",
        help="say what this machine can do, why not, and the remedy",
        description="Check what this machine can do for fusefs. Exits with 0 when a mount is possible.",
    )
    parser.add_argument("--json", action="store_true", help="print an object instead of a table")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the checks; 0 when a dataset can be mounted in some way, else 1."""
    checks = list(check_machine())
    possible = can_mount(checks)
    if options.json:
        print(json.dumps({"ok": possible, "checks": [asdict(check) for check in checks]}, indent=2))
        return 0 if possible else 1
    coloured = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    print("\n".join(format_check(check, coloured) for check in checks))
    print("A dataset can be mounted here." if possible else "No dataset can be mounted here: see above.")
    return 0 if possible else 1


def format_check(check: Check, coloured: bool) -> str:
    """A row of the table, and below it the remedy where there is one."""
    state = f"{check.state:<7}"
    if coloured:
        state = f"\033[{_COLOURS[check.state]}m{state}\033[0m"
    row = f"{check.name:<16} {state}  {check.detail}"
    return f"{row}\n{'':<26}remedy: {check.remedy}" if check.remedy else row
