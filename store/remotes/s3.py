"""S3, and all that speaks it: DVC's options → an `ObjectStorage`. Blocking; any thread."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import urlsplit, urlunsplit

from store.errors import InputError, RemoteDenied
from store.remotes.kept import Kept
from store.remotes.object_options import (
    NO_RETRIES,
    Bucket,
    Trust,
    Use,
    authorities_in,
    bucket_of,
    client_options,
    endpoint_of,
    narrowed,
    switch,
    trust_of,
    unused,
)
from store.remotes.object_stores import Connection, ObjectStorage, nothing
from store.remotes.spec import RemoteSpec
from store.remotes.storage import Limits

if TYPE_CHECKING:
    from obstore.store import S3Config, S3Credential

    from store.remotes.s3_session import Ambient

KEYS: Final = ("access_key_id", "secret_access_key", "session_token")
FILES: Final = ("profile", "credentialpath", "configpath", *KEYS)
SHARED_FILES: Final = ("~/.aws/config", "~/.aws/credentials")
OVERRIDING: Final = ("AWS_SERVER_SIDE_ENCRYPTION", "AWS_SSE_KMS_KEY_ID", "AWS_SSE_BUCKET_KEY_ENABLED")
"""Variables that obstore would follow, and DVC does not know."""
DEFAULT_REGION: Final = "us-east-1"
AWS: Final = "https://s3.amazonaws.com"
"""Where the region of any bucket is told."""
_NOT_FOUND: Final = " (no credentials were found: `aws configure`, or the remote's `access_key_id`)"
_LEFT_OUT: Final = (
    " (no `credential_process` is run of a file that the repository names;"
    " `dvc remote modify --local` names it for you)"
)
_BUCKET_IN_HOST: Final = re.compile(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]")
"""A bucket whose name can be a part of the host's and is still covered by its certificate."""
_REGION: Final = re.compile(r"[a-z0-9-]{1,40}")


def open_s3(spec: RemoteSpec, limits: Limits) -> ObjectStorage:
    """Open `s3://bucket/prefix`. Asks nobody yet. Raises `InputError`."""
    bucket = bucket_of(spec)
    limits = narrowed(spec, limits, "connect_timeout", "read_timeout")
    anonymous = switch(spec, "allow_anonymous_login")
    switch(spec, "use_ssl", True)
    trust = trust_of(spec)
    endpoint = spec.options.get("endpointurl", "")
    if endpoint:
        endpoint_of(spec, endpoint)
    region = spec.options.get("region", "")
    if region and not _REGION.fullmatch(region):
        raise InputError(f"remote {spec.name}: `region` is not a region's name")
    if bool(spec.options.get("access_key_id")) != bool(spec.options.get("secret_access_key")):
        raise InputError(f"remote {spec.name}: `access_key_id` and `secret_access_key` go together")
    if spec.options.get("sse_customer_algorithm", "AES256") != "AES256":
        raise InputError(f"remote {spec.name}: `sse_customer_algorithm` can only be AES256")
    return ObjectStorage(
        spec.name, bucket, limits, lambda: _connect(spec, bucket, limits, trust, anonymous=anonymous)
    )


def _connect(
    spec: RemoteSpec, bucket: Bucket, limits: Limits, trust: Trust, *, anonymous: bool
) -> Connection:
    """Settle place and credentials. Raises `RemoteError` and `InputError`."""
    from obstore.store import S3Store

    ambient: Ambient | None = None
    has_its_own = anonymous or bool(spec.options.get("access_key_id"))
    if spec.ambient and not (has_its_own and _is_told_nothing(spec)):
        from store.remotes.s3_session import Ambient

        ambient = Ambient(spec, limits)
        if not trust.authorities and trust.verify and ambient.authorities:
            trust = Trust(authorities=authorities_in(spec, ambient.authorities))

    config = _place(spec, bucket, limits, trust, ambient)
    if spec.options.get("sse_customer_key"):
        config["server_side_encryption"] = "sse-c"
        config["sse_customer_key_base64"] = spec.options["sse_customer_key"]
    sent = _encrypting(spec, config)

    hint = unused(spec, FILES[:3])
    renew: Any = nothing
    provider = None
    if anonymous:
        hint = " (`allow_anonymous_login` is set)"
    elif spec.options.get("access_key_id"):
        provider, hint = _fixed(spec.options), ""
    elif ambient is not None:
        if ambient.find():
            patience = 2 * (limits.connect + limits.first_byte)
            late = f"remote {spec.name}: renewing its credentials takes too long"
            kept: Kept[S3Credential] = Kept(ambient.credential, patience, late)
            renew, provider = kept.get, kept.latest
        else:
            hint = _LEFT_OUT if ambient.leaves_out else _NOT_FOUND
    config["skip_signature"] = provider is None

    def store(use: Use) -> S3Store:
        if use == "uploads":
            _check_sending(spec)
        plain = config["endpoint"].startswith("http:")
        return S3Store(
            config=sent if use == "uploads" else config,
            client_options=client_options(limits, trust, plain_http=plain, use=use),
            retry_config=NO_RETRIES,
            credential_provider=provider,
        )

    try:
        return Connection(store("bodies"), store("questions"), partial(store, "uploads"), renew, hint)
    except Exception as error:
        raise InputError(f"remote {spec.name}: its options cannot be used ({type(error).__name__})") from None


