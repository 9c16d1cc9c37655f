"""`Ambient`: what the user's surroundings say about AWS, found by botocore as other tools find it.

Environment, profiles, roles, web identities, single sign-on, processes, containers, instances. Only for
remotes that may use them (`RemoteSpec.ambient`): whoever makes one of these has decided that. A file that a
repository names has no command run: none of a profile's `credential_process` counts then. Blocking, bounded
by the limits; any thread, but `find` and `credential` by one at a time. botocore's own messages are not
passed on.
"""

from __future__ import annotations

import subprocess
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import botocore.config
import botocore.credentials
import botocore.exceptions as failures
import botocore.session
from botocore.configprovider import ConfiguredEndpointProvider

from store.errors import RemoteDenied, RemoteError, RemoteSlow, RemoteUnreachable
from store.remotes.kept import FOREVER
from store.remotes.spec import RemoteSpec
from store.remotes.storage import Limits

if TYPE_CHECKING:
    from obstore.store import S3Credential

LOOK_AGAIN: Final = 60.0
"""Seconds after which botocore is asked again for credentials that run out; it renews them well before."""
FILES: Final = (("configpath", "config_file"), ("credentialpath", "credentials_file"))
"""DVC's options and botocore's names for them."""
PROCESS: Final = "credential_process"
PROCESS_SECONDS: Final = 60.0
"""What a `credential_process` of the user's may take."""


class _BoundedProcess(subprocess.Popen[bytes]):
    """A `credential_process`, which botocore would wait for without end."""

    def communicate(self, input: Any = None, timeout: float | None = None) -> tuple[Any, Any]:
        try:
            return super().communicate(input, timeout or PROCESS_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            super().communicate()
            raise


class Ambient:
    """The surroundings that a remote's `profile`, `configpath` and `credentialpath` point to."""

    def __init__(self, spec: RemoteSpec, limits: Limits) -> None:
        """Reads configuration files. Raises `RemoteError`."""
        self._who = f"remote {spec.name}"
        self._profile = spec.options.get("profile", "")
        self._credentials: Any = None
        self.leaves_out = False
        """Is there a command that is not run?"""
        try:
            session = botocore.session.Session(profile=self._profile or None)
            for option, variable in FILES:
                if spec.options.get(option):
                    session.set_config_variable(variable, spec.options[option])
            if not spec.may_run:
                # Also of profiles that others take roles from.
                left_out = [one.pop(PROCESS, "") for one in session.full_config["profiles"].values()]
                self.leaves_out = any(left_out)
            self.region: str = spec.options.get("region") or session.get_config_variable("region") or ""
            self.authorities: str = session.get_config_variable("ca_bundle") or ""
            section = session.get_scoped_config()
            style = section.get("s3", {}) if isinstance(section.get("s3"), dict) else {}
            self.in_host: bool = style.get("addressing_style") == "virtual"
            """Does the bucket stand in the host's name at an endpoint that is not AWS?"""
            self.endpoint: str = self._configured_endpoint(session, section)
            if not self.region:
                session.set_config_variable("region", "us-east-1")  # only for where roles are asked for
            session.set_default_client_config(
                botocore.config.Config(
                    connect_timeout=limits.connect,
                    read_timeout=limits.first_byte,
                    retries={"total_max_attempts": 1},
                )
            )
        except Exception as error:
            raise self._translated(error) from None
        self._session = session

    def find(self) -> bool:
        """Look for credentials; whether there are any. Raises `RemoteError`."""
        try:
            resolver = self._session.get_component("credential_provider")
            resolver.get_provider("custom-process")._popen = _BoundedProcess
            roles = resolver.get_provider("assume-role")
            roles._profile_provider_builder._create_process_provider = self._bounded_provider
            self._credentials = self._session.get_credentials()
        except Exception as error:
            raise self._translated(error) from None
        return self._credentials is not None

    def credential(self) -> tuple[S3Credential, float]:
        """What to sign with now, and until when not to ask again. Raises `RemoteError`."""
        try:
            keys = self._credentials.get_frozen_credentials()
        except Exception as error:
            raise self._translated(error) from None
        runs_out = isinstance(self._credentials, botocore.credentials.RefreshableCredentials)
        # obstore asks for others when the ones that it has are good for less than five minutes.
        again = datetime.now(UTC) + timedelta(minutes=5, seconds=LOOK_AGAIN)
        credential: S3Credential = {
            "access_key_id": keys.access_key,
            "secret_access_key": keys.secret_key,
            "token": keys.token,
            "expires_at": again if runs_out else None,
        }
        return credential, time.time() + LOOK_AGAIN if runs_out else FOREVER

    def _bounded_provider(self, profile: str) -> botocore.credentials.ProcessProvider:
        """For a profile that another one takes its role from."""
        return botocore.credentials.ProcessProvider(
            profile, lambda: self._session.full_config, popen=_BoundedProcess
        )

    def _configured_endpoint(self, session: Any, section: dict[str, Any]) -> str:
        if session.get_config_variable("ignore_configured_endpoint_urls"):
            return ""
        found = ConfiguredEndpointProvider(session.full_config, section, "s3").provide()
        return str(found or "")

    def _translated(self, error: Exception) -> RemoteError:
        kind = type(error).__name__
        if isinstance(error, failures.ProfileNotFound):
            return RemoteDenied(f"{self._who}: there is no AWS profile {self._profile or 'of that name'!r}")
        timeouts = (failures.ConnectTimeoutError, failures.ReadTimeoutError, subprocess.TimeoutExpired)
        if isinstance(error, timeouts):
            return RemoteSlow(f"{self._who}: its credentials did not come in time ({kind})")
        if isinstance(error, failures.HTTPClientError):
            return RemoteUnreachable(f"{self._who}: who gives its credentials cannot be reached ({kind})")
        return RemoteDenied(f"{self._who}: its credentials cannot be had from AWS's configuration ({kind})")
