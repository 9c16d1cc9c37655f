"""DVC 3 with a remote that keeps versions of objects: directories are lists of files, not manifests.

The remote is an S3 server on this machine; what it keeps is written out into `bucket/KEY/VERSION`.

Callers: `era_fixtures.isolated`.
"""

from __future__ import annotations

import contextlib
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from typing import Final

from era_fixtures.releases import FixtureError
from era_fixtures.workshop import Workshop

RELEASES: Final = ("3.67.1", "moto")
RELEASE: Final = RELEASES[0]
SERVER: Final = "http://127.0.0.1:9000"
BUCKET: Final = "bucket"

_VERSIONING = b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"
_WHO = (
    "AWS4-HMAC-SHA256 Credential=example/20200101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"
)
_SECONDS = 60.0


def build(workshop: Workshop) -> None:
    with _server(workshop):
        _request("PUT", f"/{BUCKET}")
        _request("PUT", f"/{BUCKET}?versioning", _VERSIONING)
        project = workshop.repository("project", RELEASE)
        project.dvc("init", "--quiet")
        project.dvc("remote", "add", "--default", "versioned", f"s3://{BUCKET}/store")
        project.dvc("remote", "modify", "versioned", "endpointurl", SERVER)
        project.dvc("remote", "modify", "versioned", "version_aware", "true")
        project.write("data/1.txt", "1\n")
        project.write("data/sub/é and space.txt", "2\r\n")
        project.write("data/same.txt", "1\n")
        project.write("data/tool.sh", "#!/bin/sh\n", executable=True)
        project.write("single.bin", b"\0\1\2")
        project.dvc("add", "data", "single.bin")
        project.tag("unpushed", "Not pushed yet: a directory has its manifest")
        project.dvc("push", "--jobs", "1")  # in order, for the versions have names in order
        project.tag("v1", "Pushed: a directory lists its files with their versions")
        project.write("data/1.txt", "1, changed\n")
        project.remove("data/same.txt")
        project.write("data/new.txt", "new\n")
        project.write("single.bin", b"\3\4")
        pipeline = "stages:\n  copy:\n    cmd: mkdir -p made && cp data/1.txt made/\n"
        project.write("dvc.yaml", pipeline + "    deps:\n    - data\n    outs:\n    - made\n")
        project.dvc("add", "data", "single.bin")
        project.dvc("repro")
        project.dvc("push", "--jobs", "1")
        project.tag("v2", "Files changed, added and removed; the outputs of a stage are versioned, too")
        project.write("data/later.txt", "later\n")
        project.dvc("add", "data")
        project.tag("v3", "Changed since the last push: one file of the list has no version")
        project.dvc("push", "--jobs", "1")
        project.tag("v4", "Pushed again")
        _write_out(workshop)
    project.seal()


@contextlib.contextmanager
def _server(workshop: Workshop) -> Iterator[None]:
    command = [workshop.program("moto", "moto_server"), "--host", "127.0.0.1", "--port", "9000"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + _SECONDS
        while True:
            with contextlib.suppress(urllib.error.URLError):
                _request("POST", "/moto-api/seed?a=1")  # the versions' names are the same every time
                break
            if server.poll() is not None or time.monotonic() > deadline:
                raise FixtureError("the S3 server does not start")
            time.sleep(0.1)
        yield
    finally:
        server.terminate()
        server.wait()


def _write_out(workshop: Workshop) -> None:
    listing = ET.fromstring(_request("GET", f"/{BUCKET}?versions"))
    space = listing.tag.removesuffix("ListVersionsResult")
    for version in listing.iter(f"{space}Version"):
        key, name = (version.findtext(f"{space}{field}") or "" for field in ("Key", "VersionId"))
        target = workshop.root / "bucket" / key / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(_request("GET", f"/{BUCKET}/{urllib.parse.quote(key)}?versionId={name}"))


def _request(method: str, path: str, body: bytes | None = None) -> bytes:
    # Without a type of its own a body would be taken for a form; the server looks who asks, not for a proof.
    headers = {"Authorization": _WHO} | ({"Content-Type": "application/xml"} if body else {})
    request = urllib.request.Request(SERVER + path, data=body, headers=headers, method=method)
    with urllib.request.urlopen(request, timeout=_SECONDS) as answer:
        return bytes(answer.read())
