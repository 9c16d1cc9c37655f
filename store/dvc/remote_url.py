"""URLs of remotes: what may be shown of them, and what is to be an option instead.

Callers: `store.dvc.remotes`. Pure functions, any thread.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

from store.errors import InputError

SCHEMES: Final = ("s3", "gs", "azure", "http", "https", "webdav", "webdavs", "ssh")
"""Besides directories of this machine."""
_BUCKETS: Final = frozenset({"s3", "gs", "azure"})
_SHOWN: Final = 200
"""Characters."""


@dataclass(frozen=True, slots=True)
class RemoteUrl:
    """A remote's place. `scheme` is empty for a directory, whose `url` is its absolute path."""

    scheme: str
    url: str
    """Without user name, password and query."""
    options: Mapping[str, str] = field(default_factory=dict, repr=False)
    """What stood in it besides."""

    @property
    def shown(self) -> str:
        return show_name(self.url)


def parse_remote_url(text: str, *, with_query: bool = False) -> RemoteUrl:
    """Parse what a configuration or a user says for a remote's place.

    A path must be absolute. With `with_query` a bucket's URL may have options in its query
    (`s3://bucket/path?endpointurl=http://localhost:9000`). Raises `InputError`, which shows no secret.
    """
    if not text.isprintable() or text != text.strip():
        raise InputError("its url holds characters that cannot be shown")
    scheme, separator, rest = text.partition("://")
    scheme = scheme.lower()
    if not separator:
        return RemoteUrl("", _absolute(text))
    if scheme == "file":
        return RemoteUrl("", _absolute(unquote(rest.removeprefix("localhost"))))
    if scheme not in SCHEMES:
        raise InputError(
            f"remotes of the kind {show_name(scheme)}:// are not supported; "
            f"directories and {', '.join(SCHEMES)} are"
        )
    options: dict[str, str] = {}
    if scheme not in _BUCKETS or with_query:
        rest, question, query = rest.partition("?")
        if question and (scheme not in _BUCKETS or not with_query):
            raise InputError("its url has a query, behind which no object could be named")
        options.update({name.lower(): value for name, value in parse_qsl(query, keep_blank_values=True)})
    # A password may hold anything, slashes too: as in addresses everywhere it ends at the last `@`
    # before the first slash.
    site, slash, path = rest.partition("/")
    user_info, at, host = site.rpartition("@")
    try:
        _ = urlsplit(f"{scheme}://{host}").port
    except ValueError:
        raise InputError("its url has no valid host") from None
    if not host or host.startswith("-") or user_info.startswith("-"):
        raise InputError("its url names no host or bucket")
    if at:
        user, colon, password = user_info.partition(":")
        options.update({"user": unquote(user)} if user else {})
        options.update({"password": unquote(password)} if colon else {})
    return RemoteUrl(scheme, f"{scheme}://{host}{slash}{path}", options)


def show_name(text: str) -> str:
    """A name or URL of a configuration as it may stand in a line of text, without secrets."""
    scheme, separator, rest = text.partition("://")
    if separator:
        site, slash, path = rest.partition("?")[0].partition("/")
        text = f"{scheme}://{site.rpartition('@')[2]}{slash}{path}"
    shown = text if text.isprintable() else ascii(text)[1:-1]
    return shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}…"


def _absolute(text: str) -> str:
    if not text.startswith("/"):
        raise InputError("its url is a relative path, and there is no directory that it is relative to")
    return os.path.normpath(text)
