"""`fusefs status [MOUNTPOINT]`: how the mounts are doing, once or again and again, and what they lack."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from fusefs import mountinfo
from fusefs.cli.status_missing import tell_missing
from fusefs.logs import escape
from fusefs.mountinfo import Mount
from fusefs.status import PinStatus, PrefetchStatus, RemoteStatus, Status
from fusefs.survey import Found, State, survey, survey_named
from store.errors import InputError
from store.metrics import Making

WATCH_SECONDS: Final = 2.0
CLEAR: Final = "\x1b[H\x1b[2J"

EPILOG = """\
examples:
  fusefs status
  fusefs status --watch /mnt/data
  fusefs status --json /mnt/data/some/dir
  fusefs status --missing /mnt/data     what would have to be fetched
  fusefs status --missing data@v1.0     the same for a version that is not mounted
"""

_EXPLANATIONS: Final = {
    State.DEAD: "dead: its daemon is gone; `fusefs umount` clears it",
    State.HUNG: "hung: its daemon does not answer",
    State.DENIED: "another user's, not mounted with --allow-other",
    State.UNKNOWN: "tells nothing of itself",
}


@dataclass(frozen=True, slots=True)
class Sample:
    """A mount's figures at one moment (monotonic seconds), for rates between two of them."""

    when: float
    found: Found


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "status",
        help="say how a mount, or every mount, is doing",
        description="Say how a mount is doing; without MOUNTPOINT, every mount.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("mountpoint", metavar="MOUNTPOINT", nargs="?", help="or any path in the mount")
    parser.add_argument("--json", action="store_true", help="the status object (an array without MOUNTPOINT)")
    parser.add_argument(
        "--missing",
        action="store_true",
        help="say which files are not on this machine, of a mount or of a TARGET",
    )
    parser.add_argument("--all", action="store_true", help="with --missing: every path, not only the first")
    parser.add_argument("--watch", action="store_true", help="again every two seconds, with rates")


def run(options: argparse.Namespace) -> int:
    if options.missing:
        if not options.mountpoint or options.watch:
            raise InputError("--missing needs a mountpoint or a target, and tells once")
        tell_missing(options.mountpoint, everything=options.all, as_json=options.json)
        return 0
    before: dict[int, Sample] = {}
    while True:
        now = time.monotonic()
        named = options.mountpoint
        found = survey(_all()) if named is None else [survey_named(_find(named))]
        if options.json:
            objects = [one.to_dict() for one in found]
            print(
                json.dumps(objects[0] if options.mountpoint else objects, indent=None if options.watch else 2)
            )
        else:
            if options.watch and sys.stdout.isatty():
                print(CLEAR, end="")
            print("\n\n".join("\n".join(describe(one, before, now)) for one in found) or "nothing is mounted")
        if not options.watch:
            return 0
        sys.stdout.flush()
        before = {one.mount.mount_id: Sample(now, one) for one in found}
        time.sleep(WATCH_SECONDS)


def _all() -> list[Mount]:
    return mountinfo.visible_mounts(mountinfo.read_mounts())


def _find(path: str) -> Mount:
    mounts = mountinfo.read_mounts()
    mount = mountinfo.mount_containing(mountinfo.resolve(path, mounts), mounts)
    if mount is None:
        raise InputError(f"{path} is not in a mount of fusefs")
    return mount


