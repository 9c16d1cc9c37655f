"""What the user's surroundings say about Azure: environment, the CLI's configuration, and who is logged in.

Only for remotes that may use them (`RemoteSpec.ambient`). Blocking; any thread.
"""

from __future__ import annotations

import configparser
import json
import os
import shutil
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from store.errors import RemoteDenied, RemoteSlow
from store.remotes.spec import RemoteSpec

COMMAND_SECONDS: Final = 60.0
RESOURCE: Final = "https://storage.azure.com"
SPARE_SECONDS: Final = 300.0
"""How long before it runs out a token is renewed."""

_ENVIRONMENT: Final = {
    "connection_string": ("AZURE_STORAGE_CONNECTION_STRING",),
    "account_name": ("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT"),
    "account_key": ("AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_KEY"),
    "sas_token": ("AZURE_STORAGE_SAS_TOKEN",),
    "tenant_id": ("AZURE_STORAGE_TENANT_ID", "AZURE_TENANT_ID"),
    "client_id": ("AZURE_STORAGE_CLIENT_ID", "AZURE_CLIENT_ID"),
    "client_secret": ("AZURE_STORAGE_CLIENT_SECRET", "AZURE_CLIENT_SECRET"),
}
_CONFIGURATION: Final = {
    "connection_string": "connection_string",
    "account_name": "account",
    "account_key": "key",
    "sas_token": "sas_token",
}
_KEYS: Final = ("connection_string", "account_key", "sas_token", "client_secret")


def completed(options: Mapping[str, str], *, principal: bool = True) -> dict[str, str]:
    """The options, and from the surroundings what is missing of them.

    Credentials are not mixed: where the options have some, none are added; and keys that belong to an account
    are not used for another one. `principal` says whether the environment's service principal counts.
    """
    found = {**_from_configuration(), **_from_environment()}
    account = options.get("account_name", "")
    if any(options.get(key) for key in _KEYS):
        found = {name: value for name, value in found.items() if name == "account_name"}
    elif account and account != found.get("account_name", account):
        found = {
            name: value
            for name, value in found.items()
            if name in ("tenant_id", "client_id", "client_secret")
        }
    elif account:
        found.pop("connection_string", None)
    if not principal or not all(found.get(name) for name in ("tenant_id", "client_id", "client_secret")):
        found.pop("client_secret", None)
    return {**found, **{name: value for name, value in options.items() if value}}


def _from_environment() -> dict[str, str]:
    return {
        option: os.environ[name]
        for option, names in _ENVIRONMENT.items()
        for name in reversed(names)
        if os.environ.get(name)
    }


def _directory() -> Path:
    return Path(os.environ.get("AZURE_CONFIG_DIR") or Path.home() / ".azure")


def _from_configuration() -> dict[str, str]:
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read(_directory() / "config")
    except (configparser.Error, OSError, UnicodeDecodeError):
        return {}
    values = {option: parser.get("storage", name, fallback="") for option, name in _CONFIGURATION.items()}
    return {option: value for option, value in values.items() if value}


@dataclass(frozen=True, slots=True)
class CommandLine:
    """Whoever is logged in with `az`. Run by us, with a deadline: obstore would wait for it without end."""

    who: str
    path: str
    tenant: str

    @classmethod
    def find(cls, spec: RemoteSpec) -> CommandLine | None:
        """None where there is no `az`, or nobody is logged in."""
        path = shutil.which("az")
        if path is None or not (_directory() / "azureProfile.json").exists():
            return None
        return cls(f"remote {spec.name}", path, spec.options.get("tenant_id", ""))

    def credential(self) -> tuple[Any, float]:
        """A token as obstore takes it, and until when not to ask again. Raises `RemoteError`."""
        tenant = ["--tenant", self.tenant] if self.tenant else []
        command = [
            self.path,
            "account",
            "get-access-token",
            "--resource",
            RESOURCE,
            "--output",
            "json",
            *tenant,
        ]
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, timeout=COMMAND_SECONDS, check=True
            )
            answer = json.loads(done.stdout)
            token, ends = str(answer["accessToken"]), _ends(answer)
        except subprocess.TimeoutExpired:
            raise RemoteSlow(f"{self.who}: `az account get-access-token` did not answer in time") from None
        except (subprocess.SubprocessError, OSError, ValueError, KeyError, TypeError):
            raise RemoteDenied(f"{self.who}: `az` gives no token: `az login` may help") from None
        return {"token": token, "expires_at": datetime.fromtimestamp(ends, UTC)}, ends - SPARE_SECONDS


def _ends(answer: Mapping[str, Any]) -> float:
    """When a token runs out, in seconds of `time.time`; older commands say it in local time."""
    if "expires_on" in answer:
        return float(answer["expires_on"])
    return time.mktime(datetime.fromisoformat(answer["expiresOn"]).timetuple())
