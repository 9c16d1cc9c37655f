"""The overlay that native mode shows: names from our FUSE session, bytes from the cache itself.

Overlayfs takes a file's name and attributes from one layer and its bytes from another, which it asks for them
at `open` only. The overlay is `tree :: caches :: fresh :: fetch`: `tree` and `fetch` are directories of one
FUSE session (`fusefs.native.tree_layer`, `fusefs.native.fetch_layer`), and a cached object is opened by the
kernel alone. As root, a large tree is an EROFS image instead, in which the kernel looks by itself
(`fusefs.native.images`); what we hide in the root is then a layer of its own, `beside`, below it. All layers
are given as descriptors, FUSE is attached nowhere, and nobody keeps a descriptor of it: so nothing but the
mountpoint is to be seen, no name needs escaping, and whatever unmounts that ends the session. Another version
comes to the same mountpoint by `fusefs.native.switching`.

Blocking. What asks the FUSE session waits for its daemon, so a daemon has a child do it
(`fusefs.native.attach`). Source: the kernel's overlayfs.rst.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from fusefs import kernel_mount, mountinfo
from fusefs.kernel_mount import DEVICE, MountFailed, explain_device, shorten_source
from fusefs.mountinfo import Mount
from fusefs.native import mount_api
from fusefs.native.image_mount import mount_by_loop, mount_file
from fusefs.native.mount_api import Option
from fusefs.plan import MountPlan
from store.layouts import object_path
from store.oid import DVC_ALGORITHMS, Oid

TREE: Final = "tree"
FETCH: Final = mountinfo.FETCH_LAYER
BESIDE: Final = "beside-"
"""The directories in the root of the FUSE session. The last one stands there with the number of each root
that was shown (`fusefs.native.roots`), empty but for what that one hides."""

IMAGE: Final = b"image"
"""Goes with the descriptor of an image from a daemon to whoever mounts its overlay in another namespace."""

_ATTRIBUTES: Final = mount_api.MOUNT_ATTR_RDONLY | mount_api.MOUNT_ATTR_NOSUID | mount_api.MOUNT_ATTR_NODEV
OPEN: Final = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
ROOTS_PREFIX: Final = "trusted."
_INITIAL_RANGE: Final = "4294967295"
_SOURCE_BYTES: Final = 240
"""Of the target that mountinfo shows: fsconfig(2) takes texts of 255 bytes."""
_SCRATCH_BYTES: Final = 1 << 16
_SCRATCH: Final[list[Option]] = [("size", str(_SCRATCH_BYTES)), ("mode", "700")]
_SAMPLE: Final = b"fusefs"


@dataclass(frozen=True, slots=True)
class Layers:
    """What is to be shown, and where."""

    mountpoint: str
    source: str
    """What the user named, for mountinfo."""
    caches: Sequence[str]
    """The roots of caches that are there."""
    fresh: int
    """The descriptor of a directory that is asked after them (`fusefs.native.fresh`), or -1."""
    noexec: bool
    read_ahead: int
    """Bytes that the kernel reads ahead of what is fetched, where it lets us say so."""


def make_layers(plan: MountPlan, read_ahead: int, fresh: int = -1) -> Layers:
    """The layers that a plan settles."""
    return Layers(plan.mountpoint, plan.target, plan.layers, fresh, noexec=plan.noexec, read_ahead=read_ahead)


def xattr_prefix() -> str:
    """Where the overlay's own attributes are: in a user namespace the kernel trusts only those of users."""
    with open("/proc/self/uid_map") as file:
        ranges = [line.split() for line in file]
    return ROOTS_PREFIX if ranges == [["0", "0", _INITIAL_RANGE]] else "user."


def mount_session() -> tuple[int, int]:
    """`/dev/fuse`, and a FUSE mount that is attached nowhere; nobody serves it yet. Raises `MountFailed`."""
    try:
        device = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise MountFailed(explain_device(error)) from error
    try:
        return device, mount_device(device)
    except OSError as error:
        os.close(device)
        raise MountFailed(f"cannot mount FUSE: {error.strerror}") from error


def mount_device(device: int) -> int:
    """The session of `device`, a new one or (since Linux 5.16) one that is served already, as a FUSE mount
    that is attached nowhere. Raises OSError."""
    options: list[Option] = [
        ("source", "fusefs"),
        ("fd", str(device)),
        ("rootmode", "40000"),
        ("user_id", str(os.geteuid())),
        ("group_id", str(os.getegid())),
        ("default_permissions", None),
    ]
    return mount_api.mount_detached("fuse", options, _ATTRIBUTES)


class _Held(contextlib.ExitStack):
    """Descriptors that are closed in the end."""

    def keep(self, descriptor: int) -> int:
        self.callback(os.close, descriptor)
        return descriptor


def try_layers(caches: Sequence[str]) -> None:
    """Make such an overlay of a scratch file system and `caches`, and read a file in it; nothing is left.

    Raises `MountFailed` with what this kernel, these rights or these caches do not allow.
    """
    if not kernel_mount.has_capability(kernel_mount.CAP_SYS_ADMIN):
        raise MountFailed("only root may mount an overlay, and `fusefs run` where users have namespaces")
    with _Held() as held:
        try:
            keep = held.keep
            scratch = keep(mount_api.mount_detached("tmpfs", _SCRATCH, 0))
            for name in (TREE, FETCH):
                os.mkdir(name, dir_fd=scratch)
            _write_sample(scratch)
            tree, fetch = (keep(os.open(name, OPEN, dir_fd=scratch)) for name in (TREE, FETCH))
            opened = [keep(os.open(cache, OPEN)) for cache in caches]
            overlay = keep(_mount_overlay("fusefs", [tree], [*opened, fetch], 0))
            file = keep(os.open("name", os.O_RDONLY | os.O_CLOEXEC, dir_fd=overlay))
            if os.read(file, _SCRATCH_BYTES) != _SAMPLE:
                raise OSError(errno.EIO, "the kernel's overlay serves other bytes")
        except OSError as error:
            raise MountFailed(error.strerror or str(error)) from error


