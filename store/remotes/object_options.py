"""DVC's options that the object stores have in common → what obstore takes.

Pure functions, but for reading a file of certificate authorities; any thread.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal
from urllib.parse import urlsplit

from store.errors import InputError
from store.remotes.spec import RemoteSpec
from store.remotes.storage import Limits

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig

ANSWER_SECONDS: Final = 180.0
"""One answer takes no longer, so that a server that drips does not keep a thread: 8 MiB, the largest range
that is asked for, come within it at 50 kB a second."""

Use = Literal["bodies", "questions", "uploads"]
"""What one HTTP client of a store is for."""

NO_RETRIES: Final[RetryConfig] = {"max_retries": 0, "retry_timeout": timedelta(seconds=1)}
"""Whoever calls decides whether to ask again."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """Where in a store a remote lies."""

    name: str
    prefix: str
    """What its keys begin with: empty, or ending with `/`."""


@dataclass(frozen=True, slots=True)
class Trust:
    """Whose certificates are believed."""

    verify: bool = True
    authorities: bytes = b""
    """PEM; trusted beside the system's own."""


def bucket_of(spec: RemoteSpec) -> Bucket:
    """The bucket and prefix of `scheme://bucket/prefix`, where nothing is percent-encoded.

    Raises `InputError`.
    """
    name, _, path = spec.url.partition("://")[2].partition("/")
    path = path.strip("/")
    if not name or any(character in name for character in "@?#\\ "):
        raise InputError(f"remote {spec.name}: its URL names no bucket or container")
    if path and not {"", ".", ".."}.isdisjoint(path.split("/")):
        raise InputError(f"remote {spec.name}: `//`, `.` and `..` in the path of an object store do not work")
    return Bucket(name, f"{path}/" if path else "")


def switch(spec: RemoteSpec, option: str, default: bool = False) -> bool:
    """A boolean as DVC reads it. Raises `InputError`."""
    text = spec.options.get(option, "").lower()
    if text in ("true", "yes", "on", "1"):
        return True
    if text in ("false", "no", "off", "0"):
        return False
    if text:
        raise InputError(f"remote {spec.name}: `{option}` must be true or false")
    return default


def narrowed(spec: RemoteSpec, limits: Limits, connect: str, *reads: str) -> Limits:
    """`limits`, lowered by the remote's own timeouts, in seconds. Raises `InputError`."""
    limits = replace(limits, connect=min(limits.connect, _seconds(spec, connect)))
    for option in reads:
        seconds = _seconds(spec, option)
        limits = replace(limits, first_byte=min(limits.first_byte, seconds), stall=min(limits.stall, seconds))
    return limits


def _seconds(spec: RemoteSpec, option: str) -> float:
    text = spec.options.get(option, "")
    if not text:
        return float("inf")
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not seconds > 0:
        raise InputError(f"remote {spec.name}: `{option}` must be a number of seconds")
    return seconds


def endpoint_of(spec: RemoteSpec, url: str) -> str:
    """A configured endpoint, fit to be given to obstore. Raises `InputError`."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise InputError(f"remote {spec.name}: its endpoint must be http://HOST or https://HOST")
    if parts.username or parts.password:
        raise InputError(f"remote {spec.name}: its endpoint must hold no user name or password")
    return url.rstrip("/")


def trust_of(spec: RemoteSpec) -> Trust:
    """What `ssl_verify` asks for: true, false, or a file of authorities. Raises `InputError`."""
    value = spec.options.get("ssl_verify", "")
    if value.lower() in ("", "true", "yes", "on", "1", "false", "no", "off", "0"):
        return Trust(switch(spec, "ssl_verify", True))
    return Trust(authorities=authorities_in(spec, value))


def authorities_in(spec: RemoteSpec, path: str) -> bytes:
    """The PEM certificates in a file. Raises `InputError`."""
    try:
        data = Path(path).expanduser().read_bytes()
    except (OSError, ValueError, RuntimeError):
        data = b""
    if b"-----BEGIN CERTIFICATE-----" not in data:
        raise InputError(
            f"remote {spec.name}: the CA file of `ssl_verify` holds no certificates or is not there"
        )
    return data


def client_options(limits: Limits, trust: Trust, *, plain_http: bool, use: Use = "bodies") -> ClientConfig:
    """What the HTTP client of a store is made with.

    Of a request that sends something nothing is told until its answer begins, so for `uploads` that is the
    only limit.

    obstore has one time for the wait before the first byte and for that between two parts: the shorter of
    the two limits. Every setting is given, since one that is not may come from the environment.
    """
    wait = min(limits.first_byte, limits.stall)
    whole = limits.connect + limits.first_byte + limits.stall if use == "questions" else ANSWER_SECONDS
    if use == "uploads":
        wait, whole = limits.upload, limits.connect + limits.upload
    options: ClientConfig = {
        "allow_http": plain_http,
        "allow_invalid_certificates": not trust.verify,
        "connect_timeout": timedelta(seconds=limits.connect),
        "read_timeout": timedelta(seconds=wait),
        "timeout": timedelta(seconds=whole),
        "user_agent": "fusefs",
    }
    if trust.authorities:
        options["root_certificate"] = trust.authorities
    return options


def unused(spec: RemoteSpec, options: Iterable[str]) -> str:
    """For a denial: that credentials were configured (by `options`), or around, and were not used."""
    if spec.ambient:
        return ""
    named = [option for option in options if option in spec.options]
    what = f"`{named[0]}` and the user's own credentials are" if named else "the user's own credentials are"
    return f" ({what} not used for it without --trust)"
