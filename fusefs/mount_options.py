"""The options of a mount: one table that the flags of `fusefs mount`, `-o` and fstab are read by.

Every flag `--name VALUE` is also `-o name=VALUE`; `-o` also takes what mount(8) hands to every
file system. Called by the command line; pure but for the look-up of user names.
"""

from __future__ import annotations

import argparse
import grp
import os
import pwd
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final, cast, get_args

from fusefs.metrics_address import parse_metrics
from fusefs.plan import Verify
from fusefs.views.kinds import parse_view
from store.errors import InputError

_UNITS: Final = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
MAX_READ_AHEAD: Final = 1 << 30
MAX_CACHE: Final = 1 << 60


def parse_size(text: str, largest: int = MAX_READ_AHEAD) -> int:
    """`1M`, `512K` or plain bytes. Raises ValueError."""
    found = re.fullmatch(r"(\d{1,19})([KMGT]?)(?:i?B)?", text.strip(), re.ASCII | re.IGNORECASE)
    if not found:
        raise ValueError(f"{text!r} is not a size; sizes look like 1M or 512K")
    size = int(found[1]) * _UNITS[found[2].upper()]
    if size > largest:
        raise ValueError(f"{text} is more than {largest >> 30}G")
    return size


def parse_cache_size(text: str) -> int:
    """`500G`, `2T` or the like; 0 for no limit. Raises ValueError."""
    return parse_size(text, MAX_CACHE)


def parse_mask(text: str) -> int:
    """An octal umask. Raises ValueError."""
    if not re.fullmatch(r"0?o?[0-7]{1,4}", text) or int(text, 8) > 0o777:
        raise ValueError(f"{text!r} is not a umask; umasks look like 022")
    return int(text, 8)


def _parse_id(text: str, what: str, find: Callable[[str], int]) -> int:
    if text.isascii() and text.isdigit():
        number = int(text)
        if number < (1 << 32) - 1:
            return number
    else:
        try:
            return find(text)
        except KeyError:
            pass
    raise ValueError(f"there is no {what} {text!r}")


def parse_user(text: str) -> int:
    """A uid, or the name of a user. Raises ValueError."""
    return _parse_id(text, "user", lambda name: pwd.getpwnam(name).pw_uid)


def parse_group(text: str) -> int:
    """A gid, or the name of a group. Raises ValueError."""
    return _parse_id(text, "group", lambda name: grp.getgrnam(name).gr_gid)


def parse_mode(text: str) -> str:
    """`auto`, `fuse` or `native`. Raises ValueError."""
    if text not in ("auto", "fuse", "native"):
        raise ValueError(f"{text!r} is not a mode; modes are auto, fuse and native")
    return text


def parse_switch(text: str) -> bool:
    """`yes` or `no`. Raises ValueError."""
    if text not in ("yes", "no"):
        raise ValueError(f"{text!r} is neither yes nor no")
    return text == "yes"


def parse_verify(text: str) -> Verify:
    """`whole`, `blocks` or `off`. Raises ValueError."""
    for way in get_args(Verify):
        if text == way:
            return cast(Verify, way)
    raise ValueError(f"{text!r} is no way to verify; ways are whole, blocks and off")


def parse_remote(text: str) -> str:
    """A remote's name, its URL, or a path, which is made absolute. Raises ValueError."""
    if not text:
        raise ValueError("an empty name of a remote")
    return parse_path(text) if text.startswith(("/", "./", "../", "~")) else text


def parse_path(text: str) -> str:
    """A path, made absolute: the daemon works in `/`. Raises ValueError."""
    if not text:
        raise ValueError("an empty path")
    return str(Path(text).expanduser().absolute())


