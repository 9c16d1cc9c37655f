"""Addresses of repositories: what they come to, what is refused, and what is never shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from store.errors import RepositoryUnusable
from store.git.urls import parse_location, without_secrets


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("https://example.org/a/b.git", "https://example.org/a/b.git"),
        ("https://u:p@example.org:8443/b?x=y", "https://example.org:8443/b?x=y"),
        ("http://token@example.org/b", "http://example.org/b"),
        ("HTTPS://u:p@Example.org/b", "https://Example.org/b"),
        ("https://u:p@w@example.org/b", "https://example.org/b"),
        ("git://example.org/b", "git://example.org/b"),
        ("ssh://git@example.org:22/b", "ssh://git@example.org:22/b"),
        ("ssh://git:secret@example.org/b", "ssh://git@example.org/b"),
        ("git@example.org:a/b.git", "git@example.org:a/b.git"),
        ("example.org:/a/b.git", "example.org:/a/b.git"),
        ("git@[::1]:b", "git@[::1]:b"),
    ],
)
def test_elsewhere(text: str, url: str, tmp_path: Path) -> None:
    location = parse_location(text, tmp_path)
    assert (location.url, location.local) == (url, None)
    assert "secret" not in repr(location)


def test_on_this_machine(tmp_path: Path) -> None:
    (tmp_path / "odd:name").mkdir()
    for text, path in {
        "file:///a/b%20c": Path("/a/b c"),
        "file://localhost/a": Path("/a"),
        "/a/b": Path("/a/b"),
        "sub/repo": tmp_path / "sub/repo",
        "../up": tmp_path / "../up",
        "./a:b": tmp_path / "a:b",
        "odd:name": tmp_path / "odd:name",
    }.items():
        assert parse_location(text, tmp_path).local == path, text


@pytest.mark.parametrize(
    "text",
    [
        "",
        " https://example.org/x",
        "https://example.org/x\n",
        "https://example.org/\x1b[31m",
        "-oProxyCommand=x",
        "--upload-pack=x",
        "ext::sh -c x",
        "EXT::x",
        "fd::3",
        "transport::https://example.org/x",
        "::x",
        "ftp://example.org/x",
        "ext://x",
        "file://elsewhere/x",
        "ssh://-oProxyCommand=x/y",
        "ssh://-x@example.org/y",
        "-x@example.org:y",
        "git@-oProxyCommand=x:y",
        "https:///x",
        "https://[::1/x",
        "https://example.org:port/x",
        "https://u:p%0ahost=evil@example.org/x",
    ],
)
def test_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(RepositoryUnusable) as refused:
        parse_location(text, tmp_path)
    assert str(refused.value).isprintable()


def test_secrets_go_by_the_environment(tmp_path: Path) -> None:
    location = parse_location("https://us%40er:p%25w%20d@example.org:8443/x", tmp_path)
    secret = location.secret()
    assert secret is not None
    assert secret.environment == {"FUSEFS_GIT_USERNAME": "us@er", "FUSEFS_GIT_PASSWORD": "p%w d"}
    assert all("p%w" not in key + value for key, value in secret.configuration)
    assert secret.configuration[1][0] == "credential.https://example.org:8443.helper"
    assert "p%w" not in repr(secret) + repr(location)
    assert location.conceal("no p%w d, no p%25w%20d") == "no ***, no ***"
    token = parse_location("https://abcdef@example.org/x", tmp_path)
    assert token.conceal("abcdef") == "***"
    assert parse_location("https://example.org/x", tmp_path).secret() is None


def test_addresses_are_shown_without_secrets() -> None:
    assert without_secrets("see https://u:p@h/x and ssh://g@h/y") == "see https://h/x and ssh://h/y"


def test_a_refusal_does_not_show_the_password(tmp_path: Path) -> None:
    with pytest.raises(RepositoryUnusable) as refused:
        parse_location("ftp://u:secret@example.org/x", tmp_path)
    assert "secret" not in str(refused.value)
