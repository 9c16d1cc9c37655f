"""nginx as the user who runs the tests: static files, with or without ranges, password, TLS and WebDAV."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.servers.certificates import Certificate

NGINX = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
DAV_EXT = Path("/usr/share/nginx/modules/ngx_http_dav_ext_module.so")
SECONDS = 60.0

_CONFIGURATION = """
daemon off;
worker_processes {workers};
pid {directory}/nginx.pid;
error_log {directory}/error.log;
{main}
events {{ worker_connections 1024; }}
http {{
    access_log off;
    default_type application/octet-stream;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 1000000;
    server_tokens off;
    server {{
        listen {listen};
        root {root};
        client_max_body_size 0;
        {server}
        location = /answered {{ access_log off; return 204; }}
        location / {{ {location} }}
    }}
}}
"""


@dataclass(frozen=True, slots=True)
class Nginx:
    """A server that runs. `root` may change while it does."""

    root: Path
    url: str
    """Without a slash at its end; empty for a Unix socket."""
    port: int
    """0 for a Unix socket."""
    socket: Path | None
    pid: int

    def await_log(self) -> None:
        """Wait until all that clients have answers to is in the log, which is written after they have them.

        The one worker takes one request after another: this one comes behind those.
        """
        address = str(self.socket) if self.socket else ("127.0.0.1", self.port)
        assert _is_answered(address), "nginx does not answer"


@contextmanager
def nginx(
    directory: Path,
    root: Path,
    *,
    ranges: bool = True,
    login: tuple[str, str] | None = None,
    header: tuple[str, str] | None = None,
    certificate: Certificate | None = None,
    client_certificate: Certificate | None = None,
    webdav: bool = False,
    unix: bool = False,
    workers: int = 1,
    extra: str = "",
) -> Iterator[Nginx]:
    """Serve the files below `root`; what nginx writes goes below `directory`.

    `login` is a name and a password that it asks for (basic), `header` a header and the value that requests
    must have, `client_certificate` one that clients must show, `extra` further directives of the server.
    """
    assert NGINX is not None, "nginx is not installed; run scripts/setup"
    directory.mkdir(parents=True, exist_ok=True)
    listener = _listen(directory / "socket" if unix else None)
    port = 0 if unix else int(listener.getsockname()[1])
    address = f"unix:{directory}/socket" if unix else f"127.0.0.1:{port}"
    server = [extra]
    if not ranges:
        server.append("max_ranges 0;")
    if login:
        (directory / "passwords").write_text(f"{login[0]}:{{PLAIN}}{login[1]}\n")
        server.append(f'auth_basic "test"; auth_basic_user_file {directory}/passwords;')
    if certificate:
        server.append(f"ssl_certificate {certificate.path}; ssl_certificate_key {certificate.key};")
    if client_certificate:
        server.append(f"ssl_client_certificate {client_certificate.path}; ssl_verify_client on;")
    location = []
    if header:
        variable = "$http_" + header[0].lower().replace("-", "_")
        location.append(f'if ({variable} != "{header[1]}") {{ return 401; }}')
    if webdav:
        location.append("dav_methods PUT DELETE MKCOL COPY MOVE; create_full_put_path on;")
        location.append("dav_ext_methods PROPFIND OPTIONS;")
    configuration = _CONFIGURATION.format(
        workers=workers,
        directory=directory,
        main=("user root root;" if os.geteuid() == 0 else "") + (f"load_module {DAV_EXT};" if webdav else ""),
        listen=address + (" ssl" if certificate else ""),
        root=root,
        server=" ".join(server),
        location=" ".join(location),
    )
    (directory / "nginx.conf").write_text(configuration)
    command = [
        NGINX,
        "-p",
        str(directory),
        "-e",
        str(directory / "error.log"),
        "-c",
        str(directory / "nginx.conf"),
    ]
    # nginx takes over a socket that listens already: the port is ours, and nobody waits for it to be bound.
    environment = {"PATH": os.environ.get("PATH", os.defpath), "NGINX": f"{listener.fileno()};"}
    process = subprocess.Popen(
        command,
        env=environment,
        pass_fds=[listener.fileno()],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        with listener:
            name = listener.getsockname()
        _wait_until_it_answers(name, directory / "error.log")
        scheme = "https" if certificate else "http"
        url = "" if unix else f"{scheme}://127.0.0.1:{port}"
        yield Nginx(root, url, port, directory / "socket" if unix else None, process.pid)
    finally:
        process.terminate()
        try:
            process.wait(SECONDS)
        finally:
            process.kill()
            process.wait()


def _listen(path: Path | None) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX if path else socket.AF_INET)
    try:
        listener.bind(str(path) if path else ("127.0.0.1", 0))
        listener.listen(511)
    except BaseException:
        listener.close()
        raise
    return listener


def _wait_until_it_answers(name: str | tuple[str, int], log: Path) -> None:
    """Connections wait in the socket until nginx takes them; they are reset where it ends instead."""
    if _is_answered(name):
        return
    raise RuntimeError(f"nginx does not answer: {log.read_text() if log.exists() else 'it wrote no log'}")


def _is_answered(name: str | tuple[str, int]) -> bool:
    with socket.socket(socket.AF_UNIX if isinstance(name, str) else socket.AF_INET) as client:
        client.settimeout(SECONDS)
        try:
            client.connect(name)
            client.sendall(b"GET /answered HTTP/1.0\r\n\r\n")
            return bool(client.recv(1))
        except OSError:
            return False
