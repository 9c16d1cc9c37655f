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

from fusefs.dataset import Request, list_names, open_dataset
from store.errors import RevisionUnknown, StoreError

KEPT_KIBIBYTES: Final = 96 << 10
"""Of resident memory, three times what a process has before it is asked."""


def answer(question: Mapping[str, Any]) -> dict[str, object]:
    """Resolve `{repo, path, rev, cache, remotes, trust, offline}`, or list the names in `{repo, pattern,
    offline}`; or settle anew the remotes of `{request}`, what a command has opened before."""
    if "pattern" in question:
        return {
            "names": list_names(question["repo"], question["pattern"], offline=question.get("offline", False))
        }
    if "request" in question:
        return {"remotes": settle_anew(question["request"])}
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
    dataset = open_dataset(request)
    return {
        "oid": dataset.oid,
        "rev": dataset.rev,
        "tree": str(dataset.tree),
        "caches": [str(cache) for cache in dataset.caches],
        "git_dirs": [str(git_dir) for git_dir in dataset.git_dirs],
        "warnings": dataset.warnings,
        "remotes": [remote.to_wire() for remote in dataset.remotes],
    }


def settle_anew(wire: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The remotes of what was opened before, as the configuration is now. `wire` is of `Request.to_wire`."""
    fields = {name: value for name, value in wire.items() if name != "directory"}
    with contextlib.chdir(wire["directory"]):
        dataset = open_dataset(Request(**{**fields, "remotes": tuple(fields["remotes"]), "speaks": False}))
    return [remote.to_wire() for remote in dataset.remotes]


def peak_kibibytes() -> int:
    """The most memory that this process ever had; `getrusage` would count the daemon that started it."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split(maxsplit=1)[0])


def reply(line: str) -> dict[str, object]:
    """The answer to a request, or what is wrong with it."""
    try:
        return answer(json.loads(line))
    except RevisionUnknown as error:
        return {"error": str(error), "unknown": True}
    except StoreError as error:
        return {"error": str(error)}
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
