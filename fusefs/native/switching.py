"""Another version at the mountpoint of an overlay, and the overlay's memory of what is gone.

A version that is switched to is a directory of the same overlay, in a hidden place, or, where the kernel has
its names from an image (`fusefs.native.images`), an overlay of its own over the same FUSE session. Either
comes beneath what is at the mountpoint, which is then detached: there is no moment without a tree.

Blocking, and asks the FUSE session: a child of the daemon does it (`fusefs.native.attach`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from fusefs import kernel_mount, mountinfo
from fusefs.kernel_mount import MountFailed
from fusefs.mountinfo import Mount
from fusefs.native import mount_api
from fusefs.native.layers import OPEN, Layers, mount_device, mount_with_image


class ImageRefused(MountFailed):
    """The kernel makes no overlay with an image; nothing has changed."""


Before = Callable[[int], None]
"""Gets the root that is to be shown, as a descriptor, when nobody else sees it yet."""


def forget_unused(mountpoint: str, device: str) -> None:
    """Have the overlay at `mountpoint`, whose file system is `device`, let go of the objects that nobody has
    open.

    What was deleted from a cache is freed, and what has come there is found. Raises `MountFailed`.
    """
    mount = mountinfo.mount_at(mountpoint, mountinfo.read_mounts())
    if mount is not None and mount.device == device:
        try:
            mount_api.forget_unused(mountpoint)
        except OSError as error:
            raise MountFailed(f"{mountpoint} holds on to what was deleted: {error.strerror}") from error


def open_root(mountpoint: str, device: str, look: Callable[[int], None]) -> None:
    """Have `look` get the root of the mount at `mountpoint`, whose file system is `device`, as a descriptor.
    Raises `MountFailed`."""
    mount = mountinfo.mount_at(mountpoint, mountinfo.read_mounts())
    if mount is None or mount.device != device:
        raise MountFailed(f"{mountpoint} does not show this mount any more")
    try:
        root = os.open(mountpoint, OPEN)
    except OSError as error:
        raise MountFailed(f"{mountpoint}: {error.strerror}") from error
    try:
        look(root)
    finally:
        os.close(root)


def show_directory(mountpoint: str, device: str, path: str, before: Before) -> None:
    """Show the directory at `path` in the mount at `mountpoint`, whose file system is `device`, in its place.

    Whoever is in the one that was shown stays there. Raises `MountFailed`.
    """
    above = _find_above(mountpoint, device)
    try:
        shown = mount_api.clone_mount(f"{mountpoint}/{path}")
    except OSError as error:
        raise _refusal(mountpoint, error) from error
    _put_beneath(shown, above, before)


def show_image(
    mountpoint: str,
    device: str,
    *,
    layers: Mapping[str, Any],
    session: int,
    image: int,
    root: int,
    before: Before,
) -> str:
    """Show an overlay of `layers` (a `Layers`) and an image in the mount's place; its own file system.

    `session` is the `/dev/fuse` of the mount and is closed, `root` is the number of the root. Raises
    `ImageRefused` where the kernel makes no such overlay, and `MountFailed`.
    """
    above = _find_above(mountpoint, device)
    try:
        try:
            mounted = mount_device(session)
        finally:
            os.close(session)  # whoever holds it keeps readers waiting, if the daemon dies now
        try:
            shown = mount_with_image(mounted, Layers(**layers), image, root)
        finally:
            os.close(mounted)
    except OSError as error:
        raise ImageRefused(error.strerror or str(error)) from error
    return _put_beneath(shown, above, before)


def _find_above(mountpoint: str, device: str) -> Mount:
    mount = mountinfo.mount_at(mountpoint, mountinfo.read_mounts())
    if mount is None or mount.device != device:
        raise MountFailed(f"{mountpoint} does not show this mount any more: it cannot be switched")
    return mount


def _put_beneath(shown: int, above: Mount, before: Before) -> str:
    """Have the mount `shown`, which is closed, come in the place of `above`; its file system."""
    mountpoint = above.mountpoint
    try:
        before(shown)
        mount_api.attach(shown, mountpoint, beneath=True)
        number = mount_api.number_of(shown)
    except OSError as error:
        raise _refusal(mountpoint, error) from error
    finally:
        os.close(shown)
    mounts = mountinfo.read_mounts()
    on_top = mountinfo.mount_at(mountpoint, mounts)  # which has another parent now
    if on_top is not None and on_top.mount_id == above.mount_id:
        kernel_mount.unmount(on_top, lazy=True)
    devices = [mount.device for mount in mounts if mount.mount_id == number]
    if not devices:
        raise MountFailed(f"{mountpoint}: the mount is gone again: something unmounted it")
    return devices[0]


def _refusal(mountpoint: str, error: OSError) -> MountFailed:
    return MountFailed(f"{mountpoint} cannot be switched: {error.strerror}")
