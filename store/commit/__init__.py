"""Makes versions: content from a folder into a cache, and the metafile that names it.

version    the order of it all: `commit`
target     what was named, whether it may be committed, where it is recorded
locks      two writers of one project
scan       what the folder holds
state      which of it is known
pipeline   threads and batches
ahead      files that are read next
staging    one file: hash, clone, link or copy
publish    from the temporary room into the cache
room       that temporary directory
metafile   the `.dvc` file
gitignore  the line that keeps the data out of git
progress   who watches
"""

from store.commit.progress import Progress
from store.commit.staging import Link
from store.commit.version import CommitOptions, Committed, commit

__all__ = ["CommitOptions", "Committed", "Link", "Progress", "commit"]
