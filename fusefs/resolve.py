"""`python -m fusefs.resolve`: resolves a revision on a daemon's behalf, in a process of its own.

Compiling a tree takes memory and time that a daemon must not spend, and git is run. One request as
JSON on standard input, one answer as JSON on standard output: what the request asked for, or
`error` with one line, and `unknown` where the revision is not there.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from fusefs.dataset import Request, list_names, open_dataset
from store.errors import RevisionUnknown, StoreError


def answer(question: dict[str, str]) -> dict[str, object]:
    """Resolve `{repo, path, rev, cache}`, or list the names in `{repo, pattern}`."""
    if "pattern" in question:
        return {"names": list_names(question["repo"], question["pattern"])}
    request = Request(
        question["path"] or ".", cache=question["cache"], rev=question["rev"], repo=question["repo"]
    )
    dataset = open_dataset(request)
    return {
        "oid": dataset.oid,
        "rev": dataset.rev,
        "tree": str(dataset.tree),
        "caches": [str(cache) for cache in dataset.caches],
        "git_dirs": [str(git_dir) for git_dir in dataset.git_dirs],
        "warnings": dataset.warnings,
    }


def main() -> int:
    try:
        result = answer(json.load(sys.stdin))
    except RevisionUnknown as error:
        result = {"error": str(error), "unknown": True}
    except StoreError as error:
        result = {"error": str(error)}
    except OSError as error:
        result = {"error": f"{error.filename or Path.cwd()}: {error.strerror}"}
    json.dump(result, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
