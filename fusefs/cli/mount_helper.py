"""`mount.fusefs SPEC DIR [-sfnv] [-o OPTIONS] [-t TYPE] [-N NAMESPACE]`: what mount(8) calls.

For `mount -t fusefs`, `mount -t fuse.fusefs` and lines in /etc/fstab. May be called with an empty
environment. Exit status as mount(8) has it: 1 for wrong usage, 32 for a mount that failed.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NoReturn

from fusefs.cli import print_error
from fusefs.inherited import mend_inherited
from fusefs.interruption import Interrupted, interruptible
from store.errors import InputError, StoreError

USAGE: Final = 1
FAILED: Final = 32
PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        print_error(message)
        raise SystemExit(USAGE)


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = _Parser(
        prog="mount.fusefs", description="Called by mount(8) for file systems of the type fusefs."
    )
    parser.add_argument("spec", metavar="SPEC", help="what to mount; an absolute path in /etc/fstab")
    parser.add_argument("directory", metavar="DIR", help="where to mount it")
    parser.add_argument("-s", dest="sloppy", action="store_true", help="pass over unknown options")
    parser.add_argument("-f", dest="fake", action="store_true", help="do everything but mount")
    parser.add_argument("-n", action="store_true", help="accepted: there is no /etc/mtab to write")
    parser.add_argument("-v", dest="verbose", action="store_true", help="log more")
    parser.add_argument("-o", dest="option_strings", action="append", default=[], metavar="OPTIONS")
    parser.add_argument("-t", dest="type", metavar="TYPE", help="accepted: there is one type only")
    parser.add_argument("-N", dest="namespace", metavar="NAMESPACE", help="mount in this mount namespace")
    return parser.parse_intermixed_args(argv)


def mount(arguments: argparse.Namespace) -> None:
    """Mount as mount(8) asks. Raises `StoreError`."""
    # Imported here: the environment that git and Python's own modules look at is made good first.
    from fusefs import namespaces
    from fusefs.cli.mount import mount_target
    from fusefs.mount_options import MountOptions, parse_option_strings

    values = parse_option_strings(arguments.option_strings, sloppy=arguments.sloppy)
    if arguments.verbose:
        values["verbose"] = True
    options = MountOptions(**values)
    if arguments.fake:
        return
    if arguments.namespace:
        namespaces.enter_mount_namespace(arguments.namespace)
    try:
        with interruptible():
            mount_target(arguments.spec, arguments.directory, options)
    except InputError as error:
        if arguments.spec.startswith("/") or os.path.lexists(arguments.spec):
            raise
        raise InputError(
            f"{error} (seen from {Path.cwd()}: a line in /etc/fstab needs the absolute path)"
        ) from error


def main(argv: Sequence[str] | None = None) -> int:
    """The entry point of `mount.fusefs`."""
    mend_inherited()
    os.environ.setdefault("PATH", PATH)
    arguments = _parse(sys.argv[1:] if argv is None else argv)
    try:
        mount(arguments)
    except StoreError as error:
        print_error(str(error))
        return FAILED
    except Interrupted as interrupted:
        return interrupted.status
    except OSError as error:
        print_error(f"{error.filename}: {error.strerror}" if error.filename else str(error))
        return FAILED
    return 0


if __name__ == "__main__":
    sys.exit(main())
