"""Where a repository is: what may be said for it, and what of that may be written and printed.

Anything else than https, http, ssh, git, file and paths is refused: `ext::` and its kin are commands.
A password never stays in the address: `Location.url` is fit for a file, an error and a log.

Callers: `store.git.clones`, and whoever shows an address. Pure but for one look whether a path exists.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from store.errors import RepositoryUnusable
from store.git.command import Secret, printable

_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_HELPER: Final = re.compile(r"[A-Za-z0-9+.-]*::")
_HOST_AND_PATH: Final = re.compile(r"(?:([^/:@]+)@)?([^/:@]+|\[[0-9A-Fa-f:.]+\]):(?!/?/)?(.+)")
_USER_INFO: Final = re.compile(r"(?<=://)[^/\s@]*@")
_TRANSPORTS: Final = frozenset({"https", "http", "ssh", "git"})

_ANSWER: Final = (
    "!f() { test \"$1\" = get && printf 'username=%s\\npassword=%s\\n'"
    ' "$FUSEFS_GIT_USERNAME" "$FUSEFS_GIT_PASSWORD"; }; f'
)
"""What git runs to be told the password; the words are ours, the values come by the environment."""


@dataclass(frozen=True, slots=True)
class Location:
    """A repository's place; `local` if it is on this machine."""

    url: str
    """Without secrets."""
    local: Path | None = None
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)

    def secret(self) -> Secret | None:
        """What tells git the name and password that were in the address, for one command."""
        if self.username is None:
            return None
        scheme, rest = self.url.split("://", 1)
        site = f"credential.{scheme}://{rest.partition('/')[0]}"
        if self.password is None:
            return Secret(((f"{site}.username", self.username),), {})
        # The empty one takes the user's own helpers away: they would keep what is asked for here.
        return Secret(
            (("credential.helper", ""), (f"{site}.helper", _ANSWER)),
            {"FUSEFS_GIT_USERNAME": self.username, "FUSEFS_GIT_PASSWORD": self.password},
        )

    def conceal(self, text: str) -> str:
        """`text` without this place's password, however it is written, and without any in addresses."""
        words = {self.password or ""}
        if self.password in (None, "", "x-oauth-basic"):  # then the name is what must not be known
            words.add(self.username or "")
        for word in words - {""}:
            for written in (word, quote(word, safe="")):
                text = text.replace(written, "***")
        return without_secrets(text)


def without_secrets(text: str) -> str:
    """`text` with what stands before `@` in addresses taken out."""
    return _USER_INFO.sub("", text)


def parse_location(text: str, directory: Path) -> Location:
    """Parse what a user or a metafile says for a repository; paths are relative to `directory`.

    Raises `RepositoryUnusable` for what is none, or could run something.
    """
    if not text or text != text.strip() or any(not character.isprintable() for character in text):
        raise _refused(text, "it is empty or holds characters that cannot be shown")
    if text.startswith("-"):
        raise _refused(text, "it looks like an option")
    if _HELPER.match(text):
        raise _refused(text, "addresses with `::` run a program")
    if match := _SCHEME.match(text):
        return _parse_url(text, match[1].lower())
    path = directory / text
    if not path.exists() and (match := _HOST_AND_PATH.fullmatch(text)):
        user, host, rest = match.groups()
        if host.startswith("-") or (user or "").startswith("-"):
            raise _refused(text, "the host looks like an option")
        return Location(f"{user}@{host}:{rest}" if user else f"{host}:{rest}")
    return Location(str(path), path)


def _parse_url(text: str, scheme: str) -> Location:
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise _refused(text, "it is no URL") from None
    if scheme == "file":
        path = Path(unquote(parts.path))
        if host not in (None, "", "localhost") or not path.is_absolute():
            raise _refused(text, "a file URL is file:///PATH")
        return Location(str(path), path)
    if scheme not in _TRANSPORTS:
        raise _refused(text, "only https, http, ssh, git, file and paths are")
    if not host or host.startswith("-") or (parts.username or "").startswith("-"):
        raise _refused(text, "it names no host")
    site = parts.netloc.rpartition("@")[2]
    if scheme == "ssh":
        # The name is no secret, and ssh needs it; it takes no password from an address.
        site = f"{parts.username}@{site}" if parts.username else site
        return Location(urlunsplit((scheme, site, parts.path, parts.query, parts.fragment)))
    url = urlunsplit((scheme, site, parts.path, parts.query, parts.fragment))
    return Location(url, None, _unquoted(text, parts.username), _unquoted(text, parts.password))


def _unquoted(text: str, value: str | None) -> str | None:
    if not value and value is not None:
        return ""
    plain = unquote(value) if value else None
    if plain is not None and any(character < " " for character in plain):
        raise _refused(text, "its user or password holds control characters")
    return plain


def _refused(text: str, why: str) -> RepositoryUnusable:
    return RepositoryUnusable(f"{printable(without_secrets(text), 200)!r} is no repository's address: {why}")
