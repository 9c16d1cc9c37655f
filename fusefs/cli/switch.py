"""`fusefs switch MOUNTPOINT REV`: moves a live mount to another version."""

from __future__ import annotations

import argparse
import json
from typing import Any

from fusefs.cli.umount import find_mount
from fusefs.control_socket import ask
from fusefs.survey import State, survey_named
from store.errors import InputError, StoreError

EPILOG = """\
What is open keeps its bytes; whatever is opened from now on is of the new version. Programs need no
restart. The mount's owner and root may do this.

examples:
  fusefs switch /mnt/data v1.1
  fusefs switch /mnt/data HEAD~1
"""


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "switch",
        help="move a live mount to another version",
        description="Move a live mount to another version of its dataset, at once.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("mountpoint", metavar="MOUNTPOINT")
    parser.add_argument("rev", metavar="REV", help="a tag, branch, commit or experiment")
    parser.add_argument("--json", action="store_true", help="print the new version as a JSON object")


def run(options: argparse.Namespace) -> int:
    answer = switch(options.mountpoint, options.rev)
    if options.json:
        print(json.dumps(answer))
    else:
        commit = str(answer["rev"])[:10]
        print(f"{options.mountpoint} shows {options.rev} (commit {commit}), {answer['files']} files")
    return 0


def switch(mountpoint: str, rev: str) -> dict[str, Any]:
    """Ask the daemon of a mount to show `rev`; its answer. Raises `StoreError`."""
    found = survey_named(find_mount(mountpoint))
    if found.state is not State.OK or found.status.control is None:
        raise InputError(f"{mountpoint} cannot be switched: its daemon does not answer ({found.state.value})")
    try:
        answer = ask(found.status.control, {"switch": rev})
    except (OSError, ValueError) as error:
        raise StoreError(f"the daemon of {mountpoint} does not answer: {error}") from None
    if "error" in answer:
        raise InputError(str(answer["error"]))
    return answer
