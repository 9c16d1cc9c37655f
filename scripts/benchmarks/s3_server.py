"""An S3 server for things that are put, which counts requests; a program.

It prints its port. For each line that it is given, `count` or `forget`, it prints how many requests there
were since the last one; for `forget` it removes everything first. It ends with its standard input.
"""

from __future__ import annotations

import itertools
import os
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any

os.environ |= {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_DEFAULT_REGION": "us-east-1"}

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from moto.s3.models import s3_backends
from werkzeug.serving import WSGIRequestHandler, make_server

BUCKET = "bucket"
ACCOUNT = "123456789012"

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class Quiet(WSGIRequestHandler):
    """Says nothing, and keeps connections."""

    protocol_version = "HTTP/1.1"

    def log(self, type: str, message: str, *arguments: Any) -> None:
        pass


class Counted:
    """An application whose requests are counted."""

    def __init__(self, application: Application) -> None:
        self._application = application
        self._numbers = itertools.count()

    def __call__(self, environment: dict[str, Any], respond: Callable[..., Any]) -> Iterable[bytes]:
        next(self._numbers)
        return self._application(environment, respond)

    def restart(self) -> int:
        numbers, self._numbers = self._numbers, itertools.count()
        return next(numbers)


def make_bucket() -> None:
    backend = s3_backends[ACCOUNT]["aws"]
    backend.reset()
    backend.create_bucket(BUCKET, "us-east-1")


def main() -> None:
    application = Counted(DomainDispatcherApplication(create_backend_app))
    make_bucket()
    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_port, flush=True)
    for line in sys.stdin:
        if line.strip() == "forget":
            make_bucket()
        print(application.restart(), flush=True)


main()
