"""The flags of commands that open a version, and may have to ask a remote for its manifest."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from fusefs.dataset import Request
from fusefs.mount_options import argument_type, parse_remote


def add_place_flags(parser: argparse.ArgumentParser, *, rev: bool = True) -> None:
    """`--repo` and `--cache`, and `--rev` where there is one target of one revision."""
    if rev:
        parser.add_argument("--rev", metavar="REV", default="", help="the revision of the target")
    parser.add_argument("--repo", metavar="REPO", default="", help="a repository's directory or URL")
    parser.add_argument("--cache", metavar="DIR", default="", help="the cache (default: the project's)")


def add_only_flag(parser: argparse.ArgumentParser) -> None:
    """`--only`, any number of times."""
    parser.add_argument(
        "--only",
        metavar="GLOB",
        action="append",
        default=[],
        help="only this file or directory of it, or those that match; may be repeated",
    )


def add_jobs_flag(parser: argparse.ArgumentParser, default: int, most: int, what: str) -> None:
    """`--jobs`, from 1 to `most`; `what` says what there are so many of."""
    parser.add_argument("--jobs", metavar="N", type=argument_type(count_to(most)), default=default, help=what)


def count_to(most: int) -> Callable[[str], int]:
    """What reads a number from 1 to `most`, and raises `ValueError` for everything else."""

    def parse(text: str) -> int:
        if not (text.isascii() and text.isdigit() and 1 <= int(text) <= most):
            raise ValueError(f"{text!r} is not a number from 1 to {most}")
        return int(text)

    return parse


def add_trust_flag(parser: argparse.ArgumentParser) -> None:
    """`--trust`."""
    parser.add_argument(
        "--trust", action="store_true", help="follow the configuration of a repository that is not yours"
    )


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
    add_trust_flag(parser)
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
