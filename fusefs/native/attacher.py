"""`Attacher`: has a child mount the overlay over the session that this daemon serves, and switch it later.

Lives on the event loop of the daemon; the child (`fusefs.native.attach`) does what waits for the daemon.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final

import trio

from fusefs.kernel_mount import MountFailed
from fusefs.native.inotify import Came
from fusefs.native.layers import Layers
from fusefs.native.seen_opens import Watched

log = logging.getLogger(__name__)

SECONDS: Final = 30.0


class Attacher:
    """Of one mount. `session` is the FUSE mount's descriptor, which is closed when the overlay is there."""

    def __init__(self, session: int, layers: Layers) -> None:
        self._session = session
        self._layers = layers
        self._of_layers = [layers.fresh] if layers.fresh >= 0 else []
        self.fuse_fd = -1
        """The `/dev/fuse` that this daemon reads, once it does."""
        self.device = ""
        """The overlay's, `major:minor`; empty until it is there."""

    async def attach(self, watched: Watched | None, image: int = -1) -> Came:
        """Mount the overlay, with an image for the names where its descriptor is given; what came of
        `watched`. Raises `MountFailed`."""
        question = {"session": self._session, "layers": asdict(self._layers), "image": image}
        given = [one for one in (self._session, image) if one >= 0] + self._of_layers
        try:
            answer = await _ask(question, watched, *given)
        finally:
            self.close()
        return self._take(answer)

    async def switch(self, path: str, watched: Watched | None, image: int = -1, root: int = 0) -> Came:
        """Show the directory at `path` in the mount in its place, or with an image the root of that number
        as an overlay of its own; what came of `watched`. Raises `MountFailed`."""
        place = self._layers.mountpoint
        question: dict[str, Any] = {"mountpoint": place, "device": self.device, "path": path}
        given: list[int] = []
        if image >= 0:
            session, layers = self.fuse_fd, asdict(self._layers)
            question["image"] = {"layers": layers, "session": session, "image": image, "root": root}
            given = [session, image, *self._of_layers]
        return self._take(await _ask(question, watched, *given))

    def _take(self, answer: Mapping[str, Any]) -> Came:
        self.device = answer["device"]
        if answer["without_image"]:
            log.warning("the image of the version cannot be mounted: %s", answer["without_image"])
        came: Came = answer["came"]
        return came

    async def watch(self, watched: Watched) -> Came:
        """What came of `watched` in the mount that is there. Raises `MountFailed`."""
        came: Came = (await _ask({"mountpoint": self._layers.mountpoint, "device": self.device}, watched))[
            "came"
        ]
        return came

    async def forget_unused(self) -> None:
        """Have the overlay let go of the objects that nobody has open. Raises `MountFailed`."""
        if self.device:
            await _ask({"mountpoint": self._layers.mountpoint, "device": self.device})

    def close(self) -> None:
        if self._session >= 0:
            os.close(self._session)  # or the session would go on when the overlay is unmounted
        self._session = -1


async def _ask(
    question: Mapping[str, Any], watched: Watched | None = None, *descriptors: int
) -> Mapping[str, Any]:
    question = {**question, "parent": os.getpid()}
    if watched is not None:
        descriptors = (*descriptors, watched.descriptor)
        question = {**question, "watched": {"descriptor": watched.descriptor, "paths": watched.paths}}
    command = [sys.executable, "-P", "-m", "fusefs.native.attach"]
    try:
        with trio.fail_after(SECONDS):
            done = await trio.run_process(
                command,
                stdin=json.dumps(question).encode() + b"\n",
                capture_stdout=True,
                capture_stderr=True,
                pass_fds=descriptors,
                check=False,
            )
    except trio.TooSlowError:
        raise MountFailed(f"the overlay was not mounted in {SECONDS:.0f} s") from None
    try:
        answer: Mapping[str, Any] = json.loads(done.stdout)
    except ValueError:
        last = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise MountFailed(f"the overlay was not mounted: {last or done.returncode}") from None
    if "error" in answer:
        raise MountFailed(answer["error"])
    return answer
