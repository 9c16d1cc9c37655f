"""`python -m fusefs.native.attach`: mounts the overlay over a FUSE session, or shows another version in it.

A child of the daemon that serves the session, because the kernel asks that session while it mounts: a thread
of the daemon that waits for the daemon could keep it from ending. One line of JSON on standard input says
what is to be done. What came of it is a line on standard output: `{"device": …}`, or `{"error": …}`.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from typing import Any

from fusefs.kernel_mount import MountFailed
from fusefs.native.inotify import Came, watch_opens
from fusefs.native.layers import Layers, attach_layers, forget_unused, open_root, switch_root
from store.errors import StoreError


def answer(question: Mapping[str, Any]) -> dict[str, str | Came]:
    """Do what is asked: `{"session", "layers", "image"}`, `{"mountpoint", "device", "path"}`, or the same
    without a path. With `{"watched": {"descriptor", "paths"}}` these directories are watched, before anybody
    sees them where that is new to the mountpoint."""
    came: Came = []

    def watch(root: int) -> None:
        nonlocal came
        # Another daemon would not know of it. From here on it takes no time.
        if os.getppid() != question["parent"]:
            raise MountFailed("the daemon that asked for it is gone")
        if "watched" in question:
            came = watch_opens(root=root, **question["watched"])

    try:
        if "layers" in question:
            layers, image = Layers(**question["layers"]), question["image"]
            mount, without_image = attach_layers(question["session"], layers, watch, image)
            return {"device": mount.device, "came": came, "without_image": without_image}
        if "path" in question:
            switch_root(question["mountpoint"], question["device"], question["path"], watch)
        elif "watched" in question:
            open_root(question["mountpoint"], question["device"], watch)
        else:
            forget_unused(question["mountpoint"], question["device"])
        return {"device": question["device"], "came": came}
    except StoreError as error:
        return {"error": str(error)}


if __name__ == "__main__":
    print(json.dumps(answer(json.loads(sys.stdin.readline()))))
