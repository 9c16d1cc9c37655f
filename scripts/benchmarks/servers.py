"""What a lazy mount fetches from: nginx with static files at unsigned S3 paths, and a longer way to it.

nginx is no storage, so listings are files, too, made beforehand: peers ask for them. Its own rate is measured
with a client of ours that does nothing else, so that a figure which is the server's is seen to be.
"""

from __future__ import annotations

import os
import resource
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar
from urllib.parse import quote
from xml.sax.saxutils import escape

from benchmarks.datasets import write_object
from benchmarks.workshop import BenchError, Reading, Workshop

BUCKET: Final = "bucket"
START_SECONDS: Final = 60.0
BACKLOG: Final = 4096
MAX_FILES: Final = 1 << 16
"""Descriptors of nginx, half of them for connections; without one it would answer 404."""
NGINX: Final = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")

_CONFIGURATION: Final = """
daemon off;
worker_processes 1;
worker_rlimit_nofile {files};
{user}
pid {directory}/pid;
error_log {directory}/error.log;
events {{ worker_connections {connections}; }}
http {{
    log_format moved '$request_method $status $body_bytes_sent $uri';
    access_log {log};
    types {{ application/xml xml; }}
    default_type application/octet-stream;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    sendfile on;
    tcp_nodelay on;
    open_file_cache max={kept_open} inactive=1h;
    keepalive_requests 100000000;
    keepalive_timeout 600s;
    map $arg_prefix $listing {{ default $arg_prefix; "" all; }}
    server {{
        listen 127.0.0.1:{port} backlog={backlog};
        root {root};
        location / {{ try_files $uri =404; }}
        location = /{bucket} {{ try_files /listings/$listing.xml /listings/none.xml; }}
        location = /{bucket}/ {{ try_files /listings/$listing.xml /listings/none.xml; }}
    }}
}}
"""


@dataclass(frozen=True, slots=True)
class Server:
    """nginx, and where to reach it. `port` may be that of a longer way."""

    root: Path
    """Objects lie in the bucket's directory in here."""
    port: int
    _log: Path

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def forget_requests(self) -> None:
        """Begin to count anew; only between requests."""
        with self._log.open("r+b") as file:
            file.truncate()

    def requests(self, suffix: str) -> list[Request]:
        """The requests since then whose path ends with `suffix`; only after their clients have ended."""
        marker = f"/settled-{time.monotonic_ns()}"
        with socket.create_connection(("127.0.0.1", self.port)) as client:
            client.sendall(f"GET {marker} HTTP/1.0\r\n\r\n".encode())
            while client.recv(4096):
                pass
        lines = self._log.read_text().splitlines()
        found = [Request(*line.split(" ", 3)) for line in lines]
        if not any(request.path == marker for request in found):
            raise BenchError(f"{self._log} does not tell of the last request")
        return [request for request in found if request.path.endswith(suffix)]


@dataclass(frozen=True, slots=True)
class WritableServer:
    """A server of objects that can be put. `port` may be that of a longer way."""

    port: int
    _process: subprocess.Popen[str]

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def requests(self, *, forget: bool = False) -> int:
        """How many requests there were since this was last asked; with `forget` all objects are removed."""
        assert self._process.stdin is not None and self._process.stdout is not None  # it was made with pipes
        self._process.stdin.write("forget\n" if forget else "count\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


S = TypeVar("S", Server, WritableServer)


class Request(NamedTuple):
    """A line of the server's log."""

    method: str
    status: str
    bytes_sent: str
    """Of the body."""
    path: str


def moved(requests: Sequence[Request]) -> int:
    """Bytes that went out for these."""
    return sum(int(request.bytes_sent) for request in requests)


def put_object(root: Path, content: bytes, suffix: str = "") -> str:
    """An object on the server, where DVC looks for it; its digits."""
    return write_object(root / BUCKET, content, suffix)


def write_listings(root: Path, folders: Mapping[str, Sequence[Path]]) -> None:
    """The answers to listings of `prefix/` in the bucket: files below it, by folder; for rclone and s3fs."""
    directory = root / "listings"
    directory.mkdir()
    (directory / "none.xml").write_text(_listing("", [], []))
    for prefix, files in folders.items():
        below = sorted(
            {
                f"{other.removeprefix(prefix).split('/')[0]}/"
                for other in folders
                if other != prefix and other.startswith(prefix)
            }
        )
        text = _listing(
            prefix,
            [(f"{prefix}{file.name}", file.stat().st_size) for file in files],
            [f"{prefix}{name}" for name in below],
        )
        # nginx takes the argument as it was sent: some encode the slashes.
        for name in {prefix or "all", quote(prefix, safe="") or "all"}:
            path = directory / f"{name}.xml"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)