def _write_sample(scratch: int) -> None:
    """A file whose name is in one layer and whose bytes are in another."""
    for path, content in ((f"{TREE}/name", b""), (f"{FETCH}/object", _SAMPLE)):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600, dir_fd=scratch)
        try:
            os.write(file, content)
            if not content:
                os.ftruncate(file, len(_SAMPLE))
                os.setxattr(file, f"{xattr_prefix()}overlay.metacopy", b"")
                os.setxattr(file, f"{xattr_prefix()}overlay.redirect", b"/object")
        finally:
            os.close(file)


class Attached(NamedTuple):
    """The overlay, and why it shows names without the image that it was to have; empty where all is well."""

    mount: Mount
    without_image: str


def attach_layers(
    session: int, layers: Layers, before: Callable[[int], None] = lambda root: None, image: int = -1
) -> Attached:
    """Mount the overlay over a FUSE session, which must be served by now.

    `before` gets its descriptor when nobody else sees it yet. With `image`, the descriptor of an EROFS image,
    that has the names, if the kernel takes it. Raises `MountFailed`.
    """
    without_image = ""
    with _Held() as held:
        try:
            tree = held.keep(os.open(TREE, OPEN, dir_fd=session))
            served = os.fstat(tree).st_dev
            kernel_mount.tune(f"{os.major(served)}:{os.minor(served)}", layers.read_ahead)
            overlay = -1
            if image >= 0:
                try:
                    overlay = mount_with_image(session, layers, image, 0)
                except OSError as error:
                    without_image = error.strerror or str(error)
            if overlay < 0:
                overlay = _mount_names(session, layers, [tree])
            held.keep(overlay)
            before(overlay)
            mount_api.attach(overlay, layers.mountpoint)
            number = mount_api.number_of(overlay)
        except OSError as error:
            raise MountFailed(f"cannot mount on {layers.mountpoint}: {error.strerror}") from error
    mounts = [mount for mount in mountinfo.read_mounts() if mount.mount_id == number]
    if not mounts:
        raise MountFailed(f"{layers.mountpoint}: the mount is gone again: something unmounted it")
    return Attached(mounts[0], without_image)


def mount_with_image(session: int, layers: Layers, image: int, root: int) -> int:
    """The overlay with an image for the names and with what the root of that number hides, attached nowhere.
    Raises OSError with what the kernel said of the image."""
    refusals: list[str] = []
    for mount_image in (mount_file, mount_by_loop):
        with _Held() as held:
            try:
                mounted = held.keep(mount_image(image))  # a closed one is no layer
                places = ((mounted, "."), (held.keep(_mount_stop()), "."), (session, f"{BESIDE}{root}"))
                names = [held.keep(os.open(path, OPEN, dir_fd=mount)) for mount, path in places]
                return _mount_names(session, layers, names)
            except OSError as error:
                refusals.append(error.strerror or str(error))
    raise OSError(errno.EINVAL, "; by a loop device: ".join(refusals))


def _mount_names(session: int, layers: Layers, names: Sequence[int]) -> int:
    """The overlay of layers of names and those that have the bytes, attached nowhere. Raises OSError."""
    with _Held() as held:
        data = [held.keep(os.open(cache, OPEN)) for cache in layers.caches]
        if layers.fresh >= 0:
            data.append(layers.fresh)
        data.append(held.keep(os.open(FETCH, OPEN, dir_fd=session)))
        source = shorten_source(layers.source, _SOURCE_BYTES)
        attributes = _ATTRIBUTES | (mount_api.MOUNT_ATTR_NOEXEC if layers.noexec else 0)
        return _mount_overlay(source, names, data, attributes)


def _mount_stop() -> int:
    """A layer that hides in those below it the places of objects, mounted nowhere. Raises OSError.

    A redirect is looked for in every layer of names below the one that has it, before the caches are asked,
    and so each first look at a file would wait for our session.
    """
    oids = [Oid(f"{first:02x}" * 16, algorithm=name) for name in DVC_ALGORITHMS for first in range(256)]
    mount = mount_api.mount_detached("tmpfs", _SCRATCH, 0)
    try:
        for name in {object_path(oid).partition("/")[0] for oid in oids}:
            os.mknod(name, stat.S_IFCHR, dir_fd=mount)  # an overlay takes such a device for a hole
    except BaseException:
        os.close(mount)
        raise
    return mount


def _mount_overlay(source: str, names: Sequence[int], data: Sequence[int], attributes: int) -> int:
    options: list[Option] = [("ro", None)]
    if len(names) > 1:
        options.append(("xino", "on"))  # one device number for all, as in any file system
    if xattr_prefix() == "user.":
        options.append(("userxattr", None))
    else:
        options += [("redirect_dir", "on"), ("metacopy", "on")]
    layers = [*(("lowerdir+", layer) for layer in names), *(("datadir+", layer) for layer in data)]
    try:
        # As it was named, for whoever looks whether a line of /etc/fstab is mounted already.
        return mount_api.mount_detached("overlay", [("source", source), *options, *layers], attributes)
    except OSError:
        # Before Linux 6.13 a layer has to be named; a descriptor has a name without odd characters.
        named = [(name, f"/proc/self/fd/{layer}") for name, layer in layers]
        marked = ("source", mountinfo.NATIVE_SOURCE + source)
        return mount_api.mount_detached("overlay", [marked, *options, *named], attributes)