def _is_told_nothing(spec: RemoteSpec) -> bool:
    """Can the surroundings have nothing to say but credentials? To import what asks them takes 0.1 s, which
    the first reader waits for."""
    files = map(os.path.expanduser, SHARED_FILES)  # as botocore does, which knows what to do without a home
    return not (
        any(spec.options.get(option) for option in FILES[:3])
        or any(name.startswith("AWS_") for name in os.environ)
        or any(map(os.path.lexists, files))
    )


def _place(
    spec: RemoteSpec, bucket: Bucket, limits: Limits, trust: Trust, ambient: Ambient | None
) -> S3Config:
    """Where the bucket is. Says everything that obstore would otherwise look for in the environment."""
    endpoint = spec.options.get("endpointurl", "") or (ambient.endpoint if ambient else "")
    region = spec.options.get("region", "")
    in_host = bool(_BUCKET_IN_HOST.fullmatch(bucket.name))
    if endpoint:
        region = region or (ambient.region if ambient else "") or DEFAULT_REGION
        endpoint = endpoint_of(spec, endpoint)
        in_host = in_host and ambient is not None and ambient.in_host
        if in_host:
            parts = urlsplit(endpoint)
            endpoint = urlunsplit(parts._replace(netloc=f"{bucket.name}.{parts.netloc}"))
    else:
        region = region or _found_region(bucket, limits, trust) or (ambient.region if ambient else "")
        region = region or DEFAULT_REGION
        scheme = "https" if switch(spec, "use_ssl", True) else "http"
        suffix = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
        endpoint = f"{scheme}://{bucket.name + '.' if in_host else ''}s3.{region}.{suffix}"
    return {
        "bucket": bucket.name,
        "region": region,
        "endpoint": endpoint,
        "aws_endpoint_url_s3": endpoint,
        "virtual_hosted_style_request": in_host,
        "server_side_encryption": "AES256",  # says nothing about reading
        "request_payer": False,
        "s3_express": False,
        "unsigned_payload": False,
    }


def _encrypting(spec: RemoteSpec, config: S3Config) -> S3Config:
    """`config` for what is sent: encrypted as `sse` and `sse_kms_key_id` say, or as the bucket does it."""
    sent = config.copy()
    if config["server_side_encryption"] == "sse-c":
        return sent
    sse, key = spec.options.get("sse", ""), spec.options.get("sse_kms_key_id", "")
    if sse or key:
        sent["server_side_encryption"] = cast(Any, sse or "aws:kms")
        if key:
            sent["sse_kms_key_id"] = key
    else:
        del sent["server_side_encryption"]
    return sent


def _check_sending(spec: RemoteSpec) -> None:
    """Nothing is sent with fewer rights, or kept less well, than the remote is to have it.

    Raises `RemoteDenied`.
    """
    for option in spec.options:
        if option == "acl" or option.startswith("grant_"):
            raise RemoteDenied(
                f"remote {spec.name}: `{option}` cannot be given to what is sent; `dvc push` can"
            )
    found = next((name for name in OVERRIDING if os.environ.get(name)), "")
    if found:
        raise RemoteDenied(f"remote {spec.name}: unset {found}, it would change what is sent")


def _found_region(bucket: Bucket, limits: Limits, trust: Trust) -> str:
    """The region of a bucket at AWS, which anybody may ask for; empty where it is not told."""
    import urllib3

    verify: dict[str, Any] = {"cert_reqs": "CERT_REQUIRED" if trust.verify else "CERT_NONE"}
    if trust.authorities:
        verify["ca_cert_data"] = trust.authorities.decode("latin-1")
    timeout = urllib3.Timeout(connect=limits.connect, read=limits.first_byte)
    try:
        with urllib3.PoolManager(timeout=timeout, retries=False, **verify) as pool:
            answer = pool.request("HEAD", f"{AWS}/{bucket.name}", redirect=False)
            region = answer.headers.get("x-amz-bucket-region", "")
    except (urllib3.exceptions.HTTPError, OSError, ValueError):
        return ""
    return region if _REGION.fullmatch(region) else ""


def _fixed(options: Mapping[str, str]) -> Any:
    """The keys that a remote's own options hold."""
    credential: S3Credential = {
        "access_key_id": options["access_key_id"],
        "secret_access_key": options["secret_access_key"],
        "token": options.get("session_token") or None,
        "expires_at": None,
    }
    return lambda: credential
