"""Whose word counts for a remote: which of its options are followed, and whether the user's own credentials
may go where it leads.

A repository's configuration is written by whoever commits to it. What the user wrote himself is in the
global and system files, and in the `config.local` of a repository that is his, unless that is in git. A
repository is trusted as DVC trusts it if it is the user's own, or if he said so (`--trust`); one of another
owner or a clone is not.

    option, by who wrote it        user himself    trusted repository    repository that is not trusted
    runs a command                 yes             no                    no
    names a file, a profile        yes             yes                   no
      of AWS's, with commands        run             not run
    uses agents, Kerberos          yes             yes                   no
    weakens TLS, picks identity    yes             yes                   unless ambient credentials go there
    anything else                  if it stays     yes                   yes

    "stays": what the user wrote for a remote counts only where he sent it. A repository that is not trusted
    and gives the remote of that name another url does not get his password for it.

    the remote's destination       trusted repository    repository that is not trusted
    named by the user himself      ambient               ambient
    a directory in the repository  ambient               without credentials
    another directory              ambient               left out
    another host                   ambient               without credentials

A destination is what credentials are good for: scheme and host; of S3 endpoint and bucket; of Google Cloud
and Azure bucket or container, with account and endpoint.

Callers: `store.dvc.remotes`. Pure functions, any thread.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Set
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final
from urllib.parse import urlsplit

from store.dvc.config import Level, Setting

COMMANDS: Final = frozenset({"bearer_token_command", "proxy_command", "proxycommand"})
FILES: Final = frozenset(
    {
        *("credentialpath", "configpath", "keyfile", "cert_path", "key_path", "profile"),
        *("gdrive_user_credentials_file", "gdrive_service_account_json_file_path"),
    }
)
"""Name files of the user's, or what is in one."""
COMMAND_FILES: Final = frozenset({"credentialpath", "configpath"})
"""Of these, files that may have commands in them (AWS's `credential_process`)."""
SURROUNDINGS: Final = frozenset({"gss_auth", "allow_agent", "kerberos", "kerberos_principal", "kerb_ticket"})
WEAKENING: Final = frozenset({"ssl_verify", "use_ssl", "tenant_id", "client_id", "custom_auth_header"})
"""Harmless, unless credentials of the user's are sent."""

_OWN_LEVELS: Final = frozenset({Level.GLOBAL, Level.SYSTEM})
_PORTS: Final = {"http": 80, "webdav": 80, "https": 443, "webdavs": 443, "ssh": 22}
_VERIFY_SWITCHES: Final = frozenset({"true", "false"})

Destination = tuple[str, ...]
"""What credentials are good for; equal ones are the same place. Of a directory: ("", path)."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What is known of the repository that configures a remote, and of its user."""

    own: bool
    """It is the user's own: he, or root, owns its files, and they were not cloned for this."""
    trusted: bool
    """He said that it is to be trusted like his own."""
    root: str = ""
    """Its directory; empty for one that is not on this machine."""
    named: Set[Destination] = frozenset()
    """Where the remotes of the user's own configuration lead."""
    shares_local: bool = False
    """Its `config.local` is in git, and so its own word and not the user's."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A remote as all configuration files together have it."""

    options: Mapping[str, Setting]
    """With `url`. Every value is text."""
    meant_for: Mapping[str, Destination | None]
    """Option that the user himself wrote → where his own configuration sends it; None for nowhere."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What of a remote is followed."""

    options: Mapping[str, str]
    """Without `url`."""
    ambient: bool
    ignored: Mapping[str, str]
    """Option → why it is not followed."""
    may_run: bool = True
    """May commands be run that stand in files which its options name?"""
    refusal: str = ""
    """Why the remote as a whole is left out; empty where it is not."""


