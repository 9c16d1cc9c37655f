"""`RemoteSpec`: a remote as it is configured, settled: what it takes to open it and nothing else.

Made by `store.dvc.remotes` and from URLs; opened by `store.remotes.opening`. Travels in a daemon's plan
and in a resolver's answer, always by a pipe: `options` may hold secrets, so it is neither shown nor kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from store.oid import Oid

DVC_LAYOUT: Final = "dvc"
"""Objects by their hash, as in a cache (`store.layouts`)."""
VERSIONED_LAYOUT: Final = "versioned"
"""Files by their path and the storage's own version (`version_aware`, `worktree`)."""


@dataclass(frozen=True, slots=True)
class RemoteSpec:
    """A remote's place and the options that count."""

    name: str
    """As its section is called, or the URL that the user gave; fit to be shown."""
    url: str
    """Without user name and password; a local path is absolute."""
    options: Mapping[str, str] = field(default_factory=dict, repr=False)
    """DVC's options but `url`, by their names in lower case; only those that may be followed."""
    ambient: bool = False
    """May the credentials of the user's surroundings be used (environment, profiles, agents, netrc)?"""
    layout: str = DVC_LAYOUT
    addresses: Mapping[str, tuple[str, str]] = field(default_factory=dict, repr=False)
    """For `VERSIONED_LAYOUT`: an oid as DVC prints it → path below `url`, and version."""
    may_run: bool = True
    """May files that the options name have commands run (AWS's `credential_process`)?"""
    manifests: tuple[Oid, ...] = field(default=(), repr=False)
    """Those of the version that it is a remote of, whose catalogues it may have (`store.contents`)."""

    @property
    def identity(self) -> str:
        """Tells this remote from others of its name, and is no secret."""
        return f"{self.name} {hashlib.sha256(self.url.encode('utf-8', 'surrogateescape')).hexdigest()[:16]}"

    def to_wire(self) -> dict[str, Any]:
        """Plain values, for msgpack and JSON."""
        return {
            "name": self.name,
            "url": self.url,
            "options": dict(self.options),
            "ambient": self.ambient,
            "layout": self.layout,
            "addresses": {oid: list(address) for oid, address in self.addresses.items()},
            "may_run": self.may_run,
            "manifests": [[str(oid), oid.algorithm] for oid in self.manifests],
        }

    @classmethod
    def from_wire(cls, fields: Mapping[str, Any]) -> RemoteSpec:
        addresses = {oid: (path, version) for oid, (path, version) in fields["addresses"].items()}
        manifests = tuple(Oid.parse(text, algorithm) for text, algorithm in fields["manifests"])
        return cls(**{**fields, "addresses": addresses, "manifests": manifests})