@dataclass(frozen=True, slots=True)
class MountOptions:
    """How to mount. `uid` and `gid` default to the caller's."""

    mode: str = "auto"
    cache: str = ""
    """The cache's directory; empty for the one that the target's repository configures."""
    rev: str = ""
    repo: str = ""
    revs: str = ""
    """A glob of revisions to show side by side; empty for one version."""
    view: str = ""
    """Show the version in another shape, `KIND:RECIPE` (`fusefs.views.kinds`)."""
    remote: tuple[str, ...] = ()
    """Names and URLs of the remotes to ask, in that order; empty for those that are configured."""
    trust: bool = False
    """The repository's configuration counts like that of one's own."""
    offline: bool = False
    verify: Verify = "blocks"
    """What is proved of an object before its bytes are served: `whole`, `blocks` or `off`."""
    uid: int = -1
    gid: int = -1
    umask: int = 0o022
    allow_other: bool = False
    nonempty: bool = False
    read_ahead: int = 1 << 20
    """Bytes that the kernel reads ahead, where it lets us say so (root)."""
    log: str = ""
    verbose: bool = False
    foreground: bool = False
    noexec: bool = False
    cache_size: int = 0
    """Bytes of what was fetched that are kept at most; 0: no bound."""
    cache_free: int = 0
    """Bytes that are left free on the cache's disk at least; 0: no bound."""
    prefetch: bool = True
    """Bring files ahead of their readers, and remember in which order they read."""
    record: bool = False
    """See every open, so that the order of an epoch is known whatever the version is like."""
    order: str = ""
    """A file with paths in the order in which they will be read (`fusefs.order_file`)."""
    pin: bool = True
    """Keep what is shown from being removed from the cache."""
    metrics: str = ""
    """Where Prometheus may ask for metrics (`fusefs.metrics_address`); empty for nowhere."""

    def __post_init__(self) -> None:
        if self.order and not self.prefetch:
            raise InputError("--order says what to fetch ahead, and --no-prefetch not to: give one of them")
        if self.record and not self.prefetch:
            raise InputError("--record says to remember orders, and --no-prefetch not to: give one of them")
        if self.order and self.revs:
            raise InputError("--order is for one version, and --revs shows many: give one of them")
        if self.view and self.revs:
            raise InputError("--view is of one version, and --revs shows many: give one of them")
        if self.uid < 0:
            object.__setattr__(self, "uid", os.getuid())
        if self.gid < 0:
            object.__setattr__(self, "gid", os.getgid())


@dataclass(frozen=True, slots=True)
class Flag:
    """One option: the field of `MountOptions` that it sets, and how its value is read (None: a switch)."""

    field: str
    parse: Callable[[str], Any] | None
    help: str
    metavar: str = ""
    short: str = ""
    of_the_process: bool = False
    """Has no meaning for `fusefs run`, whose daemon lives as long as the command."""
    negatable: bool = False
    """There is also `--no-NAME`, for what is on by default."""
    repeatable: bool = False
    """May be given several times; the field is a tuple of the values."""

    @property
    def name(self) -> str:
        return self.field.replace("_", "-")


FLAGS: Final = (
    Flag("mode", parse_mode, "how to mount: auto (default), fuse or native", "MODE"),
    Flag("cache", parse_path, "the cache directory, instead of the repository's", "DIR"),
    Flag("rev", str, "the revision: a tag, branch, commit or experiment; also TARGET@REV", "REV"),
    Flag("repo", str, "the repository that TARGET is a path in: a directory or a URL", "REPO"),
    Flag("revs", str, "show all revisions that match, each in a directory", "GLOB", of_the_process=True),
    Flag(
        "view",
        parse_view,
        "show it in another shape: shards:1000, frames:png, chunks:auto (in -o, write \\, for a comma)",
        "KIND:RECIPE",
    ),
    Flag(
        "remote",
        parse_remote,
        "ask this remote and no others for what is not cached; may be repeated, -o remote=A,remote=B",
        "NAME|URL",
        repeatable=True,
    ),
    Flag("trust", None, "follow the configuration of a repository that is not yours like that of your own"),
    Flag("offline", None, "do without the network: show what is cached, and what directories have"),
    Flag(
        "verify",
        parse_verify,
        "serve large objects when the whole is proved, as blocks arrive (default), or never prove them",
        "whole|blocks|off",
    ),
    Flag("uid", parse_user, "owner that the files show (default: you)", "USER"),
    Flag("gid", parse_group, "group that the files show (default: yours)", "GROUP"),
    Flag("umask", parse_mask, "permission bits that the files do not show (default: 022)", "MASK"),
    Flag("allow_other", None, "let other users read the mount"),
    Flag("nonempty", None, "mount over a directory that is not empty", of_the_process=True),
    Flag("read_ahead", parse_size, "what the kernel reads ahead; root only (default: 1M)", "SIZE"),
    Flag("cache_size", parse_cache_size, "keep at most so much of what was fetched, 500G perhaps", "SIZE"),
    Flag("cache_free", parse_cache_size, "keep only while so much stays free on the cache's disk", "SIZE"),
    Flag("order", parse_path, "fetch ahead in this order: paths in the mount, one a line", "FILE"),
    Flag(
        "prefetch",
        parse_switch,
        "fetch ahead of readers, in the order of the last epoch if nobody tells one (or: --no-prefetch)",
        "yes|no",
        negatable=True,
    ),
    Flag("record", None, "see every open, so that no epoch's order is missed: in fuse mode"),
    Flag(
        "pin",
        parse_switch,
        "hold hard links to what is shown, so that `dvc gc` leaves it (default: yes)",
        "yes|no",
        negatable=True,
    ),
    Flag("log", parse_path, "the log file (default: in $XDG_STATE_HOME/fusefs)", "FILE"),
    Flag("metrics", parse_metrics, "serve metrics to Prometheus: HOST:PORT, PORT or unix:PATH", "ADDRESS"),
    Flag("verbose", None, "log more", short="-v"),
    Flag("foreground", None, "serve in this process, log to standard error", short="-f", of_the_process=True),
)