def describe(found: Found, before: Mapping[int, Sample], now: float) -> Iterator[str]:
    """The lines about one mount, for people; with rates if there is a sample `before`."""
    status = found.status
    yield escape(f"{status.mountpoint}  {status.target or ''}".rstrip())
    if found.state is not State.OK:
        yield f"  {_EXPLANATIONS[found.state]}"
        return
    earlier = before.get(found.mount.mount_id)

    def rate(name: str, form: Any) -> str:
        if earlier is None or getattr(earlier.found.status, name) is None:
            return ""
        grown = getattr(status, name) - getattr(earlier.found.status, name)
        return f"  ({form(grown / max(now - earlier.when, 0.001))}/s)"

    rows = [
        ("version", " ".join(filter(None, [status.oid, f"at {status.rev}" if status.rev else ""]))),
        *([("shown as", status.view)] if status.view else []),
        ("files", f"{_count(status.files)}, {_size(status.bytes)}"),
        ("in the cache", _size(status.cache_bytes)),
        ("opens", f"{_count(status.hits)} hits{rate('hits', _count)}, {_count(status.misses)} misses"),
        ("errors", _count(status.errors)),
        ("from the cache", f"{_size(status.bytes_cache)}{rate('bytes_cache', _size)}"),
        ("from remotes", f"{_size(status.bytes_remote)}{rate('bytes_remote', _size)}"),
        *_remotes(status.remotes or ()),
        ("fetching", _settings(status)),
        *([("ahead", _prefetch(status.prefetch))] if status.prefetch else []),
        *([("making", _making(status.making))] if status.making else []),
        ("kept from gc", _pins(status.pins)),
        ("mounted", f"{_when(status.since)}, mode {status.mode}{_reason(status.why_fuse)}"),
        ("daemon", f"process {status.pid}, {_size(status.rss_bytes)} of memory{_restarts(status.restarts)}"),
        ("log", status.log or "standard error"),
        *([("metrics", status.metrics)] if status.metrics else []),
    ]
    for label, text in rows:
        yield escape(f"  {label:<15}{text}")


def _remotes(remotes: Sequence[RemoteStatus]) -> Iterator[tuple[str, str]]:
    """A row for each remote; the first has the label."""
    label = "remotes"
    for remote in remotes:
        why = f" ({remote.reason})" if remote.reason else ""
        yield (
            label,
            f"{remote.name}: {remote.state}, {_count(remote.objects)} objects, {_size(remote.bytes)}{why}",
        )
        label = ""


def _settings(status: Status) -> str:
    if status.offline:
        return "offline: of the remotes only directories are asked"
    if not status.remotes:
        return "nothing: there is no remote"
    return {"whole": "verified before it is served", "off": "not verified"}.get(
        status.verify or "", "large objects verified when they are whole"
    )


def _prefetch(prefetch: PrefetchStatus) -> str:
    if prefetch.order == "none":
        return "nothing is known of the order of reading"
    orders = {"file": "--order", "hint": "hints", "trace": "the last epoch"}
    return (
        f"{_count(prefetch.ahead)} files in the order of {orders.get(prefetch.order, prefetch.order)}, "
        f"{_count(prefetch.fetching)} on their way; {_count(prefetch.hits)} opens found theirs"
    )


def _making(making: Making) -> str:
    found = f", {_count(making.found)} came from remotes" if making.found else ""
    failed = f", {_count(making.failed)} failed" if making.failed else ""
    return (
        f"{_count(making.made)} products made{found}{failed}, {_count(making.kept)} kept "
        f"({_size(making.kept_bytes)}); {making.busy} of {making.limit} processes at work, "
        f"{_count(making.waiting)} products wait"
    )


def _pins(pins: PinStatus | None) -> str:
    if pins is None:
        return "unknown"
    if pins.state == "off":
        return "nothing (pin=no)"
    so_far = {"making": " so far", "complete": "", "partial": ", not all", "refused": ""}.get(pins.state, "")
    return f"{_count(pins.objects)} objects{so_far}" + (f": {pins.reason}" if pins.reason else "")


def _restarts(number: int | None) -> str:
    return f", in the place of {_count(number)} that died" if number else ""


def _reason(text: str | None) -> str:
    return f" ({text})" if text else ""


def _count(number: float | None) -> str:
    return "unknown" if number is None else f"{number:,.0f}"


def _size(number: float | None) -> str:
    if number is None:
        return "unknown"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(number) < 1024:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} TiB"


def _when(since: float | None) -> str:
    return "unknown" if since is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(since))
