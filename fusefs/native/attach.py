"""`python -m fusefs.native.attach`: mounts the overlay over a FUSE session, or shows another version in it.

A child of the daemon that serves the session, because the kernel asks that session while it mounts: a thread
of the daemon that waits for the daemon could keep it from ending. One line of JSON on standard input says
what is to be done. What came of it is a line on standard output: `{"device": …}`, or `{"error": …}`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

from fusefs.native.layers import Layers, attach_layers, forget_unused, switch_root
from store.errors import StoreError


def answer(question: Mapping[str, Any]) -> dict[str, str]:
    """Do what is asked: `{"session", "layers"}`, `{"mountpoint", "device", "path"}`, or the same without a
    path."""
    try:
        if "layers" in question:
            return {"device": attach_layers(question["session"], Layers(**question["layers"])).device}
        if "path" in question:
            switch_root(question["mountpoint"], question["device"], question["path"])
        else:
            forget_unused(question["mountpoint"], question["device"])
        return {"device": question["device"]}
    except StoreError as error:
        return {"error": str(error)}


if __name__ == "__main__":
    print(json.dumps(answer(json.loads(sys.stdin.readline()))))