def _listing(prefix: str, keys: Sequence[tuple[str, int]], prefixes: Sequence[str]) -> str:
    contents = "".join(
        f"<Contents><Key>{escape(key)}</Key><LastModified>2024-01-01T00:00:00.000Z</LastModified>"
        f'<ETag>"0"</ETag><Size>{size}</Size><StorageClass>STANDARD</StorageClass></Contents>'
        for key, size in keys
    )
    common = "".join(f"<CommonPrefixes><Prefix>{escape(name)}</Prefix></CommonPrefixes>" for name in prefixes)
    return (
        '<?xml version="1.0" encoding="UTF-8"?>'
        '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        f"<Name>{BUCKET}</Name><Prefix>{escape(prefix)}</Prefix><MaxKeys>100000</MaxKeys>"
        f"<KeyCount>{len(keys) + len(prefixes)}</KeyCount><IsTruncated>false</IsTruncated>{contents}{common}"
        "</ListBucketResult>"
    )


@contextmanager
def serving(workshop: Workshop, root: Path, *, logged: bool = False) -> Iterator[Server]:
    """nginx with everything in `root`, until the end; `logged` makes it count, and slower."""
    if NGINX is None:
        raise BenchError("nginx is not installed; scripts/setup installs it")
    directory = workshop.directory("nginx")
    log = directory / "access.log"
    log.touch()
    listener = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
    port = int(listener.getsockname()[1])
    files = min(resource.getrlimit(resource.RLIMIT_NOFILE)[1], MAX_FILES)
    configuration = directory / "nginx.conf"
    configuration.write_text(
        _CONFIGURATION.format(
            directory=directory,
            files=files,
            connections=files // 4,
            kept_open=files // 4,  # a connection takes one more, for a file that is not kept
            user="user root;" if os.geteuid() == 0 else "",  # the workshop is closed to others
            log=f"{log} moved" if logged else "off",
            port=port,
            backlog=BACKLOG,
            root=root,
            bucket=BUCKET,
        )
    )
    command = [NGINX, "-p", str(directory), "-e", str(directory / "error.log"), "-c", str(configuration)]
    # nginx takes over a socket that listens already: nobody else can be faster to get the port.
    with listener:
        process = subprocess.Popen(
            command,
            env={**os.environ, "NGINX": f"{listener.fileno()};"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[listener.fileno()],
        )
    with workshop.at_exit(lambda: _end(process)):
        _await_answer(port)
        yield Server(root, port, log)


@dataclass(frozen=True, slots=True)
class Way:
    """A longer way to a server."""

    port: int
    _process: subprocess.Popen[str]

    def leading_to(self, server: S) -> S:
        """The server at the end of the way, which must be the one that the way was made to."""
        return replace(server, port=self.port)

    def most_at_once(self) -> int:
        """How many requests were on the way or at the server at once, at most, since this was last asked."""
        assert self._process.stdin is not None and self._process.stdout is not None  # it was made with pipes
        self._process.stdin.write("most\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


@contextmanager
def way_to(workshop: Workshop, port: int, milliseconds: float) -> Iterator[Way]:
    """A proxy that lets every request wait for so long."""
    command = [str(workshop.compile("delay_proxy.c")), str(port), str(milliseconds)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with workshop.at_exit(lambda: _end(process)):
        assert process.stdout is not None  # it was made with pipes
        yield Way(int(process.stdout.readline()), process)


@contextmanager
def further_away(workshop: Workshop, server: S, milliseconds: float) -> Iterator[S]:
    """The server behind a proxy that lets every request wait for so long."""
    with way_to(workshop, server.port, milliseconds) as way:
        yield way.leading_to(server)


@contextmanager
def serving_s3(workshop: Workshop) -> Iterator[WritableServer]:
    """moto, which takes what is put. It keeps all in memory and serves some hundred requests a second."""
    command = [sys.executable, str(Path(__file__).with_name("s3_server.py"))]
    process = subprocess.Popen(
        command, env=workshop.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with workshop.at_exit(lambda: _end(process)):
        assert process.stdout is not None  # it was made with pipes
        yield WritableServer(int(process.stdout.readline()), process)


def own_rate(workshop: Workshop, server: Server, paths: Sequence[str], connections: int) -> Reading:
    """What the server does when a client does nothing but ask: its ceiling, or the proxy's."""
    listing = workshop.root / "asked"
    listing.write_bytes(b"".join(path.encode() + b"\0" for path in paths))
    said = workshop.run(workshop.compile("load.c"), str(server.port), str(connections), listing)
    nanoseconds, size, requests = map(int, said.split())
    return Reading(nanoseconds / 1e9, size, requests)


def _end(process: subprocess.Popen[Any]) -> None:
    process.terminate()
    try:
        process.wait(START_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


def _await_answer(port: int) -> None:
    """Connections wait until nginx takes them, and are broken where it ends instead."""
    try:
        with socket.create_connection(("127.0.0.1", port), START_SECONDS) as client:
            client.sendall(b"GET /started HTTP/1.0\r\n\r\n")
            if client.recv(1):
                return
    except OSError:
        pass
    raise BenchError("nginx did not start")
