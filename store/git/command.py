"""The one place that runs git, so that no repository can make git run anything.

The git command line is the library here: partial clones, linked work trees, reftable and sha256
repositories all work with it as the user's own git does, with the user's own transports and
credentials; libgit2 and what builds on it do not fetch what a partial clone lacks.

A repository may come from anywhere, its configuration with it, and that can name programs: file
system monitors, hooks, transports, helpers for credentials, signatures and pagers. So:

- what the user or a repository says stands behind `--end-of-options` or `--`, and never begins with
  `-`; there is no shell;
- configuration that is given with the command outranks a repository's files, and turns off what could
  run; where git has no switch (a driver or a remote of any name) only plumbing is used that never asks;
- without `network`, no transport is allowed at all (`GIT_ALLOW_PROTOCOL` outranks every
  configuration), so nothing that transports run is reached, and what a partial clone lacks is missing;
- with `network`, the repository is one of `store.git.clones`, whose configuration is ours; the user's
  own global configuration counts, as for his own git;
- of the environment's `GIT_*` only what speaks of the user stays, not what speaks of a repository;
- replacement references and grafts do not count: an object is what its name says;
- the index and its lock are left alone;
- the process has a session of its own: no terminal to ask on, and all of it ends at the deadline.

Callers: the other modules of `store.git`. Blocking; any thread.
"""

from __future__ import annotations

import os
import selectors
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from store.errors import RepositoryUnusable, StoreTimeout

SECONDS: Final = 60.0
"""Deadline for a question about what is here; a million files of a cold index take some ten."""

OUTPUT_LIMIT: Final = 256 << 20
"""Bytes of output that are held; a million paths of 250 bytes."""

_COMPLAINT_LIMIT: Final = 64 << 10
_LINE_LIMIT: Final = 300
_READ_SIZE: Final = 1 << 20
_REAP_SECONDS: Final = 10.0

_PROTOCOLS: Final = "https:http:ssh:git"

_CONFIGURATION: Final = (
    ("core.alternateRefsCommand", "false"),
    ("core.editor", "false"),
    ("core.fsmonitor", "false"),
    ("core.hooksPath", os.devnull),
    ("core.pager", "cat"),
    ("core.untrackedCache", "false"),
    ("core.warnAmbiguousRefs", "true"),
    ("fetch.recurseSubmodules", "false"),
    ("fetch.writeCommitGraph", "false"),
    ("gc.auto", "0"),
    ("gpg.openpgp.program", "false"),
    ("gpg.program", "false"),
    ("gpg.ssh.program", "false"),
    ("gpg.x509.program", "false"),
    ("log.showSignature", "false"),
    ("maintenance.auto", "false"),
    # Whoever is asked for a bare repository was told where it is, and its configuration runs nothing.
    ("safe.bareRepository", "all"),
    ("submodule.recurse", "false"),
)
_LOCAL_CONFIGURATION: Final = (
    ("core.askPass", "false"),
    ("core.sshCommand", "false"),
    ("credential.helper", ""),
    ("protocol.allow", "never"),
)
_NETWORK_CONFIGURATION: Final = (
    # A server that sends nothing for so long is gone: in bytes a second, and seconds.
    ("http.lowSpeedLimit", "1"),
    ("http.lowSpeedTime", "60"),
)
_ENVIRONMENT: Final = {
    "GIT_GRAFT_FILE": os.devnull,
    "GIT_LITERAL_PATHSPECS": "1",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_TERMINAL_PROMPT": "0",
    "LC_ALL": "C",
}
_OF_THE_USER: Final = frozenset(
    {
        "GIT_ASKPASS",
        "GIT_CEILING_DIRECTORIES",
        "GIT_CONFIG_GLOBAL",
        "GIT_CONFIG_NOSYSTEM",
        "GIT_CONFIG_SYSTEM",
        "GIT_DISCOVERY_ACROSS_FILESYSTEM",
        "GIT_EXEC_PATH",
        "GIT_PROXY_COMMAND",
        "GIT_SSH",
        "GIT_SSH_COMMAND",
        "GIT_SSH_VARIANT",
        "GIT_SSL_CAINFO",
        "GIT_SSL_CAPATH",
        "GIT_SSL_CERT",
        "GIT_SSL_KEY",
        "GIT_SSL_NO_VERIFY",
    }
)


@dataclass(frozen=True, slots=True)
class Secret:
    """Configuration and environment for one command; never written anywhere, never printed."""

    configuration: tuple[tuple[str, str], ...]
    environment: Mapping[str, str]

    def __repr__(self) -> str:
        return "Secret(…)"


@dataclass(frozen=True, slots=True)
class Done:
    """A command that ended. `complaint` is one printable line of what it said on standard error."""

    status: int
    output: bytes
    complaint: str
    errors: str
    """Everything it said on standard error, as far as it was kept."""

    def lines(self) -> list[str]:
        """The output by lines."""
        return os.fsdecode(self.output).removesuffix("\n").split("\n") if self.output else []


def run(
    arguments: Sequence[str],
    *,
    directory: Path,
    git_dir: Path | None = None,
    operands: Sequence[str] = (),
    paths: Sequence[str] | None = None,
    globs: bool = False,
    stdin: bytes = b"",
    network: bool = False,
    secret: Secret | None = None,
    held: Sequence[int] = (),
    seconds: float = SECONDS,
    limit: int = OUTPUT_LIMIT,
) -> Done:
    """Run `git ARGUMENTS --end-of-options OPERANDS -- PATHS` in `directory` to its end.

    `arguments` are ours; `operands` and `paths` anybody's. Without `git_dir` git looks for the
    repository, and refuses one of another owner. Paths are literal unless `globs`. `held` are
    descriptors (of locks) that the process keeps open for as long as it lives. Raises
    `RepositoryUnusable` where git cannot be run or says more than `limit` bytes, and `StoreTimeout`.
    """
    command = _command(arguments, operands, paths)
    env = _environment(git_dir, network=network, globs=globs, secret=secret)
    with _as_file(stdin) as file:
        process = _start(command, directory, env, stdin=file, stderr=subprocess.PIPE, held=held)
    try:
        output, errors = _collect(process, arguments[0], time.monotonic() + seconds, seconds, limit)
    finally:
        end(process)
    text = errors.decode("utf-8", "replace")
    return Done(process.returncode, output, _complaint(text), text)


