"""`fusefs materialize TARGET --view KIND:RECIPE`: make all of a view now, without a mount."""

from __future__ import annotations

import argparse
import gc
import json
import logging
import os
import sys
import time
from dataclasses import replace
from functools import partial
from typing import Any, Final

from fusefs.cli import print_error
from fusefs.cli.target_flags import (
    add_jobs_flag,
    add_only_flag,
    add_place_flags,
    add_remote_flags,
    make_request,
)
from fusefs.dataset import open_dataset
from fusefs.logs import escape
from fusefs.mount_options import argument_type, parse_remote
from fusefs.views.kinds import parse_view
from store.errors import InputError
from store.making.started_worker import CHUNK_MAKERS, FRAME_MAKERS, StartedWorkers
from store.tree import Tree

MOST_JOBS: Final = 64

EPILOG = """\
What is made lies in the cache, by content: mounts, versions, users and machines that share the cache share
it. What is there is passed over, and what was interrupted goes on where it ended. chunks:RECIPE makes both
qualities; a folder of images is every directory with images of its own, or those that --only names.

With --dask the work is done by the workers of a Dask cluster (pip install 'fusefs[dask]'), by default one of
this machine's own. They read from the same caches where they see them and else from the remotes, and keep
what they make in a cache. The settings of remotes are sent to them, secrets included: use tls:// on networks
that are not yours alone.

Exit status 1 where something could not be made.

examples:
  fusefs materialize data@v1.0 --view frames:jpg
  fusefs materialize data --view frames:npy,scale=224x224 --only 'train/*.mp4' --jobs 8
  fusefs materialize data --view chunks:auto --dask tls://scheduler:8786 --push backup
"""


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "materialize",
        help="make all frames or chunks of a version now",
        description="Make everything that a view of a version shows, in parallel, before anybody reads it.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("target", metavar="TARGET", help="the version; also TARGET@REV")
    parser.add_argument(
        "--view",
        metavar="KIND:RECIPE",
        required=True,
        type=argument_type(parse_view),
        help="what to make, as `fusefs mount --view` has it: frames:jpg, chunks:auto",
    )
    add_only_flag(parser)
    cores = len(os.sched_getaffinity(0))
    add_jobs_flag(
        parser,
        cores,
        MOST_JOBS,
        f"processes of this machine that make something (default: one for each core, {cores})",
    )
    parser.add_argument(
        "--dask",
        metavar="ADDRESS",
        nargs="?",
        const="local",
        default="",
        help="have the workers of a Dask cluster do it; without ADDRESS, of one that is started for it",
    )
    add_place_flags(parser)
    add_remote_flags(parser)
    parser.add_argument(
        "--push",
        metavar="NAME|URL",
        default="",
        type=argument_type(parse_push),
        help="put what is made, or was here, on this remote, too: others find it there before they make it",
    )
    parser.add_argument("--json", action="store_true", help="print one object about it")


def parse_push(text: str) -> str:
    """Raises `ValueError`."""
    return parse_remote(text) if text else ""


def run(options: argparse.Namespace) -> int:
    if options.view.startswith("shards:"):
        print("shards are computed as they are read: there is nothing to make")
        return 0
    started = time.monotonic()
    cores = len(os.sched_getaffinity(0))
    # They take as long to start as this process to find out what is to be made.
    makers = FRAME_MAKERS if options.view.startswith("frames:") else CHUNK_MAKERS
    with StartedWorkers(0 if options.dask else min(options.jobs, cores), makers) as workers:
        status = _materialize(options, workers, started)
    gc.freeze()  # or the interpreter looks at all that was imported once more, to no use
    return status


def _materialize(options: argparse.Namespace, workers: StartedWorkers, started: float) -> int:
    import trio  # all of these are slow to import, what decodes most of all

    from fusefs.cli.materialize_work import ProductProgress, Work
    from fusefs.materializing import find_sources, parse_recipe
    from fusefs.opened_version import read_version

    recipe = parse_recipe(options.view)
    request = replace(make_request(options, options.target, options.rev), push_to=options.push)
    dataset = open_dataset(request)
    if options.push and options.push not in dataset.push_remotes:
        raise InputError(f"nothing can be put on the remote {options.push!r}: it keeps files by their paths")
    for warning in dataset.warnings:
        print_error(f"warning: {warning}")
    assert dataset.tree is not None  # only revisions side by side have none
    tree = Tree.open(dataset.tree)
    sources = find_sources(tree, recipe, options.only, options.target)
    # What goes wrong with a file is said at the end, by classes, and not as it happens.
    logging.getLogger("store").addHandler(logging.NullHandler())
    watched = not options.json and sys.stderr.isatty()
    work = Work(options, dataset, tree, recipe, sources, ProductProgress() if watched else None)
    with work.connected():
        read = partial(read_version, workers=options.jobs, started=workers)
        came = trio.run(read, request, dataset, tree, work.run)
    seconds = time.monotonic() - started
    if options.json:
        print(json.dumps(work.describe(seconds, interrupted=bool(came))))
    else:
        print(escape(work.summarize(seconds, interrupted=bool(came))))
    for kind, failure in work.tally.failures.items():
        print_error(f"{kind}: {failure.files} failed, such as {failure.example}")
    if came:
        return 128 + came
    return 1 if work.tally.failures else 0
