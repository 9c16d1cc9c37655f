"""Google Cloud Storage: DVC's options → an `ObjectStorage`. Blocking; any thread.

Credentials are a file (`credentialpath`: of a service account or of a user) or, where the surroundings may be
used, those that applications get by default: `GOOGLE_APPLICATION_CREDENTIALS`, what `gcloud` left, the
machine's own. obstore finds and renews them. `projectname` says nothing about reading.
"""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Final

from store.errors import InputError, RemoteDenied
from store.remotes.object_options import (
    NO_RETRIES,
    Bucket,
    Trust,
    Use,
    bucket_of,
    client_options,
    endpoint_of,
    switch,
    unused,
)
from store.remotes.object_stores import Connection, ObjectStorage
from store.remotes.spec import RemoteSpec
from store.remotes.storage import Limits

if TYPE_CHECKING:
    from obstore.store import GCSConfig

ENDPOINT: Final = "https://storage.googleapis.com"
OVERRIDING: Final = (
    "GOOGLE_BEARER_TOKEN",
    "GOOGLE_SERVICE_ACCOUNT",
    "GOOGLE_SERVICE_ACCOUNT_KEY",
    "GOOGLE_SERVICE_ACCOUNT_PATH",
)
"""Variables that obstore would put before a file that it is given, and DVC does not know."""


def open_gcs(spec: RemoteSpec, limits: Limits) -> ObjectStorage:
    """Open `gs://bucket/prefix`. Asks nobody yet. Raises `InputError`."""
    bucket = bucket_of(spec)
    anonymous = switch(spec, "allow_anonymous_login")
    if spec.options.get("endpointurl"):
        endpoint_of(spec, spec.options["endpointurl"])
    return ObjectStorage(spec.name, bucket, limits, lambda: _connect(spec, bucket, limits, anonymous))


def _connect(spec: RemoteSpec, bucket: Bucket, limits: Limits, anonymous: bool) -> Connection:
    """Say where and by whose rights. Raises `RemoteError` and `InputError`."""
    from obstore.store import GCSStore

    endpoint = endpoint_of(spec, spec.options.get("endpointurl") or ENDPOINT)
    config: GCSConfig = {"bucket": bucket.name, "base_url": endpoint}
    path = spec.options.get("credentialpath", "")
    config["skip_signature"] = anonymous or not spec.ambient
    if path and spec.ambient and not anonymous:
        overriding = next((name for name in OVERRIDING if os.environ.get(name)), "")
        if overriding:
            raise RemoteDenied(
                f"remote {spec.name}: unset {overriding}, it would be used instead of `credentialpath`"
            )
        config["application_credentials"] = path
    hint = (
        " (`allow_anonymous_login` is set)"
        if anonymous
        else unused(spec, ["credentialpath"]) or " (`allow_anonymous_login` asks without credentials)"
    )

    def store(use: Use) -> GCSStore:
        if use == "uploads" and config["skip_signature"]:
            # obstore would look for credentials all the same, and send what it finds.
            raise RemoteDenied(f"remote {spec.name}: nothing can be written there without credentials{hint}")
        plain = endpoint.startswith("http:")
        return GCSStore(
            config=config,
            client_options=client_options(limits, Trust(), plain_http=plain, use=use),
            retry_config=NO_RETRIES,
        )

    try:
        return Connection(store("bodies"), store("questions"), partial(store, "uploads"), hint=hint)
    except Exception as error:
        if spec.ambient and not anonymous:
            where = "`credentialpath`" if path else "the application default credentials"
            raise RemoteDenied(f"remote {spec.name}: {where} cannot be used") from None
        raise InputError(f"remote {spec.name}: its options cannot be used ({type(error).__name__})") from None
