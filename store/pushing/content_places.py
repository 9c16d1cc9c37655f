"""`Places`: where a push has found or put contents, in content directories. Whoever writes has a lock."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from store.contents.catalogue import Catalogue
from store.contents.names import ARCHIVE, PARTS_INDEX, WHOLE, WRITTEN_DEPTH, ContentName, Place
from store.layouts import object_path
from store.oid import Oid

PLAIN: Final = "plain"
"""Where a content is that lies in DVC's place."""


@dataclass(slots=True)
class Places:
    """Where contents are on the remote."""

    kept: dict[str, dict[str, str]] = field(default_factory=dict)
    """Algorithm → digest → `WHOLE`, `PARTS_INDEX`, `PLAIN`, or the name of an archive."""
    sizes: dict[str, dict[str, int]] = field(default_factory=dict)
    """Their lengths in bytes."""
    plain_manifests: set[Oid] = field(default_factory=set)
    """That lie in DVC's place."""
    depths: dict[tuple[ContentName, str], int] = field(default_factory=dict)
    """Of files that do not lie where we put them."""

    def note(self, oid: Oid, where: str, size: int) -> None:
        self.kept.setdefault(oid.algorithm, {})[oid.digest] = where
        self.sizes.setdefault(oid.algorithm, {})[oid.digest] = size

    def note_depth(self, place: Place) -> None:
        """A file is there, at that depth of prefix directories."""
        if place.depth != WRITTEN_DEPTH:
            self.depths[place.name, place.file] = place.depth

    def find(self, algorithm: str, digest: str) -> str:
        """Where a content is; empty where it is not."""
        return self.kept.get(algorithm, {}).get(digest, "")

    def key(self, oid: Oid) -> str:
        """The key of what has the content, for logs."""
        where = self.find(oid.algorithm, oid.digest)
        if where == PLAIN:
            return object_path(oid)
        if where in (WHOLE, PARTS_INDEX):
            return self._key(ContentName.of(oid), where)
        return self._key(ContentName.of_archive(where), ARCHIVE)

    def _key(self, name: ContentName, file: str) -> str:
        return name.key(file, self.depths.get((name, file), WRITTEN_DEPTH))

    def catalogue(self, manifest: Oid, named: Iterable[str]) -> Catalogue:
        """Of a manifest that names contents whose places are known; it says nothing of those in DVC's."""
        kept, sizes = self.kept.get(manifest.algorithm, {}), self.sizes.get(manifest.algorithm, {})
        archives: set[str] = set()
        found: dict[str, dict[bytes, int]] = {WHOLE: {}, PARTS_INDEX: {}}
        for digest in named:
            where = kept[digest]
            if where in found:
                found[where][bytes.fromhex(digest)] = sizes[digest]
            elif where != PLAIN:
                archives.add(where)
        return Catalogue(manifest, tuple(archives), found[WHOLE], found[PARTS_INDEX])
