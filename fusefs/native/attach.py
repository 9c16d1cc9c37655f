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
from fusefs.native.layers import Layers, attach_layers
from fusefs.native.switching import ImageRefused, forget_unused, open_root, show_directory, show_image
from store.errors import StoreError


def answer(question: Mapping[str, Any]) -> dict[str, str | Came]:
    """Do what is asked: `{"session", "layers", "image"}` has the overlay mounted, `{"mountpoint", "device",
    "path"}` shows a directory of it, and with `{"image": {"layers", "session", "image", "root"}}` an overlay
    with that image instead, if the kernel makes one; without a path it lets go of what nobody uses.

    With `{"watched": {"descriptor", "paths"}}` these directories are watched, before anybody sees them where
    that is new to the mountpoint."""
    came: Came = []
    device, without_image = question.get("device", ""), ""

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
            device = mount.device
        elif "path" in question:
            place = (question["mountpoint"], device)
            if "image" in question:
                try:
                    device = show_image(*place, **question["image"], before=watch)
                except ImageRefused as refusal:
                    without_image = str(refusal)
            if "image" not in question or without_image:
                show_directory(*place, question["path"], watch)
        elif "watched" in question:
            open_root(question["mountpoint"], device, watch)
        else:
            forget_unused(question["mountpoint"], device)
        return {"device": device, "came": came, "without_image": without_image}
    except StoreError as error:
        return {"error": str(error)}


if __name__ == "__main__":
    print(json.dumps(answer(json.loads(sys.stdin.readline()))))
