"""DVC's options for who we are → the headers that say so to an HTTP server. Blocking (netrc); any thread."""

from __future__ import annotations

import netrc
import re
from base64 import b64encode
from urllib.parse import urlsplit

from store.errors import InputError
from store.remotes.object_options import switch
from store.remotes.spec import RemoteSpec


def basic(user: str, password: str) -> dict[str, str]:
    """The header that shows a name and a password."""
    login = f"{user}:{password}"
    try:
        data = login.encode("latin-1")
    except UnicodeError:
        data = login.encode()
    return {"Authorization": "Basic " + b64encode(data).decode()}


def custom(spec: RemoteSpec, name: str, value: str) -> dict[str, str]:
    """A header of the user's own. Raises `InputError`."""
    if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", name) or not re.fullmatch(r"[\t\x20-\x7e]*", value):
        raise InputError(f"remote {spec.name}: `custom_auth_header` or its value is no HTTP header")
    return {name: value}


def required_password(spec: RemoteSpec) -> str:
    """Raises `InputError`: whoever serves a mount cannot ask for it."""
    password = spec.options.get("password")
    if password is None:
        reason = " (`ask_password` cannot be asked by a mount)" if switch(spec, "ask_password") else ""
        raise InputError(f"remote {spec.name}: put its `password` into .dvc/config.local{reason}")
    return password


def from_netrc(spec: RemoteSpec, url: str) -> dict[str, str]:
    """What the user's netrc has for the host, where the user's surroundings may be used."""
    if not spec.ambient:
        return {}
    try:
        found = netrc.netrc().authenticators(urlsplit(url).hostname or "")
    except (OSError, ValueError, netrc.NetrcParseError):
        return {}
    return basic(found[0], found[2]) if found and found[2] else {}


def credentials_of(spec: RemoteSpec) -> dict[str, str]:
    method = spec.options.get("auth", "").lower()
    if not method and "user" in spec.options and "password" in spec.options:
        method = "basic"  # as from a URL that has both
    if not method:
        return from_netrc(spec, spec.url)
    if method == "basic":
        if "user" not in spec.options:
            raise InputError(f"remote {spec.name}: `auth = basic` needs `user`")
        return basic(spec.options["user"], required_password(spec))
    if method == "custom":
        return custom(spec, spec.options.get("custom_auth_header", ""), required_password(spec))
    raise InputError(f"remote {spec.name}: `auth` must be basic or custom, as for DVC")
