"""`fusefs media TARGET`: the videos and images of a version. Needs no mount."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import trio

from fusefs.cli import print_error
from fusefs.cli.json_array import ArrayPrinter
from fusefs.cli.target_flags import add_only_flag, add_place_flags, add_remote_flags, count_to, make_request
from fusefs.dataset import open_dataset
from fusefs.logs import escape
from fusefs.mount_options import argument_type
from fusefs.opened_version import read_version
from store.engine import Engine
from store.tree import Tree
from store.tree_files import TreeFiles
from store.tree_glob import find_files

if TYPE_CHECKING:
    from fusefs.contact_sheet import Section

MOST_PICTURES: Final = 64
PICTURES: Final = 8

EPILOG = """\
TARGET is what `fusefs mount` takes. Of a video: bytes, frames, length, frames a second, codec, size as it is
displayed, the median and the longest distance of key frames (a random frame costs as much decoding), and how
its frames were counted: from sample tables, of which little is read, or by demuxing, which reads all of it.
Images are told of by folder, with the format and size of the first one. What is made of them already follows:
recipes that were used with this cache, and those that --view names.

Exit status 1 where something is not what its name says, or cannot be had.

examples:
  fusefs media data@v1.0
  fusefs media data --only 'clips/*.mp4' --view frames:jpg
  fusefs media data --sheet overview.png
  fusefs media --json data | jq -r '.[] | select(.gop.longest > 250) | .path'
"""


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "media",
        help="list the videos and images of a version",
        description="List the videos and images of a version: what they are, and what is made of them.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("target", metavar="TARGET", help="the version; also TARGET@REV")
    add_only_flag(parser)
    parser.add_argument("--each", action="store_true", help="every image for itself, and not by folder")
    parser.add_argument(
        "--view",
        metavar="KIND:RECIPE",
        action="append",
        default=[],
        type=argument_type(_parse_view),
        help="tell what is there of this view, such as frames:jpg; may be repeated",
    )
    parser.add_argument(
        "--sheet",
        metavar="OUT.png",
        type=Path,
        help=f"draw a sheet of {PICTURES} pictures each (--pictures N); OUT.png must not be there",
    )
    parser.add_argument(
        "--pictures",
        metavar="N",
        type=argument_type(count_to(MOST_PICTURES)),
        default=PICTURES,
        help=argparse.SUPPRESS,
    )
    add_place_flags(parser)
    add_remote_flags(parser)
    parser.add_argument("--json", action="store_true", help="an array of objects")


def _parse_view(text: str) -> str:
    from fusefs.views.kinds import parse_view

    return parse_view(text)


def run(options: argparse.Namespace) -> int:
    from fusefs.cli.media_lines import Totals, describe, show  # what decodes is slow to import
    from fusefs.contact_sheet import check_place
    from fusefs.made_products import MadeProducts, views_of_cache
    from fusefs.media_survey import Found, list_items, survey
    from fusefs.sheet_pictures import collect_sections

    request = make_request(options, options.target, options.rev)
    if options.sheet is not None:
        check_place(options.sheet)
    dataset = open_dataset(request)
    for warning in dataset.warnings:
        print_error(f"warning: {warning}")
    assert dataset.tree is not None  # only revisions side by side have none
    tree = Tree.open(dataset.tree)
    rows = find_files(tree, options.only, options.target)
    # What goes wrong with a file is said in its place.
    logging.getLogger("store").addHandler(logging.NullHandler())
    totals = Totals()
    printer = ArrayPrinter() if options.json else None
    sections = []

    async def look(engine: Engine, files: TreeFiles) -> None:
        drawn = []

        def tell(found: Found) -> None:
            totals.add(found)
            if printer is not None:
                printer.add(describe(found))
            else:
                print(escape(show(found)), flush=True)
            if found.error is None and options.sheet is not None:
                drawn.append(found.item)

        items = list_items(files, rows, each=options.each)
        views = [view for view in options.view if not view.startswith("shards:")]
        others = await engine.threads.on_disk(views_of_cache, engine)
        made = MadeProducts(engine, files, views, others)
        try:
            await survey(engine.maker, files, items, made, tell)
        finally:
            made.close()
        if options.sheet is not None:
            sections.extend(await collect_sections(engine.maker, files, drawn, options.pictures))

    came = trio.run(partial(read_version, request, dataset, tree, look))
    if came:
        return 128 + came
    if printer is not None:
        printer.end()
    else:
        print(totals.show())
    if options.sheet is not None:
        _draw(options.sheet, sections)
    return 1 if totals.failed else 0


def _draw(path: Path, sections: Sequence[Section]) -> None:
    """Write the sheet."""
    from fusefs.contact_sheet import draw_sheet, write_sheet

    write_sheet(draw_sheet(sections), path)