# What mount(8) and fstab(5) say to every file system. A mount of ours is read-only, nosuid and
# nodev whatever they say; of them all only `noexec` and what implies it changes anything.
_GENERIC: Final = {
    *("ro", "rw", "defaults", "auto", "noauto", "nofail", "_netdev", "_rnetdev", "silent", "loud"),
    *("user", "nouser", "users", "owner", "group", "dev", "nodev", "suid", "nosuid", "exec", "noexec"),
    *("sync", "async", "dirsync", "atime", "noatime", "diratime", "nodiratime", "relatime", "norelatime"),
    *("strictatime", "nostrictatime", "lazytime", "nolazytime", "iversion", "noiversion", "mand", "nomand"),
}
_GENERIC_PREFIXES: Final = ("x-", "X-", "comment=", "user=", "uhelper=", "helper=")
_IMPLY_NOEXEC: Final = frozenset(["noexec", "user", "users"])


def add_flags(parser: argparse.ArgumentParser, *, of_the_process: bool = True) -> None:
    """Give `parser` the flags of the table, and `-o`."""
    for flag in FLAGS:
        if flag.of_the_process and not of_the_process:
            continue
        names = [*filter(None, [flag.short]), f"--{flag.name}"]
        if flag.parse is None:
            parser.add_argument(
                *names, dest=flag.field, action="store_true", default=argparse.SUPPRESS, help=flag.help
            )
        else:
            parser.add_argument(
                *names,
                dest=flag.field,
                type=argument_type(flag.parse),
                default=argparse.SUPPRESS,
                action="append" if flag.repeatable else "store",
                metavar=flag.metavar,
                help=flag.help,
            )
        if flag.negatable:
            parser.add_argument(
                f"--no-{flag.name}",
                dest=flag.field,
                action="store_false",
                default=argparse.SUPPRESS,
                help=argparse.SUPPRESS,
            )
    parser.add_argument(
        "-o",
        dest="option_strings",
        action="append",
        default=[],
        metavar="NAME[=VALUE],...",
        help="the same options as mount(8) and fstab write them; its generic ones are accepted",
    )


def argument_type(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """For argparse, which shows the text of its own errors only."""

    def convert(text: str) -> Any:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return convert


def read_options(parsed: Mapping[str, Any]) -> MountOptions:
    """The options out of argparse's result: flags win over `-o`. Raises `InputError`."""
    values = parse_option_strings(parsed["option_strings"])
    known = {field.name for field in fields(MountOptions)}
    given = {name: value for name, value in parsed.items() if name in known}
    values.update({name: tuple(value) if isinstance(value, list) else value for name, value in given.items()})
    return MountOptions(**values)


def split_options(text: str) -> list[str]:
    r"""The options of one `-o`, split at commas; `\,` is a comma in a value and `\\` a backslash."""
    parts = re.findall(r"((?:[^,\\]|\\.|\\$)*)(?:,|$)", text, re.DOTALL)
    return [re.sub(r"\\([,\\])", r"\1", part) for part in parts if part]


def parse_option_strings(texts: Sequence[str], *, sloppy: bool = False) -> dict[str, Any]:
    """What `-o` sets, by field of `MountOptions`; the last one wins, but for those that may be repeated.

    Raises `InputError`.

    `sloppy` passes over options that nobody knows, as `mount -s` asks for.
    """
    flags = {flag.field: flag for flag in FLAGS}
    values: dict[str, Any] = {}
    for option in [option for text in texts for option in split_options(text)]:
        name, has_value, value = option.partition("=")
        flag = flags.get(name.replace("-", "_"))
        if flag is None:
            if name == "remount":
                raise InputError("a mount cannot be remounted: unmount it and mount it again")
            if option in _IMPLY_NOEXEC:
                values["noexec"] = True
            elif option == "exec":
                values["noexec"] = False
            elif option not in _GENERIC and not option.startswith(_GENERIC_PREFIXES) and not sloppy:
                known = " ".join(sorted(flags))
                raise InputError(f"-o {option}: there is no such option; there are {known}")
        elif flag.parse is None:
            if has_value:
                raise InputError(f"-o {option}: {name} takes no value")
            values[flag.field] = True
        elif not has_value:
            raise InputError(f"-o {option}: {name} needs a value, {name}={flag.metavar}")
        else:
            try:
                parsed = flag.parse(value)
                values[flag.field] = (*values.get(flag.field, ()), parsed) if flag.repeatable else parsed
            except ValueError as error:
                raise InputError(f"-o {option}: {error}") from error
    return values
