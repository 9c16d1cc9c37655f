"""Whose word counts for a remote: the table of `store.dvc.trust`, every cell of it."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest

from store.dvc.config import Level, Setting
from store.dvc.trust import (
    COMMAND_FILES,
    COMMANDS,
    FILES,
    SURROUNDINGS,
    WEAKENING,
    Candidate,
    Destination,
    Standing,
    destination,
    judge,
)

HOST: Destination = ("https", "data.example.org", "443")
ELSEWHERE: Destination = ("https", "other.example.org", "443")
URL = "https://data.example.org/store"
PLAIN = ("password", "user", "auth", "connect_timeout", "access_key_id", "an_option_nobody_knows")

KINDS = [
    *(("command", name) for name in sorted(COMMANDS)),
    *(("file", name) for name in sorted(FILES)),
    *(("surroundings", name) for name in sorted(SURROUNDINGS)),
    *(("weakening", name) for name in sorted(WEAKENING)),
    *(("plain", name) for name in PLAIN),
]


def follows(
    kind: str, level: Level, *, own: bool, trusted: bool, named: bool, meant: Destination | None
) -> bool:
    """The table of the module's docstring, in other words."""
    by_user = level in (Level.GLOBAL, Level.SYSTEM) or (level is Level.LOCAL and own)
    if by_user:
        return own or trusted or meant == HOST
    if kind == "command":
        return False
    if own or trusted or kind == "plain":
        return True
    return kind == "weakening" and not named


def test_a_local_file_that_is_in_git_is_the_repositorys_word() -> None:
    options = {
        "url": Setting("s3://bucket", Level.REPO, Path("/r/.dvc/config")),
        "configpath": Setting("/r/aws", Level.LOCAL, Path("/r/.dvc/config.local")),
        "bearer_token_command": Setting("touch x", Level.LOCAL, Path("/r/.dvc/config.local")),
    }
    for shares in (False, True):
        standing = Standing(True, False, "/r", shares_local=shares)
        judgement = judge(Candidate(options, {}), standing)
        assert ("bearer_token_command" in judgement.options, judgement.may_run) == (not shares, not shares)


@pytest.mark.parametrize(("kind", "name"), KINDS)
def test_every_option_of_everybody(kind: str, name: str) -> None:
    cells = product(Level, (False, True), (False, True), (False, True), (None, HOST, ELSEWHERE))
    for level, own, trusted, named, meant in cells:
        value = Setting("false", level, Path("/etc/config"))
        url = Setting(URL, Level.REPO, Path("/r/.dvc/config"))
        standing = Standing(own, trusted, "/r", frozenset({HOST}) if named else frozenset())
        judgement = judge(Candidate({"url": url, name: value}, {name: meant}), standing)
        expected = follows(kind, level, own=own, trusted=trusted, named=named, meant=meant)
        cell = (name, level, own, trusted, named, meant)
        assert (name in judgement.options, name not in judgement.ignored) == (expected, expected), cell
        assert judgement.ambient == (own or trusted or named), cell
        assert not judgement.refusal
        by_user = level in (Level.GLOBAL, Level.SYSTEM) or (level is Level.LOCAL and own)
        assert judgement.may_run == (by_user or not expected or name not in COMMAND_FILES), cell


@pytest.mark.parametrize(
    ("path", "named", "own", "trusted", "refused", "ambient"),
    [
        ("/r/store", (), False, False, False, False),
        ("/r", (), False, False, False, False),
        ("/rest", (), False, False, True, False),
        ("/home/me", (), False, False, True, False),
        ("/r/../home/me", (), False, False, True, False),
        ("/home/me", (), True, False, False, True),
        ("/home/me", (), False, True, False, True),
        ("/home/me", ("", "/home/me"), False, False, False, True),
        ("/home/me/below", ("", "/home/me"), False, False, False, True),
        ("/home/meandyou", ("", "/home/me"), False, False, True, False),
        ("/home/me", HOST, False, False, True, False),
    ],
)
def test_directories(
    path: str, named: Destination, own: bool, trusted: bool, refused: bool, ambient: bool
) -> None:
    standing = Standing(own, trusted, "/r", frozenset({named} if named else ()))
    options = {"url": Setting(path, Level.REPO, Path("/r/.dvc/config"))}
    judgement = judge(Candidate(options, {}), standing)
    assert (bool(judgement.refusal), judgement.ambient) == (refused, ambient)


