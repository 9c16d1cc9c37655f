"""The ADDRESS of `--metrics`: where Prometheus' text is served.

Pure. Read by the command and by the daemon.
"""

from __future__ import annotations

import ipaddress
import os
import re
from pathlib import Path
from typing import Final

LOOPBACK: Final = "127.0.0.1"
UNIX: Final = "unix:"
UNIX_BYTES: Final = 107
"""The longest name of a Unix socket."""
_HOST_PORT: Final = re.compile(r"(?:(?P<host>[^:\[\]]+|\[[^\[\]]+\]):)?(?P<port>[0-9]{1,5})")


def parse_metrics(text: str) -> str:
    """`HOST:PORT`, `PORT` (of 127.0.0.1) or `unix:PATH`, settled. Port 0 is any free one. Raises ValueError.

    HOST is an IP address, of version 6 in brackets, or `localhost`: a name would have to be looked up.
    """
    if text.startswith(UNIX):
        path = str(Path(text.removeprefix(UNIX)).expanduser().absolute())
        if text == UNIX or "\0" in path or len(os.fsencode(path)) > UNIX_BYTES:
            raise ValueError(f"{text!r} does not name a socket of at most {UNIX_BYTES} bytes")
        return UNIX + path
    found = _HOST_PORT.fullmatch(text)
    if not found or int(found["port"]) > 65535:
        raise ValueError(f"{text!r} is not an address; addresses look like 9100, 0.0.0.0:9100 or unix:PATH")
    host = (found["host"] or LOOPBACK).strip("[]")
    try:
        address = ipaddress.ip_address(LOOPBACK if host == "localhost" else host)
    except ValueError:
        raise ValueError(f"{text!r}: {host} is neither an IP address nor localhost") from None
    return join_host(str(address), int(found["port"]))


def join_host(host: str, port: int) -> str:
    """As people write it."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def split_host(address: str) -> tuple[str, int]:
    """The two parts of what `parse_metrics` gave."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)
