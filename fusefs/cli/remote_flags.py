"""The flags of commands that open a version and may have to ask a remote for its manifest."""

from __future__ import annotations

import argparse

from fusefs.dataset import Request
from fusefs.mount_options import argument_type, parse_remote


def add_remote_flags(parser: argparse.ArgumentParser) -> None:
    """`--remote`, `--trust` and `--offline`, as `fusefs mount` has them."""
    parser.add_argument(
        "--remote",
        metavar="NAME|URL",
        action="append",
        default=[],
        type=argument_type(parse_remote),
        help="ask this remote and no others; may be repeated",
    )
    parser.add_argument(
        "--trust", action="store_true", help="follow the configuration of a repository that is not yours"
    )
    parser.add_argument("--offline", action="store_true", help="do without the network")


def make_request(options: argparse.Namespace, target: str, rev: str) -> Request:
    """What a command is to open; it has `--cache` and `--repo`, too."""
    return Request(
        target,
        cache=options.cache,
        rev=rev,
        repo=options.repo,
        remotes=tuple(options.remote),
        trust=options.trust,
        offline=options.offline,
    )
