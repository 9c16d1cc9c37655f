"""The command line: `fusefs COMMAND …`. One module a command, imported when it is asked for.

A command's module offers `add_parser(subparsers)` and `run(options) -> int`, the exit status.
Errors that were foreseen are one line on standard error and exit status 1; wrong usage is 2.
"""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

from fusefs.inherited import mend_inherited
from fusefs.logs import escape
from store.errors import StoreError

COMMANDS: Final = {
    "commit": "fusefs.cli.commit",
    "mount": "fusefs.cli.mount",
    "run": "fusefs.cli.run",
    "switch": "fusefs.cli.switch",
    "umount": "fusefs.cli.umount",
    "fetch": "fusefs.cli.fetch",
    "push": "fusefs.cli.push",
    "remote": "fusefs.cli.remote",
    "backup": "fusefs.cli.backup",
    "restore": "fusefs.cli.restore",
    "status": "fusefs.cli.status",
    "list": "fusefs.cli.list",
    "ls": "fusefs.cli.ls",
    "media": "fusefs.cli.media",
    "materialize": "fusefs.cli.materialize",
    "log": "fusefs.cli.log",
    "diff": "fusefs.cli.diff",
    "config": "fusefs.cli.config",
    "runs": "fusefs.cli.runs",
    "cache": "fusefs.cli.cache",
    "gc": "fusefs.cli.gc",
    "doctor": "fusefs.cli.doctor",
}
"""Sub-commands in the order of the help, and where they live."""

EPILOG: Final = """\
examples:
  fusefs commit photos                 make a version of the folder photos
  fusefs mount photos.dvc /mnt/photos  show it as a read-only directory
  fusefs run photos.dvc -- ls {}       the same for one command only
  fusefs status                        what is mounted, and how it is doing
  fusefs umount /mnt/photos
"""


class Command(Protocol):
    """What a sub-command's module offers."""

    def add_parser(self, subparsers: Any) -> None: ...

    def run(self, options: argparse.Namespace) -> int: ...


def _load(name: str) -> Any:
    return importlib.import_module(COMMANDS[name])


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """The options of a command line, `command` among them. Ends the process on wrong usage.

    A command's flags may stand anywhere, also between its operands.
    """
    name = arguments[0] if arguments else ""
    parser, commands = build_parser(name)
    # The parser that lets flags stand anywhere looks for them behind `--` as well.
    if name not in COMMANDS or "--" in arguments:
        return parser.parse_args(arguments)
    return commands[name].parse_intermixed_args(arguments[1:], argparse.Namespace(command=name))


def build_parser(wanted: str) -> tuple[argparse.ArgumentParser, Mapping[str, argparse.ArgumentParser]]:
    """The parser, and those of the sub-command `wanted`, or of all of them if there is no such one."""
    parser = argparse.ArgumentParser(
        prog="fusefs",
        description="Mount any committed version of a dataset as a read-only directory.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_PrintVersion, nargs=0, help="print the version and exit")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name in [wanted] if wanted in COMMANDS else COMMANDS:
        command: Command = _load(name)
        command.add_parser(subparsers)
    return parser, subparsers.choices


class _PrintVersion(argparse.Action):
    """Looks the version up when asked: what reads it (`email` and more) is slow to import."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib import metadata

        try:
            version = metadata.version("fusefs")
        except metadata.PackageNotFoundError:
            version = "(not installed)"
        print(f"fusefs {version}")
        parser.exit()


def print_error(message: str) -> None:
    """One line on standard error, whatever is in the names that the message holds."""
    try:
        print(f"fusefs: {escape(message)}", file=sys.stderr, flush=True)
    except OSError:
        pass  # nobody listens


def run_reporting(command: Command, options: argparse.Namespace) -> int:
    """Run a command; foreseen errors become their line and exit status 1."""
    try:
        status = command.run(options)
        sys.stdout.flush()
        return status
    except StoreError as error:
        print_error(str(error))
    except BrokenPipeError:
        # The reader, `head` perhaps, has enough. Nothing may be written at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except OSError as error:
        # What the system refuses names itself: no traceback helps with a full or forbidden disk.
        name = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
        print_error(f"{name}{error.strerror or error}")
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return 1


def main(argv: Sequence[str] | None = None) -> int:
    """The entry point of `fusefs`; `argv` is without the program's name."""
    mend_inherited()
    try:
        return _run_command(list(sys.argv[1:] if argv is None else argv))
    except KeyboardInterrupt:  # while what the command needs is still being imported
        return 128 + signal.SIGINT


def _run_command(arguments: list[str]) -> int:
    rest: list[str] = []
    if arguments[:1] == ["run"] and "--" in arguments:
        # What follows is another program's command line, and argparse must not look at it.
        place = arguments.index("--")
        arguments, rest = arguments[:place], arguments[place + 1 :]
    options = parse_arguments(arguments)
    options.command_line = rest
    return run_reporting(_load(options.command), options)
