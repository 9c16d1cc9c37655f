"""Azure's blob storage: DVC's options → an `ObjectStorage`. Blocking; any thread.

Who reads: a connection string, an account key, a shared access signature or a service principal of the
remote's own; else, where the surroundings may be used, those of the environment and of the Azure CLI's
configuration, a federated token, whoever is logged in with `az`, the machine's own identity, in this order.
Other sources (Visual Studio, PowerShell, a browser, a shared token cache) are not asked.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from store.errors import InputError, RemoteUnreachable
from store.remotes.kept import Kept
from store.remotes.object_options import (
    NO_RETRIES,
    Bucket,
    Trust,
    Use,
    bucket_of,
    client_options,
    endpoint_of,
    narrowed,
    switch,
    unused,
)
from store.remotes.object_stores import Connection, ObjectStorage, nothing
from store.remotes.spec import RemoteSpec
from store.remotes.storage import Limits

if TYPE_CHECKING:
    from obstore.store import AzureConfig

PRINCIPAL: Final = ("tenant_id", "client_id", "client_secret")
PUBLIC_CLOUD: Final = "https://login.microsoftonline.com"
_ACCOUNT: Final = re.compile(r"[A-Za-z0-9-]{1,64}")


@dataclass(frozen=True, slots=True)
class Account:
    """Whose storage, where, and what opens it."""

    name: str
    endpoint: str
    key: str = field(default="", repr=False)
    signature: str = field(default="", repr=False)


def open_azure(spec: RemoteSpec, limits: Limits) -> ObjectStorage:
    """Open `azure://container/prefix`. Asks nobody yet. Raises `InputError`."""
    bucket = bucket_of(spec)
    limits = narrowed(spec, limits, "connection_timeout", "timeout", "read_timeout")
    anonymous = switch(spec, "allow_anonymous_login")
    given = [option for option in PRINCIPAL if spec.options.get(option)]
    if spec.options.get("client_secret") and len(given) < len(PRINCIPAL):
        raise InputError(
            f"remote {spec.name}: `tenant_id`, `client_id` and `client_secret` go together, one is missing"
        )
    if not spec.ambient or spec.options.get("connection_string") or spec.options.get("account_name"):
        account_of(spec, spec.options)
    return ObjectStorage(spec.name, bucket, limits, lambda: _connect(spec, bucket, limits, anonymous))


def account_of(spec: RemoteSpec, options: Mapping[str, str]) -> Account:
    """The account that options name, by a connection string or one by one. Raises `InputError`."""
    fields = _connection_fields(spec, options.get("connection_string", ""))
    name = options.get("account_name") or fields.get("accountname", "")
    endpoint = fields.get("blobendpoint", "")
    if endpoint:
        name = name or (urlsplit(endpoint).hostname or "").partition(".")[0]
    if not _ACCOUNT.fullmatch(name):
        raise InputError(f"remote {spec.name}: no storage account: set `account_name` or `connection_string`")
    suffix = fields.get("endpointsuffix", "core.windows.net")
    scheme = fields.get("defaultendpointsprotocol", "https")
    return Account(
        name,
        endpoint_of(spec, endpoint or f"{scheme}://{name}.blob.{suffix}"),
        options.get("account_key") or fields.get("accountkey", ""),
        (options.get("sas_token") or fields.get("sharedaccesssignature", "")).lstrip("?"),
    )


def _connection_fields(spec: RemoteSpec, text: str) -> dict[str, str]:
    """`Name=value;…`, names in lower case. Raises `InputError`."""
    fields = {}
    for part in filter(None, text.split(";")):
        name, equals, value = part.partition("=")
        if not equals:
            raise InputError(f"remote {spec.name}: `connection_string` is not one")
        fields[name.strip().lower()] = value.strip()
    return fields


def _connect(spec: RemoteSpec, bucket: Bucket, limits: Limits, anonymous: bool) -> Connection:
    """Settle account and credentials. Raises `RemoteError` and `InputError`."""
    from obstore.store import AzureStore

    options: Mapping[str, str] = spec.options
    if spec.ambient:
        from store.remotes.azure_surroundings import completed

        options = completed(options, principal=not switch(spec, "exclude_environment_credential"))
    account = account_of(spec, options)
    config: AzureConfig = {
        "account_name": account.name,
        "container_name": bucket.name,
        "endpoint": account.endpoint,
        "use_emulator": False,
        "use_fabric_endpoint": False,
        "skip_signature": False,
    }
    if not spec.ambient:
        config["authority_host"] = PUBLIC_CLOUD
    renew: Callable[[], Any] = nothing
    provider = None
    hint = ""
    if anonymous:
        config["skip_signature"] = True
        hint = " (`allow_anonymous_login` is set)"
    elif account.key:
        config["account_key"] = account.key
        config["credential_type"] = "access_key"
    elif account.signature:
        config["sas_key"] = account.signature
        config["credential_type"] = "sas_token"
    elif options.get("client_secret"):
        config["tenant_id"] = options["tenant_id"]
        config["client_id"] = options["client_id"]
        config["client_secret"] = options["client_secret"]
        config["credential_type"] = "client_secret"
    elif spec.ambient:
        from store.remotes.azure_surroundings import CommandLine

        hint = " (`az login`, or set `account_key`, `sas_token` or `allow_anonymous_login`)"
        command = CommandLine.find(spec)
        if os.environ.get("AZURE_FEDERATED_TOKEN_FILE") and not switch(
            spec, "exclude_environment_credential"
        ):
            config["credential_type"] = "workload_identity"
        elif command is not None and not switch(spec, "exclude_cli_credential"):
            late = f"remote {spec.name}: `az` takes too long to renew its token"
            kept = Kept(command.credential, limits.connect + limits.first_byte, late)
            renew, provider = kept.get, kept.latest
        elif not switch(spec, "exclude_managed_identity_credential"):
            config["credential_type"] = "managed_identity"
        else:
            config["skip_signature"] = True
    else:
        config["skip_signature"] = True
        hint = unused(spec, ())

    def store(use: Use) -> AzureStore:
        plain = account.endpoint.startswith("http:")
        return AzureStore(
            config=config,
            client_options=client_options(limits, Trust(), plain_http=plain, use=use),
            retry_config=NO_RETRIES,
            credential_provider=provider,
        )

    try:
        return Connection(store("bodies"), store("questions"), partial(store, "uploads"), renew, hint)
    except Exception as error:
        kind = type(error).__name__
        raise RemoteUnreachable(f"remote {spec.name}: its credentials cannot be used ({kind})") from None
