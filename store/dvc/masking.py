"""What of a configuration may be shown: everything but what lets somebody in.

An option is a secret by its name, so that one which we have never heard of is hidden rather than shown;
the others are shown without passwords in addresses, and without any secret of the same configuration
that was put into them (`%(password)s`).

Callers: the command `config`. Pure; frozen results, any thread.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

MASK: Final = "***"

_SECRET: Final = re.compile(
    r"pass|secret|token|key|credential|connection_string|sas|auth|cookie|ticket|header"
)
_SHOWN: Final = frozenset(
    {
        *("ask_password", "ask_passphrase"),
        *("keyfile", "key_path", "credentialpath", "kerb_ticket"),
        *("gdrive_user_credentials_file", "sse_kms_key_id"),
        *("auth", "custom_auth_header", "gss_auth"),
    }
)
"""Options with such names that hold no secret: switches, paths, and names of methods and headers."""
_HEADER: Final = "custom_auth_header"
"""Names a header; whoever writes the whole of it there has written a password."""
_HEADER_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,60}")
_EXCLUSION: Final = re.compile(r"exclude_\w+_credential")

_ADDRESS: Final = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<rest>[^\s]*)")
_SHORTEST: Final = 4
"""Characters of a secret that is looked for in other values; a shorter one would be found by chance."""


@dataclass(frozen=True, slots=True)
class Masker:
    """Masks the values of one configuration, whose secrets are `secrets`."""

    secrets: tuple[str, ...]

    @classmethod
    def of(cls, options: Iterable[tuple[str, str]]) -> Masker:
        """For a configuration of these options and values."""
        found = {value for option, value in options if is_secret(option) and len(value) >= _SHORTEST}
        return cls(tuple(sorted(found, key=len, reverse=True)))

    def mask(self, option: str, value: str) -> str:
        """The value as it may be shown."""
        if is_secret(option) or (option == _HEADER and not _HEADER_NAME.fullmatch(value)):
            return MASK if value else value
        for secret in self.secrets:
            value = value.replace(secret, MASK)
        return _ADDRESS.sub(_mask_address, value)


def is_secret(option: str) -> bool:
    """Whether an option of that name (lower case) holds a secret."""
    return bool(_SECRET.search(option)) and option not in _SHOWN and not _EXCLUSION.fullmatch(option)


def _mask_address(found: re.Match[str]) -> str:
    """An address without password and without what stands in its query: signatures, tokens."""
    scheme, rest = found["scheme"], found["rest"]
    # A password may hold anything, slashes and question marks too: up to the last `@` it may be one.
    user_info, at, place = rest.rpartition("@")
    if at and ":" in user_info:
        rest = f"{user_info.partition(':')[0]}:{MASK}@{place}"
    elif "@" in re.split(r"[/?#]", rest, maxsplit=1)[0] and scheme.lower().startswith("http"):
        rest = f"{MASK}@{place}"  # a lone name may be a token there; of ssh it is a name
    rest, question, query = rest.partition("?")
    return f"{scheme}://{rest}{question}{MASK if query else ''}"
