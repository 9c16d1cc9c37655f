"""The composition root of the daemon: a plan and a `/dev/fuse` descriptor in, a served mount out.

Called by `fusefs.daemon` inside `trio.run`. Whoever mounted unmounts; here the connection is only
served until the kernel ends it (umount) or the surrounding cancel scope does (a signal).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pyfuse3

from fusefs.clones import hold_repository
from fusefs.control_socket import listen, serve_control
from fusefs.directories import blob_directory, cache_directory
from fusefs.metrics_endpoint import MetricsEndpoint
from fusefs.mount import Mount
from fusefs.native.attacher import Attacher
from fusefs.native.fresh import Fresh
from fusefs.native.overlay import Overlay
from fusefs.pinning import Pinner
from fusefs.plan import MountPlan
from fusefs.relay import Agreement, Relay
from fusefs.succession import Succession
from fusefs.waiting import shorten_waits
from store.budget import Limits
from store.engine import Settings, open_engine
from store.errors import InputError
from store.remotes.opening import open_remote

log = logging.getLogger(__name__)

MAX_TASKS: Final = 1000
"""Requests in flight. A parked request holds one; too few and a slow read delays a `stat`."""

GRACE_SECONDS: Final = 10.0
"""In native mode an object is opened by the kernel after it has come."""


async def serve(
    plan: MountPlan,
    fuse_fd: int,
    ready: Callable[[], None],
    attacher: Attacher | None,
    succession: Succession,
    opens_fd: int = -1,
    image_fd: int = -1,
    fresh: Fresh | None = None,
) -> None:
    """Serve the mount on `fuse_fd` until its connection ends; calls `ready` once requests are answered.

    In native mode `attacher` puts the overlay above it first, where that is ours to do and has not been done;
    elsewhere `opens_fd` is an inotify descriptor that tells of opens, and `image_fd` a socket for the
    version's image, or -1. `fresh` is a layer of the overlay's, if there is one.

    Raises `TreeDamaged` or OSError where the tree cannot be opened, `MountFailed` where the overlay cannot be
    mounted. The descriptor is used up.
    """
    started = time.monotonic()
    settings = Settings(
        caches=tuple(map(Path, plan.caches)),
        blobs=blob_directory(),
        own=cache_directory(),
        limits=Limits(plan.cache_size, plan.cache_free),
        offline=plan.offline,
        verify=plan.verify,
        grace=GRACE_SECONDS if plan.mode == "native" else 0.0,
        courier=True,
    )
    async with open_engine(settings, open_remote) as engine:
        repository = hold_repository(plan.repo)
        background = engine.nursery
        pinner = Pinner(engine.caches, engine.threads, succession.journal, wanted=plan.pin)
        relay = Relay(fuse_fd)
        mount = Mount(plan, relay.descriptor, engine, pinner, succession, fresh)
        if attacher is not None:
            attacher.fuse_fd = relay.descriptor
        if succession.restarts:
            if mount.native is not None:
                mount.native.attacher = attacher
            relay.agreed = await mount.show_again()
            await pinner.take_over()
        else:
            await mount.show_first()
        endpoint = _listen(mount, plan, succession)
        control = listen(mount.control_name)
        shorten_waits()
        pyfuse3.init(mount.operations, relay.mountpoint, {"fsname=fusefs", "ro"})
        try:
            background.start_soon(serve_control, control, mount.handle)
            if endpoint is not None:
                background.start_soon(endpoint.serve)
            log.info("serving %s on %s", plan.target, plan.mountpoint)
            if plan.why_fuse:
                log.info("in fuse mode: %s", plan.why_fuse)
            if plan.order_unknown:
                log.warning("%d paths of --order are not in %s", plan.order_unknown, plan.target)

            def begun(agreement: Agreement) -> None:
                succession.keep_agreement(agreement.can_resend, agreement.request, agreement.answer)
                if succession.restarts:
                    mount.forget_outdated()
                    if mount.native is not None:
                        background.start_soon(mount.native.see_again)
                    ready()

            if succession.restarts:
                pass  # it is ready when the session goes on
            elif mount.native is not None and attacher is not None:
                background.start_soon(_attach, mount.native, attacher, ready)
            elif mount.native is not None and image_fd >= 0:
                background.start_soon(_offer_image, mount.native, image_fd, ready)
            else:
                ready()
            background.start_soon(pinner.run)
            if mount.native is not None:
                background.start_soon(mount.native.settle)
                if opens_fd >= 0:
                    background.start_soon(mount.native.see_from_afar, opens_fd)
            await relay.serve(begun, max_tasks=MAX_TASKS)
        finally:
            mount.stop_prefetching()
            mount.operations.close_all()
            pyfuse3.close(unmount=False)
            relay.close()
            if mount.native is not None:
                mount.native.close()
            pinner.remove()
            mount.keep_sizes()
            if repository is not None:
                repository.close()
            log.info("ended after %.0f s", time.monotonic() - started)


async def _attach(native: Overlay, attacher: Attacher, ready: Callable[[], None]) -> None:
    await native.attach(attacher)
    ready()


async def _offer_image(native: Overlay, channel: int, ready: Callable[[], None]) -> None:
    await native.offer_image(channel)
    ready()


def _listen(mount: Mount, plan: MountPlan, succession: Succession) -> MetricsEndpoint | None:
    """The endpoint that is wanted. A mount that goes on does so without it. Raises `InputError`."""
    try:
        return mount.listen(plan.metrics) if plan.metrics else None
    except InputError as error:
        if not succession.restarts:
            raise
        log.warning("%s", error)
        return None
