"""How to log in to an SSH remote: DVC's options → asyncssh's, and what asyncssh raises → `RemoteError`.

The user's ssh configuration, agent and default keys are used only where the remote may use the user's
surroundings; a `ProxyCommand` can come from nowhere else. A host's key must always be in the user's or the
system's known_hosts: an unknown host is refused, whatever a configuration says.

Blocking (files, keys); any thread.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import asyncssh

from store.errors import (
    InputError,
    RemoteCorrupt,
    RemoteDenied,
    RemoteError,
    RemoteFull,
    RemoteMissing,
    RemoteSlow,
    RemoteUnreachable,
)
from store.remotes.object_options import switch
from store.remotes.spec import RemoteSpec
from store.remotes.storage import Limits

asyncssh.set_log_level(logging.CRITICAL)  # what goes wrong is raised, and told by whoever asked

_UNSAFE_HOST: Final = re.compile(r"""^-|[\s\x00-\x1f'"`$\\;&<>|(){}]""")
_UNSAFE_USER: Final = re.compile(r"""^-|[\s\x00-\x1f'"`;&<>|(){}]|\\$""")
"""What would be more than a word, should the user's `ProxyCommand` hand `%h` or `%r` to a shell: a repository
says them. As ssh itself has it."""
_MISSING: Final = (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath, asyncssh.SFTPNotADirectory)
_FULL: Final = (asyncssh.SFTPNoSpaceOnFilesystem, asyncssh.SFTPQuotaExceeded)
LOST: Final = (asyncssh.DisconnectError, asyncssh.SFTPConnectionLost, asyncssh.SFTPNoConnection, OSError)
"""What is raised when a connection that was well is so no more."""


def login_options(spec: RemoteSpec, limits: Limits) -> Mapping[str, Any]:
    """Everything that `asyncssh.connect` is to be given. It holds secrets. Raises `InputError`.

    Not its own object for options: that one reads the user's configuration again when it connects.
    """
    options: dict[str, Any] = {
        "host": _host(spec),
        "connect_timeout": limits.connect,
        "login_timeout": limits.connect + limits.first_byte,
        "keepalive_interval": max(limits.stall / 2, 0.1),
        "keepalive_count_max": 2,
        "gss_auth": switch(spec, "gss_auth"),
        "gss_kex": switch(spec, "gss_auth"),
        "x509_trusted_certs": None,
        "x509_trusted_cert_paths": [],
    }
    port = _port(spec)
    if port:
        options["port"] = port
    user = spec.options.get("user", "")
    if _UNSAFE_USER.search(user):
        raise InputError(f"remote {spec.name}: its `user` is no user's name")
    for ours, theirs in (("user", "username"), ("password", "password"), ("passphrase", "passphrase")):
        if spec.options.get(ours):
            options[theirs] = spec.options[ours]
    if spec.options.get("keyfile"):
        options["client_keys"] = [str(Path(spec.options["keyfile"]).expanduser())]
    if not spec.ambient:
        options.update(config=None, agent_path=None)
        options.setdefault("client_keys", None)
    elif not switch(spec, "allow_agent", True):
        options["agent_path"] = None
    try:
        made = asyncssh.SSHClientConnectionOptions(**options)
    except asyncssh.KeyEncryptionError:
        raise InputError(
            f"remote {spec.name}: its `keyfile` is of a kind whose passphrase cannot be used here; "
            "use an agent, or a key in PEM form"
        ) from None
    except asyncssh.KeyImportError:
        asked = " (`ask_passphrase` cannot be asked by a mount)" if switch(spec, "ask_passphrase") else ""
        raise InputError(
            f"remote {spec.name}: its `keyfile` cannot be used; put its `passphrase` into .dvc/config.local "
            f"or use an agent{asked}"
        ) from None
    except (OSError, ValueError, asyncssh.Error):
        raise InputError(
            f"remote {spec.name}: its key, or the ssh configuration for its host, cannot be used"
        ) from None
    if switch(spec, "ask_password") and "password" not in options and not spec.ambient:
        raise InputError(
            f"remote {spec.name}: `ask_password` cannot be asked by a mount; "
            "put its `password` into .dvc/config.local"
        )
    # Nothing is said, or, by the user's configuration, not to look.
    options["known_hosts"] = made.known_hosts or known_hosts()
    return options


def known_hosts() -> list[str]:
    """The files that are there; with none of them, no host is known."""
    places = (Path("~/.ssh/known_hosts"), Path("~/.ssh/known_hosts2"), Path("/etc/ssh/ssh_known_hosts"))
    found = [path.expanduser() for path in places]
    return [str(path) for path in found if os.access(path, os.R_OK)] or [os.devnull]


def error_of(
    error: BaseException, who: str, what: str, host: str, hint: str = "", verb: str = "read"
) -> RemoteError:
    """The error for a call that failed; `hint` is added to a denial of the login."""
    if isinstance(error, asyncssh.HostKeyNotVerifiable):
        return RemoteDenied(
            f"{who}: the key of its host is not in known_hosts, or is another one; "
            f"connect once with `ssh {host}` to see to it"
        )
    if isinstance(error, asyncssh.PermissionDenied):
        return RemoteDenied(f"{who} does not let us in: no key or password is accepted{hint}")
    if isinstance(error, _MISSING):
        return RemoteMissing(f"{who} has no {what}")
    if isinstance(error, asyncssh.SFTPPermissionDenied):
        return RemoteDenied(f"{who} does not let us {verb} {what}")
    if isinstance(error, _FULL):
        return RemoteFull(f"{who} has no room for {what}")
    if isinstance(error, asyncssh.SFTPEOFError):
        return RemoteCorrupt(f"{who}: {what} became shorter while it was read")
    if isinstance(error, TimeoutError | asyncio.TimeoutError):
        return RemoteSlow(f"{who} did not answer in time for {what}")
    if isinstance(error, LOST) and not isinstance(error, asyncssh.SFTPError):
        if isinstance(error, socket.gaierror):
            return RemoteUnreachable(f"{who} cannot be reached: the name of its host is not known")
        code = error.errno if isinstance(error, OSError) else None
        reason = os.strerror(code).lower() if code else "the connection broke"
        return RemoteUnreachable(f"{who} cannot be reached: {reason}")
    return RemoteUnreachable(f"{who} failed for {what}")


def _host(spec: RemoteSpec) -> str:
    host = urlsplit(spec.url).hostname
    if not host or _UNSAFE_HOST.search(host):
        raise InputError(f"remote {spec.name}: its URL must be of the form ssh://HOST[:PORT]/PATH")
    return host


def _port(spec: RemoteSpec) -> int:
    """0 where none is said: then the ssh configuration's, or 22."""
    try:
        port = int(spec.options.get("port") or urlsplit(spec.url).port or 0)
    except ValueError:
        port = -1
    if not 0 <= port < 65536:
        raise InputError(f"remote {spec.name}: its port is no port")
    return port
