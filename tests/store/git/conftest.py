"""An environment that no configuration of this machine reaches, the real git in it, and git servers."""

from __future__ import annotations

import base64
import gzip
import http.server
import os
import socketserver
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest

_IDENTITY = {
    "GIT_AUTHOR_NAME": "Ada Author",
    "GIT_AUTHOR_EMAIL": "ada@example.org",
    "GIT_COMMITTER_NAME": "Cid Committer",
    "GIT_COMMITTER_EMAIL": "cid@example.org",
}


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home; the process's environment points into it and nowhere else."""
    directory = tmp_path_factory.mktemp("home")
    for name in [name for name in os.environ if name.startswith(("GIT_", "XDG_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(directory))
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", os.devnull)
    return directory


@dataclass(frozen=True, slots=True)
class Plain:
    """A repository as its owner uses it: with git as it comes, nothing turned off."""

    path: Path

    def __call__(
        self, *arguments: str | bytes, stdin: bytes = b"", status: int | None = 0, time: int = 1_700_000_000
    ) -> str:
        env = (
            os.environ
            | _IDENTITY
            | {"GIT_AUTHOR_DATE": f"{time} +0000", "GIT_COMMITTER_DATE": f"{time} +0000"}
        )
        done = subprocess.run(
            ["git", *arguments],
            cwd=self.path,
            env=env,
            input=stdin,
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert status is None or done.returncode == status, done.stderr
        return done.stdout.decode("utf-8", "surrogateescape").rstrip("\n")

    def commit(self, message: str, time: int = 1_700_000_000, **files: str) -> str:
        """Write `files` (`__` in a name stands for `/`, `_dot_` for a dot) and commit everything."""
        for name, text in files.items():
            path = self.path / name.replace("__", "/").replace("_dot_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        self("add", "--all", time=time)
        self("commit", "--quiet", "--allow-empty", "--message", message, time=time)
        return self("rev-parse", "HEAD")


@contextmanager
def _serving(server: socketserver.BaseServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join(60)


@pytest.fixture
def plain(tmp_path: Path) -> Plain:
    """An empty repository with a work tree."""
    return new_repository(tmp_path / "repo")


def new_repository(path: Path, *options: str) -> Plain:
    path.mkdir(parents=True)
    repository = Plain(path)
    repository("init", "--quiet", "--initial-branch=main", *options)
    return repository


@dataclass(frozen=True, slots=True)
class Server:
    """Serves the repositories of `root` by a protocol; `requests` is what it was asked."""

    url: str
    root: Path
    requests: list[str] = field(default_factory=list)

    def add(self, plain: Plain, name: str = "project", *, filters: bool = True) -> str:
        """Serve a repository in place; returns its URL."""
        plain("config", "uploadpack.allowFilter", str(filters).lower())
        plain("config", "uploadpack.allowAnySHA1InWant", str(filters).lower())
        (self.root / f"{name}.git").symlink_to(plain.path / ".git")
        return f"{self.url}/{name}.git"


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Server]:
    """`git daemon`, a process for each connection, on a port of the kernel's choice."""
    root = tmp_path / "served"
    root.mkdir()
    command = ["git", "daemon", "--inetd", "--export-all", f"--base-path={root}", "--log-destination=none"]
    env = dict(os.environ)

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            subprocess.run(command, stdin=self.request, stdout=self.request, env=env, timeout=60, check=False)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server, _serving(server):
        yield Server(f"git://127.0.0.1:{server.server_address[1]}", root)


USER, PASSWORD = "user", "p@ss:word/%41"


@pytest.fixture
def web(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Server]:
    """`git http-backend` behind the standard library's server; asks for a password if told to."""
    root = tmp_path / "served"
    root.mkdir()
    backend = subprocess.run(
        ["git", "--exec-path"], capture_output=True, text=True, check=True
    ).stdout.strip()
    env = os.environ | {"GIT_PROJECT_ROOT": str(root), "GIT_HTTP_EXPORT_ALL": "1"}
    token = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    locked = bool(getattr(request, "param", False))
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            asked.append(str(args[0]))

        def do_GET(self) -> None:
            if locked and self.headers.get("Authorization") != f"Basic {token}":
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="here"')
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            url = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            done = subprocess.run(
                [f"{backend}/git-http-backend"],
                env=env
                | {
                    "PATH_INFO": url.path,
                    "QUERY_STRING": url.query,
                    "REQUEST_METHOD": self.command,
                    "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                    "CONTENT_LENGTH": str(len(body)),
                    "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
                },
                input=body,
                capture_output=True,
                timeout=60,
                check=False,
            )
            head, _, content = done.stdout.partition(b"\r\n\r\n")
            fields = dict(line.split(": ", 1) for line in head.decode().splitlines())
            self.send_response(int(fields.pop("Status", "200").split()[0]))
            for name, value in fields.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_GET  # noqa: N815 - the name that the base class calls

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server, _serving(server):
        yield Server(f"http://127.0.0.1:{server.server_address[1]}", root, asked)