def start(arguments: Sequence[str], *, git_dir: Path, objects: Path) -> subprocess.Popen[bytes]:
    """Start a command that answers requests about what lies in the object directory `objects`.

    The caller speaks with it through pipes, and `end`s it. Raises `RepositoryUnusable`.
    """
    env = _environment(git_dir, network=False, globs=False, secret=None)
    return _start(
        _command(arguments, (), None),
        git_dir,
        env | {"GIT_OBJECT_DIRECTORY": str(objects)},
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        held=(),
    )


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process, whatever it is doing, and what it started with it."""
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with suppress(OSError):
                pipe.close()
    if process.returncode is None:
        # Until it is waited for, the number is its own.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_REAP_SECONDS)


def printable(text: str, limit: int = _LINE_LIMIT) -> str:
    """`text` on one line without what a terminal would obey, cut at `limit` characters."""
    line = "".join(character if character.isprintable() else "?" for character in text[: limit + 1])
    return line if len(line) <= limit else line[: limit - 1] + "…"


def _command(arguments: Sequence[str], operands: Sequence[str], paths: Sequence[str] | None) -> list[str]:
    for operand in operands:
        if operand.startswith("-") or "\0" in operand:
            raise RepositoryUnusable(f"git is not given {printable(operand)!r}: it looks like an option")
    command = [*arguments]
    if operands:
        command += ["--end-of-options", *operands]
    if paths is not None:
        command += ["--", *paths]
    return command


def _environment(
    git_dir: Path | None, *, network: bool, globs: bool, secret: Secret | None
) -> dict[str, str]:
    env = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("GIT_") or name in _OF_THE_USER
    }
    env |= _ENVIRONMENT
    if globs:
        del env["GIT_LITERAL_PATHSPECS"]
    env["GIT_ALLOW_PROTOCOL"] = _PROTOCOLS if network else "none"
    if git_dir is not None:
        env["GIT_DIR"] = str(git_dir)
    configuration = [*_CONFIGURATION, *(_NETWORK_CONFIGURATION if network else _LOCAL_CONFIGURATION)]
    if secret is not None:
        configuration += secret.configuration
        env |= secret.environment
    for number, (key, value) in enumerate(configuration):
        env[f"GIT_CONFIG_KEY_{number}"] = key
        env[f"GIT_CONFIG_VALUE_{number}"] = value
    env["GIT_CONFIG_COUNT"] = str(len(configuration))
    return env


def _start(
    command: Sequence[str],
    directory: Path,
    env: Mapping[str, str],
    *,
    stdin: IO[bytes] | int,
    stderr: int,
    held: Sequence[int],
) -> subprocess.Popen[bytes]:
    # Looked up here, because a PATH with `.` in it would find the repository's own from within.
    program = shutil.which("git")
    if program is None:
        raise RepositoryUnusable("git is not installed, and revisions are read with it; install git")
    try:
        return subprocess.Popen(
            [str(Path(program).absolute()), *command],
            cwd=directory,
            env=env,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=stderr,
            bufsize=0,
            pass_fds=held,
            start_new_session=True,
        )
    except OSError as error:
        raise RepositoryUnusable(f"git cannot be run in {directory}: {error.strerror}") from None


@contextmanager
def _as_file(data: bytes) -> Iterator[IO[bytes] | int]:
    """`data` to be read from a file: who writes it to a pipe has to read from another meanwhile."""
    if not data:
        yield subprocess.DEVNULL
        return
    try:
        file = tempfile.TemporaryFile()  # noqa: SIM115 - what is raised inside is not about it
        file.write(data)
        file.seek(0)
    except OSError as error:
        raise RepositoryUnusable(f"git cannot be asked: no temporary file: {error.strerror}") from None
    with file:
        yield file


def _collect(
    process: subprocess.Popen[bytes], what: str, deadline: float, seconds: float, limit: int
) -> tuple[bytes, bytes]:
    """What the process says until it ends: (standard output, the beginning of standard error)."""
    assert process.stdout is not None
    assert process.stderr is not None
    output, errors = bytearray(), bytearray()
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ, output)
        selector.register(process.stderr, selectors.EVENT_READ, errors)
        while selector.get_map():
            ready = selector.select(max(0.0, deadline - time.monotonic()))
            if not ready:
                raise StoreTimeout(f"git {what} did not end within {seconds:g} s")
            for key, _ in ready:
                part = os.read(key.fd, _READ_SIZE)
                if not part:
                    selector.unregister(key.fileobj)
                elif key.data is output:
                    output += part
                    if len(output) > limit:
                        raise RepositoryUnusable(f"git {what} says more than {limit} bytes; that is refused")
                elif len(errors) < _COMPLAINT_LIMIT:
                    errors += part
    try:
        process.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        raise StoreTimeout(f"git {what} did not end within {seconds:g} s") from None
    return bytes(output), bytes(errors)


def _complaint(text: str) -> str:
    """The line that says why: the first that is marked so, or else the last."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    for mark in ("fatal: ", "error: "):
        for line in lines:
            if line.startswith(mark):
                return printable(line.removeprefix(mark))
    return printable(lines[-1]) if lines else "it does not say why"
