"""`fusefs mount TARGET MOUNTPOINT`: everything that can go wrong on the user's account, then a daemon."""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import replace
from typing import Any

from fusefs import kernel_mount, mountinfo
from fusefs.bounded import call_bounded
from fusefs.cli import print_error
from fusefs.dataset import Dataset, Request, open_dataset, open_revisions
from fusefs.interruption import Interrupted, held_back, interruptible
from fusefs.kernel_mount import Mounted, MountFailed
from fusefs.launch import Launch, end_daemon, exec_foreground, leave_running, start_background
from fusefs.logs import check_log, default_log, name_log
from fusefs.mount_options import MountOptions, add_flags, read_options
from fusefs.mountpoint import claimed_mountpoint, forbid_overlap
from fusefs.native.choice import FUSE, NATIVE, Choice, choose
from fusefs.native.layers import mount_session
from fusefs.order_file import Order, read_order
from fusefs.plan import MountPlan
from store.errors import StoreError

FIRST_STAT_SECONDS = 30.0

EPILOG = """\
TARGET is a .dvc file, a tracked file or directory, a .dir manifest file, or an oid with --cache.

examples:
  fusefs mount data.dvc /mnt/data
  fusefs mount --cache .dvc/cache f437....dir /mnt/data
  fusefs mount --foreground --allow-other data.dvc /mnt/data
  mount -t fusefs /srv/repo/data.dvc /mnt/data -o allow_other
"""


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "mount",
        help="mount a version as a read-only directory",
        description="Mount a version as a read-only directory. Returns when the tree is readable.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("target", metavar="TARGET", help="what to mount")
    parser.add_argument("mountpoint", metavar="MOUNTPOINT", help="an empty directory")
    add_flags(parser)


def run(options: argparse.Namespace) -> int:
    try:
        with interruptible():
            mount_target(options.target, options.mountpoint, read_options(vars(options)))
    except Interrupted as interrupted:
        return interrupted.status
    return 0


def mount_target(target: str, mountpoint: str, options: MountOptions) -> None:
    """Mount `target` and return when it is readable; in the foreground, become its daemon.

    Raises `StoreError`; then nothing is left mounted.
    """
    with claimed_mountpoint(mountpoint, nonempty=options.nonempty) as place:
        _mount_at(place, target, options)


def _mount_at(place: str, target: str, options: MountOptions) -> None:
    request = make_request(target, options)
    dataset = open_revisions(request) if options.revs else open_dataset(request)
    for warning in dataset.warnings:
        print_error(f"warning: {warning}")
    for cache in dataset.caches:
        forbid_overlap(place, cache)
    log = options.log or ("" if options.foreground else default_log(name_log(place)))
    choice = choose(dataset, options, place)
    plan = make_plan(request, dataset, place, options, log, choice)
    try:
        _mount(plan, choice, options)
    except MountFailed as error:
        if choice.mode != NATIVE or options.mode == NATIVE:
            raise
        instead = Choice(FUSE, why_fuse=str(error))  # a try does not show everything
        _mount(settle_plan(plan, instead), instead, options)


def _mount(plan: MountPlan, choice: Choice, options: MountOptions) -> None:
    """Mount, and have it served. Raises `MountFailed`; then nothing is left mounted."""
    with held_back() as let_go:
        mounted = make_mount(plan.mountpoint, plan.target, options, choice)
        try:
            let_go()
            _serve(Launch(plan, mounted, verbose=options.verbose, read_ahead=options.read_ahead), options)
        except BaseException:
            _unmount_after_failure(mounted, plan.mountpoint)
            raise


def make_mount(place: str, target: str, options: MountOptions, choice: Choice) -> Mounted:
    """Mount, or in native mode what will be mounted when it is served. Raises `MountFailed`."""
    if choice.mode == NATIVE:
        device, session = mount_session()
        return Mounted(device, None, session)
    return kernel_mount.mount_fuse(place, target, allow_other=options.allow_other, noexec=options.noexec)


def _serve(launch: Launch, options: MountOptions) -> None:
    if options.foreground:
        exec_foreground(launch)
    daemon = start_background(launch)
    os.close(launch.mounted.fd)  # from now on the mount lives and dies with its daemon
    if launch.mounted.session >= 0:
        os.close(launch.mounted.session)
    try:
        await_readable(launch.plan.mountpoint)
    except BaseException:
        end_daemon(daemon, 0)
        raise
    if launch.mounted.mount is not None:
        raised = kernel_mount.tune(launch.mounted.mount.device, options.read_ahead)
        if not raised and options.verbose:
            print_error("the kernel's read-ahead stays as it is: only root may raise it")
    leave_running(daemon)


def make_request(target: str, options: MountOptions) -> Request:
    """What the user named, with all that says where it is to be found."""
    return Request(
        target,
        cache=options.cache,
        rev=options.rev,
        repo=options.repo,
        remotes=options.remote,
        trust=options.trust,
        offline=options.offline,
    )


def make_plan(
    request: Request, dataset: Dataset, place: str, options: MountOptions, log: str, choice: Choice
) -> MountPlan:
    """The plan of a mount; checks that its log can be written. Raises `InputError`."""
    if log:
        check_log(log)
    order = read_order(options.order, dataset.tree) if options.order and dataset.tree else Order()
    return MountPlan(
        target=dataset.target,
        oid=dataset.oid,
        rev=dataset.rev,
        mountpoint=place,
        mode=choice.mode,
        why_fuse=choice.why_fuse,
        layers=choice.layers,
        allow_other=options.allow_other,
        noexec=options.noexec,
        tree=str(dataset.tree or ""),
        revs=options.revs,
        view=options.view,
        caches=tuple(map(str, dataset.caches)),
        git_dirs=tuple(str(git_dir) for git_dir in dataset.git_dirs),
        repo=dataset.origin.repo if dataset.origin else "",
        path=dataset.origin.path if dataset.origin else "",
        uid=options.uid,
        gid=options.gid,
        umask=options.umask,
        log=log,
        pin=options.pin,
        cache_size=options.cache_size,
        cache_free=options.cache_free,
        metrics=options.metrics,
        since=time.time(),
        remotes=dataset.remotes,
        offline=options.offline,
        verify=options.verify,
        remote_names=options.remote,
        trust=options.trust,
        request=request.to_wire(),
        prefetch=options.prefetch,
        order=order.rows,
        order_unknown=order.unknown,
    )


def settle_plan(plan: MountPlan, choice: Choice) -> MountPlan:
    """The plan of the mount that was made in the end."""
    return replace(plan, mode=choice.mode, why_fuse=choice.why_fuse, layers=choice.layers)


def await_readable(place: str) -> None:
    """Wait until the mount answers. Raises `MountFailed`."""

    def ask() -> bytes:
        os.statvfs(place)
        return b""

    try:
        call_bounded(ask, FIRST_STAT_SECONDS)
    except OSError as error:
        raise MountFailed(f"the mount on {place} does not answer: {error.strerror or error}") from error


def _unmount_after_failure(mounted: Mounted, place: str) -> None:
    mount = mounted.mount or mountinfo.mount_at(place, mountinfo.read_mounts())
    try:
        if mount is not None and mount.is_ours:  # in native mode it may not have come that far
            kernel_mount.unmount(mount, lazy=True)
    except StoreError:
        pass  # the error that brought us here is the one to show