def test_a_clone_has_no_directory() -> None:
    options = {"url": Setting("/anything", Level.REVISION, Path("HEAD:.dvc/config"))}
    assert judge(Candidate(options, {}), Standing(False, False)).refusal


def test_a_file_of_certificates_is_one_of_the_users() -> None:
    file = Setting("/home/me/.ssh/id_rsa", Level.REPO, Path("/r/.dvc/config"))
    options = {"url": Setting(URL, Level.REPO, file.file), "ssl_verify": file}
    assert "ssl_verify" in judge(Candidate(options, {}), Standing(False, False)).ignored
    assert "ssl_verify" in judge(Candidate(options, {}), Standing(True, False)).options


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("https://h/a", {}), ("https://H:443/b/c", {"user": "me"})),
        (("http://h", {}), ("http://h:80/", {})),
        (("ssh://me@h/a", {}), ("ssh://h:22/b", {})),
        (("ssh://h/a", {"port": "2222"}), ("ssh://h:2222/b", {})),
        (("s3://bucket/a", {}), ("s3://bucket/b", {"region": "eu-west-1"})),
        (("s3://b/a", {"endpointurl": "http://h:80/"}), ("s3://b", {"endpointurl": "HTTP://H"})),
        (("gs://b/a", {}), ("gs://b", {"projectname": "p"})),
        (("azure://c/a", {"account_name": "Me"}), ("azure://c", {"account_name": "me"})),
        (
            ("azure://c", {"account_name": "me"}),
            ("azure://c", {"connection_string": "AccountName=me;AccountKey=x"}),
        ),
        (("/a/b", {}), ("file:///a/b", {})),
    ],
)
def test_the_same_place(one: tuple[str, dict[str, str]], other: tuple[str, dict[str, str]]) -> None:
    assert destination(*one) == destination(*other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("https://h/a", {}), ("http://h/a", {})),
        (("https://h/a", {}), ("https://h:444/a", {})),
        (("https://h/a", {}), ("https://h.evil/a", {})),
        (("https://h/a", {}), ("webdavs://h/a", {})),
        (("https://h/a", {}), ("https://h@evil/a", {})),
        (("s3://a/x", {}), ("s3://b/x", {})),
        (("s3://a/x", {}), ("s3://a/x", {"endpointurl": "https://evil"})),
        (("s3://a", {"endpointurl": "https://h"}), ("s3://a", {"endpointurl": "http://h"})),
        (("gs://a", {}), ("gs://a", {"endpointurl": "https://evil"})),
        (("gs://a", {}), ("s3://a", {})),
        (("azure://c", {"account_name": "me"}), ("azure://c", {"account_name": "evil"})),
        (("azure://c", {"account_name": "me"}), ("azure://c", {})),
        (
            ("azure://c", {"account_name": "me"}),
            ("azure://c", {"connection_string": "AccountName=me;BlobEndpoint=https://evil/me"}),
        ),
        (
            ("azure://c", {"account_name": "me"}),
            ("azure://c", {"connection_string": "AccountName=me;EndpointSuffix=evil.example"}),
        ),
        (("azure://c", {}), ("azure://c", {"connection_string": "SharedAccessSignature=x"})),
        (("ssh://h/a", {}), ("ssh://h/a", {"port": "23"})),
        (("https://h:port/", {}), ("https://h:99999/", {})),
    ],
)
def test_another_place(one: tuple[str, dict[str, str]], other: tuple[str, dict[str, str]]) -> None:
    assert destination(*one) != destination(*other)
