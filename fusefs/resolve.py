"""`python -m fusefs.resolve`: resolves revisions on a daemon's behalf, in a process of its own.

Compiling a tree takes memory and time that a daemon must not spend, and git is run. Requests come as
JSON on standard input, one a line, until that ends; to each there is an answer on standard output, JSON
on one line: what the request asked for, or `error` with one line, and `unknown` where the revision is
not there. The one with `last` is the last: the memory that it took is given back by ending.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from fusefs.dataset import Dataset, Request, list_names, open_dataset
from store.errors import RevisionUnknown, StoreError

KEPT_KIBIBYTES: Final = 96 << 10
"""Of resident memory, three times what a process has before it is asked."""


def answer(question: Mapping[str, Any]) -> dict[str, object]:
    """Resolve `{repo, path, rev, cache, remotes, trust, offline}`, or list the names in `{repo, pattern,
    offline}`; or open `{open}`, what a command would, or settle anew the remotes of such a `{request}`."""
    if "pattern" in question:
        return {
            "names": list_names(question["repo"], question["pattern"], offline=question.get("offline", False))
        }
    if "request" in question:
        return {"remotes": _describe(open_request(question["request"]))["remotes"]}
    if "open" in question:
        return _describe(open_request(question["open"]))
    request = Request(
        question["path"] or ".",
        cache=question["cache"],
        rev=question["rev"],
        repo=question["repo"],
        # A daemon may be older than the program on the disk.
        remotes=tuple(question.get("remotes", ())),
        trust=question.get("trust", False),
        offline=question.get("offline", False),
        speaks=False,
    )
    return _describe(open_dataset(request))


def open_request(wire: Mapping[str, Any]) -> Dataset:
    """What `Request.to_wire` was made of, as the repository and the configuration are now."""
    fields = {name: value for name, value in wire.items() if name != "directory"}
    with contextlib.chdir(wire["directory"]):
        return open_dataset(Request(**{**fields, "remotes": tuple(fields["remotes"]), "speaks": False}))


def _describe(dataset: Dataset) -> dict[str, object]:
    return {
        "oid": dataset.oid,
        "rev": dataset.rev,
        "repo": dataset.origin.repo if dataset.origin else "",
        "tree": str(dataset.tree),
        "caches": [str(cache) for cache in dataset.caches],
        "git_dirs": [str(git_dir) for git_dir in dataset.git_dirs],
        "warnings": dataset.warnings,
        "remotes": [remote.to_wire() for remote in dataset.remotes],
    }


def peak_kibibytes() -> int:
    """The most memory that this process ever had; `getrusage` would count the daemon that started it."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split(maxsplit=1)[0])


def reply(line: str) -> dict[str, object]:
    """The answer to a request, or what is wrong with it."""
    try:
        return answer(json.loads(line))
    except RevisionUnknown as error:
        return {"error": str(error), "kind": type(error).__name__, "unknown": True}
    except StoreError as error:
        return {"error": str(error), "kind": type(error).__name__}
    except OSError as error:
        return {"error": f"{error.filename or Path.cwd()}: {error.strerror}"}


def main() -> int:
    for line in sys.stdin:
        result = reply(line)
        last = peak_kibibytes() > KEPT_KIBIBYTES
        print(json.dumps(result | {"last": True} if last else result), flush=True)
        if last:
            break
    return 0


if __name__ == "__main__":
    sys.exit(main())
