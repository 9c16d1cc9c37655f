"""`dataset.json`: how many shards a version has, and what is in them.

    {
      "bytes": 81920,             the members' bodies together, without headers and padding
      "files": 20,
      "layout": "ustar+pax v1",   what makes the bytes between the bodies
      "oid": "0a1b….dir",         the version
      "order": "tree",            or the shuffle's algorithm, "xxh3-128 v1"
      "recipe": "1000",
      "samples": 10,
      "shards": 1
    }

It follows from the version and the recipe alone, so it waits for the sizes. Blocking; any worker thread.
"""

from __future__ import annotations

import json
from typing import Final

from store.shards.layout import Layout
from store.shards.samples import SHUFFLE
from store.shards.tar_format import LAYOUT

DATASET_NAME: Final = "dataset.json"


def dataset_json(layout: Layout, oid: str) -> bytes:
    """The file's bytes, for the version that is called `oid`. Raises `SizesUnknown`."""
    described = {
        "bytes": layout.content_bytes(),
        "files": layout.files,
        "layout": LAYOUT,
        "oid": oid,
        "order": "tree" if layout.recipe.seed is None else SHUFFLE,
        "recipe": str(layout.recipe),
        "samples": layout.samples,
        "shards": layout.shards,
    }
    return json.dumps(described, indent=2, sort_keys=True).encode("ascii") + b"\n"
