"""What of a configuration is shown, and what is not."""

from __future__ import annotations

import pytest

from store.dvc.masking import Masker, is_secret

PLAIN = Masker(())


@pytest.mark.parametrize(
    "option",
    [
        *("access_key_id", "secret_access_key", "session_token", "sse_customer_key"),
        *("connection_string", "account_key", "sas_token", "client_secret"),
        *("password", "passphrase", "token", "bearer_token_command"),
        *("oss_key_id", "oss_key_secret", "gdrive_client_secret", "api_key_of_tomorrow"),
    ],
)
def test_what_lets_somebody_in_is_a_secret(option: str) -> None:
    assert is_secret(option)
    assert PLAIN.mask(option, "value") == "***"
    assert PLAIN.mask(option, "") == ""


@pytest.mark.parametrize(
    "option",
    [
        *("url", "region", "profile", "credentialpath", "configpath", "endpointurl", "account_name"),
        *("user", "port", "keyfile", "key_path", "cert_path", "ask_password", "ask_passphrase"),
        *("auth", "custom_auth_header", "gdrive_user_credentials_file", "sse_kms_key_id", "type", "dir"),
        *("exclude_environment_credential", "gdrive_service_account_json_file_path", "client_id"),
    ],
)
def test_what_does_not_is_shown(option: str) -> None:
    assert PLAIN.mask(option, "value") == "value"


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("s3://bucket/path", "s3://bucket/path"),
        ("s3://bucket/a@b", "s3://bucket/a@b"),
        ("ssh://user@host:22/path", "ssh://user@host:22/path"),
        ("ssh://user:pass@host:22/path", "ssh://user:***@host:22/path"),
        ("https://user:pass@host/path", "https://user:***@host/path"),
        ("https://token@host/path", "https://***@host/path"),
        ("https://user:p@ss/wo?rd@host/path", "https://user:***@host/path"),
        ("https://host/path?sig=x&se=y", "https://host/path?***"),
        ("https://host:8080/path", "https://host:8080/path"),
        ("before https://a:b@c after https://d:e@f", "before https://a:***@c after https://d:***@f"),
        ("/plain/path", "/plain/path"),
    ],
)
def test_addresses_lose_their_passwords(address: str, shown: str) -> None:
    assert PLAIN.mask("url", address) == shown


def test_a_header_with_its_value_is_a_secret() -> None:
    assert PLAIN.mask("custom_auth_header", "X-Token") == "X-Token"
    assert PLAIN.mask("custom_auth_header", "Authorization: Bearer abc") == "***"


def test_a_secret_that_was_put_into_another_value() -> None:
    masker = Masker.of([("password", "hunter-2"), ("token", "abc"), ("user", "visible")])
    assert masker.mask("note", "x hunter-2 y abc visible") == "x *** y abc visible"
