"""Content directories: the second layout of a remote, beside DVC's. This is its format.

Everything lies below `contents/`, in a directory named after the hash of its content, at any depth of prefix
directories: `<h>/`, `ab/<h>/` or `ab/cd/<h>/`, where `ab` and `cd` are the first digits of `<h>`. Writers
take the middle one; readers look there first, and then at the other two, also where a remote mixes them.

    contents/md5/ab/<h>/whole               a content, as it is
    contents/md5/ab/<h>/parts.idx           a large one, in parts: where its pieces are
    contents/md5/ab/<h>.dir/whole           a manifest
    contents/md5/ab/<h>.dir/catalogue       where all that it names is
    contents/md5-dos2unix/…                 the same, of contents that DVC 0.x to 2.x named
    contents/parts/ab/<h>/whole             a part of large contents, named by its SHA-256
    contents/archives/ab/<h>/archive.tar    many small contents, named by the archive's SHA-256
    contents/archives/ab/<h>/archive.idx    where they are in it

*Whole* contents are objects as DVC has them. *Parts* are chunks that the content itself defines
(`store.contents.chunking`), so that versions share what did not change; a part holds one piece. An *archive*
is what `tar` lists and extracts: its members are named as in a DVC cache (`files/md5/ab/cdef…`), all of one
hash algorithm, in the order of the manifest that they were first pushed for; no content is in it twice.
Manifests are never in archives or in parts.

Indexes and catalogues are a msgpack map, and behind it the 16 bytes of its xxh3-128. Each says its `kind`
and `format`, and whose it is, so that one in a wrong place is told. Columns are bytes, numbers in them
little-endian (`store.contents.index`, `store.contents.catalogue`):

    parts.idx    kind "parts", algorithm, digest, size;
                 lengths (u64 each), names (SHA-256, 32 bytes each), sums (xxh3-128, 16 bytes each)
                 Piece 0 begins at 0, each next one where the last one ends, the last one ends at `size`.
    archive.idx  kind "archive", name (the archive's SHA-256), algorithm, size (the archive's length);
                 digests (16 bytes each), offsets (u64), lengths (u64), sums (xxh3-128)
                 Offsets are those of the members' bodies in the archive, ascending, at multiples of 512.
    catalogue    kind "catalogue", algorithm, digest (the manifest's);
                 archives (SHA-256, 32 bytes each), whole (digests) with whole_sizes (u64),
                 parts (digests) with part_sizes (u64)
                 All that the manifest names is whole, in parts, a member of one of these archives, or
                 an object in DVC's place, where it was before a push.

So whoever mounts a version asks for its manifest, its catalogue and the indexes of its archives, and knows
where each byte is, and each size. A single content that no catalogue tells of is looked for as `whole` and
`parts.idx`, then in the indexes of all archives, whose directory is small. Indexes are content: what is in
one never changes, so a copy may be kept by its name. A catalogue may be written anew, with other archives
that hold the same.

What is proved by what: pieces and members by their xxh3-128 when they are read, which guards against
accident; a part and an archive by its name; a content by its oid, once all of it is there. An index that
lies is found out by that at the latest, as damage of the content is.

The order of writing: parts, then `parts.idx`; `archive.tar`, then `archive.idx`; all of these, then the
catalogue, and the manifest's `whole` last. What is there is complete, wherever a push has ended. Files are
small or sent whole: an archive has at most `store.contents.archiving.ARCHIVE_BYTES` of contents, a part
`store.contents.chunking.LARGEST`.
"""
