"""OpenSSH's server on loopback for whoever runs the tests, with keys and settings of its own; SFTP only.

A process of it is started for each connection, as inetd does it: the port is ours from the beginning, and
no connection comes too early.
"""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SSHD = shutil.which("sshd", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
SECONDS = 60.0

_CONFIGURATION = """
HostKey {directory}/host_key
PidFile none
AuthorizedKeysFile {directory}/authorized_keys
StrictModes no
UsePAM no
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
PubkeyAuthentication yes
Subsystem sftp internal-sftp
ForceCommand internal-sftp
MaxSessions {sessions}
LogLevel VERBOSE
"""


@dataclass(frozen=True, slots=True)
class Sshd:
    """A server that runs. `known_hosts` is the line that makes it known at its port."""

    user: str
    port: int
    key: Path
    """The private key that it lets in."""
    host_key: str
    """The public half of its own: type and key."""
    directory: Path

    def known_host(self, port: int | None = None) -> str:
        """A line for known_hosts, also for a proxy before the server."""
        return f"[127.0.0.1]:{port or self.port} {self.host_key}\n"

    def log(self) -> str:
        return (self.directory / "log").read_text()


def make_key(path: Path, *options: str, passphrase: str = "") -> Path:
    """A key pair: `path` and `path`.pub."""
    command = ["ssh-keygen", "-q", "-N", passphrase, "-C", "test", "-f", str(path)]
    subprocess.run([*command, *(options or ("-t", "ed25519"))], check=True, timeout=SECONDS)
    return path


@contextmanager
def sshd(directory: Path, *, sessions: int = 10) -> Iterator[Sshd]:
    """Serve this machine's files by SFTP to the holder of `key`; all that it needs goes below `directory`."""
    assert SSHD is not None, "sshd is not installed; run scripts/setup"
    directory.mkdir(parents=True, exist_ok=True)
    key, host = make_key(directory / "key"), make_key(directory / "host_key")
    shutil.copy(f"{key}.pub", directory / "authorized_keys")
    (directory / "sshd_config").write_text(_CONFIGURATION.format(directory=directory, sessions=sessions))
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # it wants its empty directory there
    listener = socket.create_server(("127.0.0.1", 0))
    processes: list[subprocess.Popen[bytes]] = []
    serving = threading.Thread(target=_serve, args=(listener, directory, processes))
    serving.start()
    try:
        public = Path(f"{host}.pub").read_text().split()
        yield Sshd(getpass.getuser(), listener.getsockname()[1], key, f"{public[0]} {public[1]}", directory)
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        serving.join(SECONDS)
        listener.close()
        for process in processes:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """By itself, if it can, when its client has gone: only then it waits for its own children."""
    for hurry in (process.terminate, process.kill):
        try:
            process.wait(SECONDS / 12)
        except subprocess.TimeoutExpired:
            hurry()
    process.wait()


def _serve(listener: socket.socket, directory: Path, processes: list[subprocess.Popen[bytes]]) -> None:
    with open(directory / "log", "ab") as log:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                command = [str(SSHD), "-i", "-e", "-f", str(directory / "sshd_config")]
                processes.append(
                    subprocess.Popen(
                        command, stdin=connection.fileno(), stdout=connection.fileno(), stderr=log
                    )
                )
