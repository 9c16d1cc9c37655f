"""A daemon's log: never blocks a reader, never fails, never grows without bound.

`start_logging` is called once, by the daemon. Records go through a bounded queue to one thread
that writes: a slow, full or vanished disk costs log lines and nothing else. Lines that repeat are
counted, control characters are escaped (file names are hostile), files are 0600 and rotated.

Thread rule: the writer thread owns the handler; everybody else only puts into the queue.
"""

from __future__ import annotations

import hashlib
import logging
import logging.handlers
import os
import queue
import re
import stat
import sys
import threading
import time
from io import TextIOWrapper
from pathlib import Path
from typing import Any, Final

from fusefs.directories import state_directory
from store.errors import InputError

MAX_BYTES: Final = 4 << 20
BACKUPS: Final = 2
QUEUED: Final = 1000
"""Records that may wait to be written; more are dropped and counted."""
MAX_NAME_BYTES: Final = 200
"""Of a log's name; a file name has 255 bytes at most, and rotation adds to it."""
FLUSH_SECONDS: Final = 5.0
"""How long a count of repeated lines waits for another line before it is written."""
CLOSE_SECONDS: Final = 10.0
"""Whoever writes to the disk may keep it busy for seconds; a log that is stuck takes nothing ever."""

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def escape(text: str) -> str:
    """`text` as one line that a terminal takes: control characters and broken UTF-8 as escapes."""
    return _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def name_log(mountpoint: str) -> str:
    """A name for the log of the mount at `mountpoint`, different for different mountpoints."""
    name = mountpoint.strip("/").replace("-", "--").replace("/", "-") or "root"
    raw = os.fsencode(name)
    if len(raw) <= MAX_NAME_BYTES:
        return name
    return os.fsdecode(raw[-MAX_NAME_BYTES:]) + hashlib.sha256(raw).hexdigest()[:16]


def default_log(name: str) -> str:
    """The log file called `name`: root's below /var/log, a user's below `$XDG_STATE_HOME`."""
    if os.geteuid() == 0 and not os.environ.get("XDG_STATE_HOME"):
        return f"/var/log/fusefs/{name}.log"
    return str(state_directory() / f"{name}.log")


def check_log(path: str) -> None:
    """Make sure that the log can be written, so that the user hears of it and not the daemon.

    Raises `InputError`.
    """
    try:
        Path(path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _open_log(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, regular_only=True)
    except OSError as error:
        raise InputError(
            f"cannot write the log {path}: {error.strerror}; choose another with --log"
        ) from error


def _open_log(path: str, flags: int, *, regular_only: bool = False) -> int:
    # O_NONBLOCK: a FIFO without a reader must fail, not block.
    fd = os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY, 0o600)
    if regular_only:
        is_regular = stat.S_ISREG(os.fstat(fd).st_mode)
        os.close(fd)
        if not is_regular:
            raise OSError(0, "it is not a regular file")
    return fd


class _LogFile(logging.handlers.RotatingFileHandler):
    def _open(self) -> TextIOWrapper:
        return open(self.baseFilename, "a", encoding="utf-8", errors="backslashreplace", opener=_open_log)

    def reopen(self) -> None:
        """Close the file, as log rotators ask for; the next line opens it anew."""
        if self.stream is not None:
            self.stream.close()
            self.stream = None  # as the base class does after a rotation


class _OneLine(logging.Formatter):
    """Time, level, module, message; a traceback follows on lines of its own, indented."""

    def format(self, record: logging.LogRecord) -> str:
        when = time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(record.created))
        line = f"{when} {record.levelname} {record.name}: {escape(record.getMessage())}"
        if record.exc_info:
            trace = self.formatException(record.exc_info).splitlines()
            line = "\n    ".join([line, *map(escape, trace)])
        return line


class _Into(logging.Handler):
    """The handler that everybody logs to: it formats and queues, and drops what does not fit."""

    def __init__(self, lines: queue.Queue[tuple[str, str, str]]) -> None:
        super().__init__()
        self._lines = lines
        self.dropped = 0
        self.setFormatter(_OneLine())

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
            # What makes two lines the same is everything behind the time.
            self._lines.put_nowait((line.split(" ", 1)[1], line, record.levelname))
        except queue.Full:
            self.dropped += 1
        except Exception:  # a record that cannot be formatted must not end a mount
            self.dropped += 1


class Log:
    """A running log. `reopen` and `close` may be called from any thread, once the log has started."""

    def __init__(self, handler: logging.StreamHandler[Any]) -> None:
        self._lines: queue.Queue[tuple[str, str, str]] = queue.Queue(QUEUED)
        self._into = _Into(self._lines)
        self._handler = handler
        self._handler.setFormatter(logging.Formatter("%(message)s"))
        self._reopen = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._write_lines, name="log", daemon=True)
        self._last = ""
        self._repeats = 0
        self._reported_drops = 0

    def start(self, level: int) -> None:
        root = logging.getLogger()
        root.handlers[:] = [self._into]
        root.setLevel(level)
        self._thread.start()

    def reopen(self) -> None:
        """Let the file go, so that one that was moved away is made anew."""
        self._reopen.set()
        self._wake()

    def close(self) -> None:
        """Write what is queued, within a deadline."""
        self._closing.set()
        self._wake()
        self._thread.join(CLOSE_SECONDS)

    def _wake(self) -> None:
        try:
            self._lines.put_nowait(("", "", ""))
        except queue.Full:
            pass  # then the writer is awake

    def _write_lines(self) -> None:
        while True:
            try:
                key, line, _ = self._lines.get(timeout=FLUSH_SECONDS)
            except queue.Empty:
                key = line = ""
                self._write_counts()
            if self._reopen.is_set():
                self._reopen.clear()
                if isinstance(self._handler, _LogFile):
                    self._handler.reopen()
            if not line:
                if self._closing.is_set() and self._lines.empty():
                    self._write_counts()
                    return
                continue
            if key == self._last:
                self._repeats += 1
                continue
            self._write_counts()
            self._last = key
            self._write(line)

    def _write_counts(self) -> None:
        if self._repeats:
            self._write(f"{_now()} INFO {__name__}: the line above repeated {self._repeats} times")
            self._repeats = 0
        if (dropped := self._into.dropped) > self._reported_drops:
            self._write(f"{_now()} WARNING {__name__}: {dropped - self._reported_drops} lines were dropped")
            self._reported_drops = dropped

    def _write(self, line: str) -> None:
        record = logging.LogRecord("", logging.INFO, "", 0, line, None, None)
        try:
            self._handler.handle(record)
        except OSError:
            self._into.dropped += 1  # a log that cannot be opened at this moment


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def start_logging(path: str, *, verbose: bool) -> Log:
    """Send everything that is logged to the file `path`, or to standard error where that is empty."""
    logging.raiseExceptions = False  # a full disk is no reason to write tracebacks to nowhere
    handler: logging.StreamHandler[Any]
    if path:
        handler = _LogFile(path, maxBytes=MAX_BYTES, backupCount=BACKUPS, delay=True)
    else:
        handler = logging.StreamHandler(sys.stderr)
    log = Log(handler)
    log.start(logging.DEBUG if verbose else logging.INFO)
    return log
