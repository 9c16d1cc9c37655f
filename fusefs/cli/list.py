"""`fusefs list`: what is mounted."""

from __future__ import annotations

import argparse
import json
from typing import Any

from fusefs import mountinfo
from fusefs.logs import escape
from fusefs.survey import Found, State, survey


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "list",
        help="list what is mounted",
        description="List the mounts of fusefs, one a line: mountpoint, target, oid, state.",
        epilog="examples:\n  fusefs list\n  fusefs list --json",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="an array of status objects")


def run(options: argparse.Namespace) -> int:
    found = survey(mountinfo.visible_mounts(mountinfo.read_mounts()))
    if options.json:
        print(json.dumps([one.to_dict() for one in found], indent=2))
        return 0
    rows = [_row(one) for one in found]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0


def _row(found: Found) -> tuple[str, ...]:
    status = found.status
    state = "" if found.state is State.OK else str(found.state)
    return tuple(escape(str(text or "")) for text in (status.mountpoint, status.target, status.oid, state))
