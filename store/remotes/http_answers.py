"""What HTTP servers and connections say → `RemoteError`, in lines of our own; and the heads of answers.

No line has anything in it that a server sent or a URL that may hold a secret. Pure functions, any thread.
"""

from __future__ import annotations

import email.utils
import http.client
import os
import re
import ssl
import time
from collections.abc import Mapping
from typing import Final

from urllib3 import exceptions

from store.errors import (
    RemoteCorrupt,
    RemoteCut,
    RemoteDenied,
    RemoteError,
    RemoteFull,
    RemoteMissing,
    RemoteSlow,
    RemoteUnreachable,
)

LONGEST_WAIT: Final = 86400.0
"""Seconds that a server may ask us to wait; nobody listens to more."""
_RANGE: Final = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)")
_NO_RANGE: Final = re.compile(r"bytes \*/(\d{1,19})")
_TUNNEL: Final = re.compile(r"Tunnel connection failed: (\d{3})")
_EXPIRED: Final = 10  # X509_V_ERR_CERT_HAS_EXPIRED
_ANOTHER_HOST: Final = frozenset({62, 64})  # X509_V_ERR_{HOSTNAME,IP_ADDRESS}_MISMATCH


def error_of_status(
    status: int, headers: Mapping[str, str], who: str, what: str, *, hint: str = "", verb: str = "read"
) -> RemoteError:
    """For an answer that is not the one hoped for; `hint` is added to a denial."""
    if status in (404, 410):
        return RemoteMissing(f"{who} has no {what}")
    if status in (401, 403):
        return RemoteDenied(f"{who} does not let us {verb} {what}: status {status}{hint}")
    if status == 407:
        return RemoteDenied(f"the proxy on the way to {who} wants credentials")
    if status in (429, 503):
        wait = retry_after(headers.get("Retry-After", ""))
        return RemoteSlow(f"{who} asks us to wait (status {status})", wait)
    if status in (408, 504):
        return RemoteSlow(f"{who} did not answer in time for {what} (status {status})")
    if status in (413, 507):
        return RemoteFull(f"{who} has no room for {what} (status {status})")
    if status == 412:
        return RemoteCorrupt(f"{who}: {what} has changed since it was first read")
    if status == 416:
        return RemoteCorrupt(f"{who} does not have that much of {what}")
    return RemoteUnreachable(f"{who} failed with status {status} for {what}")


def error_of_failure(error: BaseException, who: str, what: str) -> RemoteError:
    """For what urllib3 raised while the answer, or a part of it, was waited for."""
    if isinstance(error, exceptions.ProxyError):
        tunnel = _TUNNEL.search(str(error.original_error))
        if tunnel and tunnel[1] in ("401", "403", "407"):
            return RemoteDenied(f"the proxy on the way to {who} does not let us: status {tunnel[1]}")
        return RemoteUnreachable(f"the proxy on the way to {who} does not lead there")
    if isinstance(error, exceptions.NameResolutionError):
        return RemoteUnreachable(f"{who} cannot be reached: the name of its host is not known")
    if isinstance(error, exceptions.NewConnectionError):
        code = error.__cause__.errno if isinstance(error.__cause__, OSError) else None
        reason = os.strerror(code).lower() if code else "no connection"
        return RemoteUnreachable(f"{who} cannot be reached: {reason}")
    if isinstance(error, exceptions.TimeoutError | TimeoutError):
        return RemoteSlow(f"{who} did not answer in time for {what}")
    for cause in (*error.args, error.__cause__):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return RemoteUnreachable(f"{who} {_certificate_fault(cause)}")
        if isinstance(cause, TimeoutError):
            return RemoteSlow(f"{who} did not answer in time for {what}")
        if isinstance(cause, http.client.IncompleteRead):
            return RemoteCut(f"{who} ended its answer for {what} too early")
    if isinstance(error, exceptions.SSLError | ssl.SSLError):
        return RemoteUnreachable(f"{who} cannot be reached: TLS failed")
    return RemoteUnreachable(f"{who} broke the connection, or answered what cannot be understood")


def _certificate_fault(error: ssl.SSLCertVerificationError) -> str:
    if error.verify_code == _EXPIRED:
        return "shows a certificate that has expired"
    if error.verify_code in _ANOTHER_HOST:
        return "shows a certificate of another host"
    return "shows a certificate that is not trusted (`ssl_verify` may name a CA)"


def retry_after(value: str) -> float:
    """Seconds to wait, given as such or as a date; 0 for what is neither."""
    value = value.strip()
    if value.isascii() and value.isdigit():
        return min(float(value[:12]), LONGEST_WAIT)
    try:
        seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
    except (ValueError, TypeError, OverflowError):
        return 0.0
    return min(max(seconds, 0.0), LONGEST_WAIT)


def length_of(headers: Mapping[str, str]) -> int:
    """`Content-Length`; -1 where there is none that could be one."""
    value = headers.get("Content-Length", "").strip()
    return int(value) if value.isascii() and value.isdigit() and len(value) < 20 else -1


def range_of(headers: Mapping[str, str]) -> tuple[int, int, int] | None:
    """`Content-Range`: (first byte, length, size of the whole or -1). None where there is no sound one."""
    found = _RANGE.fullmatch(headers.get("Content-Range", "").strip())
    if not found:
        return None
    first, last = int(found[1]), int(found[2])
    whole = -1 if found[3] == "*" else int(found[3])
    if last < first or (whole >= 0 and last >= whole):
        return None
    return first, last - first + 1, whole


def size_refused(headers: Mapping[str, str]) -> int:
    """The size that a 416 tells; -1 where it does not."""
    found = _NO_RANGE.fullmatch(headers.get("Content-Range", "").strip())
    return int(found[1]) if found else -1


def strong_tag(headers: Mapping[str, str]) -> str:
    """The entity tag, if equal ones have equal bytes."""
    tag = headers.get("ETag", "").strip()
    return tag if re.fullmatch(r'"[\x21\x23-\x7e]{1,200}"', tag) else ""


def is_transformed(headers: Mapping[str, str]) -> bool:
    """Are the bytes of the answer other than those of the object?"""
    return headers.get("Content-Encoding", "").strip().lower() not in ("", "identity")
