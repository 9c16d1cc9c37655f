"""What a partial clone is told to fetch at once, because each file by itself would be a round trip.

Callers: `fusefs.dataset`, `store.imported`. Blocking; any thread. Where nothing can be fetched from,
nothing is asked for, but the commit's trees are read: only for clones.
"""

from __future__ import annotations

from typing import Final

from store.git.files import GitFiles

_READ_FIRST: Final = frozenset({".dvcignore", "Dvcfile", "dvc.lock", "dvc.yaml", "params.yaml"})


def fetch_metafiles(files: GitFiles) -> None:
    """Fetch what is read to find out what is tracked. Raises what `GitFiles.prefetch` raises."""
    files.prefetch(_is_read_first)


def fetch_below(files: GitFiles, path: str) -> None:
    """Fetch the file `path`, or all files in it: their sizes are shown, and a daemon fetches nothing.

    Raises what `GitFiles.prefetch` raises.
    """
    files.prefetch(lambda found: not path or found == path or found.startswith(f"{path}/"))


def _is_read_first(path: str) -> bool:
    """One that is not named here is fetched by itself."""
    name = path.rpartition("/")[2]
    return name.endswith(".dvc") or name in _READ_FIRST or path.endswith(".dvc/config")
