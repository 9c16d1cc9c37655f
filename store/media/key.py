"""`product_key`: what a product of the views is kept by, in caches and on remotes.

Two machines that agree on all that the bytes follow from agree on the key. Pure; any thread.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgpack
import xxhash

KEY_VERSION: Final = 1
"""Of the list of fields below; another one gives other keys for everything."""


def product_key(kind: str, source: str, recipe: str, chunk: int, materializer: str) -> str:
    """32 hex digits.

    `kind` is which product of the recipe it is (like `frames` or `compressed`), `source` the oid of the
    content that it is made of (`sources_id` of several), `recipe` the canonical spelling, `materializer` the
    versions that make it.
    """
    fields = ["fusefs product", KEY_VERSION, kind, source, recipe, chunk, materializer]
    return xxhash.xxh3_128_hexdigest(msgpack.packb(fields, use_bin_type=True))


def sources_id(members: Iterable[tuple[str, str]]) -> str:
    """One identity for what is made of several files, given their names and oids in order: 32 hex digits."""
    packer = msgpack.Packer(use_bin_type=True)
    digest = xxhash.xxh3_128()
    for name, oid in members:
        digest.update(packer.pack([name, oid]))
    return str(digest.hexdigest())