def judge(candidate: Candidate, standing: Standing) -> Judgement:
    """Apply the table."""
    values = {name: str(setting.value) for name, setting in candidate.options.items()}
    goal = destination(values.get("url", ""), values)
    trusted = standing.own or standing.trusted
    ambient = trusted or _is_named(goal, standing.named)
    if not ambient and goal[0] == "" and not _lies_in(goal[1], standing.root):
        return Judgement({}, False, {}, refusal="it is a directory outside of a repository that is not yours")
    ignored: dict[str, str] = {}
    may_run = True
    for name, setting in candidate.options.items():
        if name == "url":
            continue
        is_local = setting.level is Level.LOCAL and standing.own and not standing.shares_local
        by_user = setting.level in _OWN_LEVELS or is_local
        if by_user:
            if not trusted and candidate.meant_for.get(name) != goal:
                ignored[name] = "you wrote it for another place than this repository names"
        elif name in COMMANDS:
            ignored[name] = "a command counts only from your own configuration (`dvc config --global`)"
        elif not trusted:
            fault = _fault(name, str(setting.value), ambient=ambient)
            if fault:
                ignored[name] = fault
        elif name in COMMAND_FILES:
            may_run = False
    kept = {name: value for name, value in values.items() if name != "url" and name not in ignored}
    return Judgement(kept, ambient, ignored, may_run)


def _fault(name: str, value: str, *, ambient: bool) -> str:
    """Why an option of a repository that is not trusted is not followed, or nothing."""
    if name in FILES:
        return "it names a file or profile of yours"
    if name in SURROUNDINGS:
        return "it would use credentials of yours"
    if name == "ssl_verify" and value.lower() not in _VERIFY_SWITCHES:
        return "it names a file of yours"
    if name in WEAKENING and ambient:
        return "it would weaken how credentials of yours are sent"
    return ""


def destination(url: str, options: Mapping[str, str]) -> Destination:
    """Where a remote of that URL and these options leads. Of a URL that is none: one that nobody names."""
    scheme, separator, rest = url.partition("://")
    if not separator or scheme.lower() == "file":
        return ("", str(PurePosixPath(rest if separator else url)))
    scheme = scheme.lower()
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").lower(), parts.port
    except ValueError:
        return ("invalid", url)
    if scheme in ("s3", "gs"):
        return (scheme, _endpoint(options.get("endpointurl", "")), host)
    if scheme == "azure":
        return (scheme, _account(options), host)
    if scheme == "ssh" and port is None and options.get("port", "").isdigit():
        port = int(options["port"])
    return (scheme, host, str(port or _PORTS.get(scheme, 0)))


def _endpoint(url: str) -> str:
    """An endpoint in one way of writing it; empty for the provider's own."""
    if not url:
        return ""
    try:
        parts = urlsplit(url)
        port = parts.port or _PORTS.get(parts.scheme.lower(), 0)
    except ValueError:
        return url
    return f"{parts.scheme.lower()}://{(parts.hostname or '').lower()}:{port}{parts.path.rstrip('/')}"


def _account(options: Mapping[str, str]) -> str:
    """The account of Azure that is meant, with its endpoint; empty for that of the surroundings."""
    text = options.get("connection_string", "")
    if not text:
        return options.get("account_name", "").lower()
    fields = dict(re.findall(r"([A-Za-z]+)=([^;]*)", text))
    chosen = ("AccountName", "BlobEndpoint", "EndpointSuffix", "UseDevelopmentStorage")
    if not any(name in fields for name in chosen):
        return text
    parts = [f"{name}={fields[name].lower().rstrip('/')}" for name in chosen[1:] if fields.get(name)]
    plain = parts == [] or parts == ["EndpointSuffix=core.windows.net"]
    account = fields.get("AccountName", "").lower()
    return account if plain else ";".join([account, *parts])


def _is_named(goal: Destination, named: Set[Destination]) -> bool:
    """Of directories, those within one that is named are named, too."""
    return goal in named or (
        goal[0] == "" and any(known[0] == "" and _lies_in(goal[1], known[1]) for known in named)
    )


def _lies_in(path: str, directory: str) -> bool:
    """As written: links are not followed, and `..` is refused."""
    inner = PurePosixPath(path)
    return bool(directory) and ".." not in inner.parts and inner.is_relative_to(directory)
