"""Object stores on loopback: moto for S3, Azurite for Azure.

Google Cloud Storage is read by the interface that it has in common with S3, so moto stands for it, too:
its own emulator leaves out headers that obstore asks for.

Session fixtures, for test modules to import. Each runs in a process of its own, keeps all in memory and
is stopped at the end; buckets are the tests' own (`new_s3_bucket` and so on).
"""

from __future__ import annotations

import hashlib
import hmac
import itertools
import json
import os
import subprocess
import sys
import threading
from base64 import b64decode, b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import pytest
import urllib3

ROOT = Path(__file__).resolve().parents[2]
AZURITE = ROOT / ".venv" / "emulators" / "node_modules" / ".bin" / "azurite-blob"
SECONDS = 60.0

AZURE_ACCOUNT: Final = "devstoreaccount1"
AZURE_KEY: Final = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""Those that every copy of the emulator knows."""

_MOTO = """
import sys, threading
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
server.stop()
"""
_numbers = itertools.count()


@dataclass(frozen=True, slots=True)
class ObjectStoreServer:
    """A server that runs."""

    url: str

    def new_bucket(self) -> str:
        """A name that no other test uses."""
        return f"bucket{os.getpid()}n{next(_numbers)}"


@contextmanager
def _python_server(program: str) -> Iterator[ObjectStoreServer]:
    """A server that prints its port and ends with its standard input."""
    environment = {"PATH": os.environ["PATH"], "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"}
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
        text=True,
    ) as process:
        assert process.stdin and process.stdout
        try:
            port = int(process.stdout.readline())
            yield ObjectStoreServer(f"http://127.0.0.1:{port}")
        finally:
            process.stdin.close()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()


@pytest.fixture(scope="session")
def moto() -> Iterator[ObjectStoreServer]:
    """S3, with versions, by moto. It believes every signature."""
    with _python_server(_MOTO) as server:
        yield server


@pytest.fixture(scope="session")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStoreServer]:
    """Azure's blob storage; it checks signatures. `url` is the account's endpoint."""
    directory = tmp_path_factory.mktemp("azurite")
    command = [AZURITE, "--blobPort", "0", "--inMemoryPersistence", "--skipApiVersionCheck"]
    command += ["--disableTelemetry"]
    with subprocess.Popen(
        command, cwd=directory, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        try:
            said = []
            for line in process.stdout:
                said.append(line)
                if "successfully listen" in line:
                    break
            address = "".join(said).rpartition("http://")[2].split()[0]
            drain = threading.Thread(target=process.stdout.read, daemon=True)
            drain.start()
            yield ObjectStoreServer(f"http://{address}/{AZURE_ACCOUNT}")
        finally:
            process.kill()
            process.wait(5)
            drain.join()


def ask(method: str, url: str, body: bytes | None = None, **headers: str) -> bytes:
    """One plain HTTP request; fails for another status than success."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    with urllib3.PoolManager(timeout=30.0) as pool:
        answer = pool.request(method, url, body=body, headers=named)
    assert answer.status in (200, 201, 204), answer.data
    return answer.data


def new_s3_bucket(moto: ObjectStoreServer, *, versions: bool = False, public: bool = False) -> str:
    """Make a bucket; `public` lets everybody read."""
    bucket = moto.new_bucket()
    ask("PUT", f"{moto.url}/{bucket}")
    if versions:
        enabled = b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"
        ask("PUT", f"{moto.url}/{bucket}?versioning", enabled)
    if public:
        statement = {"Effect": "Allow", "Principal": "*", "Action": "s3:*", "Resource": "arn:aws:s3:::*"}
        ask("PUT", f"{moto.url}/{bucket}?policy", json.dumps({"Statement": [statement]}).encode())
    return bucket


def new_azure_container(azurite: ObjectStoreServer, *, public: bool = False) -> str:
    """Make a container, which takes a request signed with the account's key; `public` lets everybody read."""
    container = azurite.new_bucket()
    headers = {"x_ms_date": formatdate(usegmt=True), "x_ms_version": "2023-11-03"}
    if public:
        headers["x_ms_blob_public_access"] = "container"
    canonical = "".join(f"{name.replace('_', '-')}:{headers[name]}\n" for name in sorted(headers))
    path = f"/{AZURE_ACCOUNT}{urlsplit(azurite.url).path}/{container}"
    text = "PUT" + "\n" * 12 + canonical + path + "\nrestype:container"
    signature = hmac.new(b64decode(AZURE_KEY), text.encode(), hashlib.sha256).digest()
    headers["authorization"] = f"SharedKey {AZURE_ACCOUNT}:{b64encode(signature).decode()}"
    ask("PUT", f"{azurite.url}/{container}?restype=container", **headers)
    return container
