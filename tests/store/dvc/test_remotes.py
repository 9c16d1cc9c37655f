"""From configuration to remotes: order, inheritance, what is left out and what is said of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from store.dvc.config import Config, Level, load_config, load_config_at
from store.dvc.files import WorkingFiles
from store.dvc.metafile import Output, parse_dvc_file
from store.dvc.remote_url import parse_remote_url, show_name
from store.dvc.remotes import RemoteHome, Settled, named_destinations, settle_remotes
from store.dvc.trust import Standing
from store.dvc.versioned import Wanted, find_versions
from store.errors import ConfigInvalid, InputError
from store.remotes.spec import VERSIONED_LAYOUT, RemoteSpec

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path, home: Path) -> Write:
    """Writes configuration files by level; returns the project's `.dvc`."""

    def write(repo: str = "", *, local: str = "", user: str = "") -> Path:
        dvc = tmp_path / "project/.dvc"
        dvc.mkdir(parents=True, exist_ok=True)
        (dvc / "config").write_text(repo)
        (dvc / "config.local").write_text(local)
        (home / "config/dvc").mkdir(parents=True, exist_ok=True)
        (home / "config/dvc/config").write_text(user)
        return dvc

    return write


def remote(name: str, url: str = "", **options: str) -> str:
    """A section; without a URL one of a directory that is called like it."""
    lines = [f"url = {url or '/srv/' + name}", *(f"{key} = {value}" for key, value in options.items())]
    return f"['remote \"{name}\"']\n" + "".join(f"    {line}\n" for line in lines)


def output(text: str) -> Output:
    [found] = parse_dvc_file(f"outs:\n- path: data\n  hash: md5\n{text}".encode(), "data.dvc")
    return found


def settle(
    dvc: Path,
    *chosen: str,
    wanted: tuple[Wanted, ...] = (),
    then: Config | None = None,
    own: bool = True,
    trusted: bool = False,
) -> Settled:
    users = load_config(None, os.environ)
    today = load_config(dvc, os.environ)
    configs = (then, today) if then is not None else (today,)
    standing = Standing(own, trusted, str(dvc.parent), named_destinations(users))
    return settle_remotes(RemoteHome(configs, standing), wanted, users, chosen)


def names(settled: Settled) -> list[str]:
    return [spec.name for spec in settled.remotes]


def only(settled: Settled) -> RemoteSpec:
    [spec] = settled.remotes
    return spec


def test_the_order(write: Write, tmp_path: Path) -> None:
    today = write(
        "[core]\nremote = DefaultNow\n" + "".join(map(remote, ["a", "DefaultNow", "b", "ofOutput"])),
        local=remote("local"),
        user=remote("user"),
    )
    (tmp_path / "then/.dvc").mkdir(parents=True)
    (tmp_path / "then/.dvc/config").write_text(
        "[core]\nremote = defaultthen\n" + remote("b", "/srv/other") + remote("defaultThen") + remote("a")
    )
    then = load_config_at(WorkingFiles(tmp_path / "then"), "v1", today, os.environ)
    wanted = (Wanted("", "data", output("  remote: OfOutput\n")),)
    settled = settle(today, wanted=wanted, then=then)
    assert names(settled) == [
        "ofoutput",
        "defaultthen",
        "defaultnow",
        "user",
        "b",
        "a",
        "local",
        "b (/srv/b)",
    ]
    assert [spec.url for spec in settled.remotes if spec.name.startswith("b")] == ["/srv/other", "/srv/b"]
    assert settled.warnings == ()


def test_what_names_nothing_is_told_and_the_rest_works(write: Write) -> None:
    dvc = write("[core]\nremote = gone\n" + remote("here"))
    settled = settle(dvc, wanted=(Wanted("", "data", output("  remote: never\n")),))
    assert names(settled) == ["here"]
    assert settled.warnings == (
        "an output names the remote 'never', which is not configured",
        f"{dvc}/config: core.remote names 'gone', which is not configured",
    )


WRONG = {
    "['remote \"bad\"']\nuser = me\n": "has no url",
    remote("bad", "a, b"): "is a list",
    remote("bad", "s3://bucket", region="a, b"): "region of the remote 'bad' is a list",
    remote("bad", "gdrive://root/x"): "gdrive:// are not supported",
    remote("bad", "hdfs://h/x"): "hdfs:// are not supported",
    remote("bad", "oss://b/x"): "oss:// are not supported",
    remote("bad", "https://h/x?sig=hunter-2"): "has a query",
    remote("bad", "https://"): "names no host",
    remote("bad", "https://h:port/"): "no valid host",
    remote("bad", "ssh://-oProxyCommand=x/a"): "names no host",
    remote("bad", "remote://nobody/x"): "made from 'nobody', which is not configured",
    remote("bad", "remote://bad/x"): "made from itself",
    remote("bad", "remote://worse/x") + remote("worse", "remote://bad/y"): "made from itself",
    remote("bad", "'https://h/\x1b[31m'"): "cannot be shown",
}


@pytest.mark.parametrize("text", WRONG)
def test_what_is_wrong_with_one_is_a_line_and_the_others_work(write: Write, text: str) -> None:
    dvc = write(text + remote("good"))
    settled = settle(dvc)
    assert names(settled) == ["good"]
    assert f"{dvc}/config" in settled.warnings[0] and WRONG[text] in settled.warnings[0]
    assert all("\n" not in line and "hunter-2" not in line for line in settled.warnings)
    with pytest.raises(ConfigInvalid, match="'bad'"):
        settle(dvc, "bad")


def test_those_that_are_chosen_and_no_others(write: Write) -> None:
    dvc = write("[core]\nremote = a\n" + remote("a") + remote("b") + remote("base", "s3://bucket/x"))
    settled = settle(dvc, "B", "https://me:pass%40word@host/x", "/srv/disk", "remote://BASE/below", "b")
    assert names(settled) == ["b", "https://host/x", "/srv/disk", "base"]
    assert settled.remotes[1].options == {"user": "me", "password": "pass@word"}
    assert settled.remotes[3].url == "s3://bucket/x/below"
    assert all(spec.ambient for spec in settled.remotes)
    with pytest.raises(InputError, match=r"^there is no remote 'c'; configured are a, b, base; a URL"):
        settle(dvc, "c")
    with pytest.raises(InputError, match="gdrive:// are not supported"):
        settle(dvc, "gdrive://root")


def test_a_url_of_a_bucket_may_hold_options(write: Write) -> None:
    spec = only(settle(write(), "s3://bucket/x?endpointurl=http://localhost:9000&Secret_Access_Key=a%2Fb"))
    assert (spec.name, spec.url) == ("s3://bucket/x", "s3://bucket/x")
    assert spec.options == {"endpointurl": "http://localhost:9000", "secret_access_key": "a/b"}
    # In a configuration a question mark is one.
    assert only(settle(write(remote("r", "s3://bucket/wh?t")))).url == "s3://bucket/wh?t"


def test_a_url_that_is_chosen_is_not_a_name(write: Write) -> None:
    dvc = write(remote("s3://bucket/x", "https://evil.example/"))
    assert only(settle(dvc, "s3://bucket/x", own=False)).url == "s3://bucket/x"


def test_one_made_from_another(write: Write) -> None:
    dvc = write(
        remote("derived", "remote://Middle/c", user="mine", jobs="3")
        + remote("Middle", "remote://base/b/", region="r2")
        + remote("base", "s3://bucket/a", region="r1", profile="p", verify="true", user="theirs"),
        local="['remote \"base\"']\nsecret_access_key = hunter-2\n",
    )
    spec = only(settle(dvc, "DERIVED"))
    assert spec.url == "s3://bucket/a/b/c"
    assert spec.options == {
        "region": "r2",
        "profile": "p",
        "user": "mine",
        "secret_access_key": "hunter-2",
    }
    assert "hunter-2" not in repr(spec)


def test_a_user_in_the_url_is_an_option_and_one_of_its_own_wins(write: Write) -> None:
    dvc = write(remote("a", "ssh://me@host:22/x") + remote("b", "ssh://me:secret@host/x", user="you"))
    one, other = settle(dvc).remotes
    assert (one.url, one.options) == ("ssh://host:22/x", {"user": "me"})
    assert (other.url, other.options) == ("ssh://host/x", {"user": "you", "password": "secret"})


def test_relative_directories(write: Write, tmp_path: Path) -> None:
    dvc = write()
    (tmp_path / "then/.dvc").mkdir(parents=True)
    (tmp_path / "then/.dvc/config").write_text(remote("r", "../../store"))
    files = WorkingFiles(tmp_path / "then")
    then = load_config_at(files, "v1", dvc, os.environ)
    assert only(settle(dvc, then=then)).url == str(tmp_path / "store")
    clone = load_config_at(files, "v1", None, os.environ)
    settled = settle(dvc, then=clone, own=False)
    assert settled.remotes == ()
    assert "v1:.dvc/config: the remote 'r': its url is a relative path" in settled.warnings[0]


def test_a_link_in_a_repository_of_another_leads_nowhere(write: Write, tmp_path: Path) -> None:
    dvc = write(remote("in", "../store") + remote("out", "../link"))
    (dvc.parent / "link").symlink_to(tmp_path)
    assert names(settle(dvc)) == ["in", "out"]
    settled = settle(dvc, own=False)
    assert names(settled) == ["in"]
    assert "directory outside" in settled.warnings[0] and "--trust" in settled.warnings[0]
    assert names(settle(dvc, own=False, trusted=True)) == ["in", "out"]
    with pytest.raises(InputError, match="directory outside"):
        settle(dvc, "out", own=False)


def test_a_repository_of_another_gets_nothing_of_mine(write: Write) -> None:
    mine = remote("storage", "https://mine.example/a", user="me", password="hunter-2")
    dvc = write(
        remote("storage", "https://evil.example/", bearer_token_command="touch x", keyfile="/k")
        + remote("same", "https://mine.example/b", ssl_verify="false")
        + remote("bucket", "s3://b/x", profile="prod", access_key_id="theirs"),
        user=mine,
    )
    settled = settle(dvc, own=False)
    evil, same, bucket = settled.remotes
    assert (evil.url, evil.options, evil.ambient) == ("https://evil.example/", {}, False)
    assert (same.options, same.ambient) == ({}, True)
    assert (bucket.options, bucket.ambient) == ({"access_key_id": "theirs"}, False)
    told = "\n".join(settled.warnings)
    for option in ("password", "bearer_token_command", "keyfile", "profile", "ssl_verify"):
        assert f"{option} of the remote" in told
    assert "hunter-2" not in told
    # The same, where both say the same place, and what --trust does.
    dvc = write(remote("storage", "https://MINE.example/else"), user=mine)
    assert only(settle(dvc, own=False)).options == {"user": "me", "password": "hunter-2"}
    dvc = write(remote("storage", "https://evil.example/", bearer_token_command="touch x"), user=mine)
    trusted = only(settle(dvc, own=False, trusted=True))
    assert (trusted.options, trusted.ambient) == ({"user": "me", "password": "hunter-2"}, True)


def test_a_password_of_mine_does_not_follow_a_base_that_was_replaced(write: Write) -> None:
    mine = remote("base", "https://mine.example/") + remote("x", "remote://base/x", password="hunter-2")
    dvc = write(remote("base", "https://evil.example/"), user=mine)
    for spec in settle(dvc, own=False).remotes:
        assert spec.url.startswith("https://evil.example/")
        assert (spec.options, spec.ambient) == ({}, False)


def test_commands_of_ones_own_repository_count_where_it_is_not_shared(write: Write) -> None:
    shared = remote("dav", "webdavs://h/x", bearer_token_command="from-repo")
    assert only(settle(write(shared))).options == {}
    dvc = write(shared, local="['remote \"dav\"']\nbearer_token_command = from-local\n")
    assert only(settle(dvc)).options == {"bearer_token_command": "from-local"}
    assert only(settle(dvc, own=False, trusted=True)).options == {}


def test_commands_in_files_that_are_named_count_as_little(write: Write) -> None:
    """A profile in such a file may have one (AWS's `credential_process`)."""
    shared = remote("far", "s3://bucket", configpath="../aws")
    spec = only(settle(write(shared)))
    assert (set(spec.options), spec.may_run) == ({"configpath"}, False)
    assert not only(settle(write(shared), own=False, trusted=True)).may_run
    dvc = write(remote("far", "s3://bucket"), local="['remote \"far\"']\nconfigpath = ~/aws\n")
    assert only(settle(dvc)).may_run


VERSIONED = """\
  files:
  - relpath: a/b
    md5: 26ab0db90d72e28ad0ba1e22ee510510
    size: 2
    cloud:
      Cloud:
        etag: 26ab
        version_id: v-ab
  - relpath: c
    md5: b026324c6904b2a9cb4b88d6d61c81d1
    cloud:
      Cloud:
        etag: b026
"""


def test_versions_have_addresses_on_their_own_remote(write: Write) -> None:
    single = output("  md5: 401013266745e5661589292315434968\n  version_id: v-single\n")
    wanted = (Wanted("", "in/data", output(VERSIONED)), Wanted("", "single", single))
    dvc = write(
        "[core]\nremote = main\n"
        + remote("main", "s3://m/x", version_aware="true")
        + remote("cloud", "s3://c/y", worktree="True")
        + remote("plain", "s3://p")
    )
    cloud, main, plain = settle(dvc, wanted=wanted).remotes
    assert (cloud.name, cloud.layout) == ("cloud", VERSIONED_LAYOUT)
    assert cloud.addresses == {"26ab0db90d72e28ad0ba1e22ee510510": ("in/data/a/b", "v-ab")}
    assert main.addresses == {"401013266745e5661589292315434968": ("single", "v-single")}
    assert plain.addresses == {}
    assert names(settle(dvc)) == ["plain"]  # nothing of this version was pushed to the others
    # A remote that has become an ordinary one since has both.
    dvc = write(remote("cloud", "s3://c/y"))
    assert names(settle(dvc, wanted=wanted)) == ["cloud", "cloud (objects)"]
    assert [RemoteSpec.from_wire(spec.to_wire()) for spec in (cloud, plain)] == [cloud, plain]


@pytest.mark.parametrize("relpath", ["../../x", "/etc/passwd", "a/../../../x", "a//b", "./a"])
def test_hostile_paths_have_no_address(relpath: str) -> None:
    listed = output(VERSIONED.replace("a/b", relpath))
    assert find_versions([Wanted("", "data", listed)]) == {}


def test_levels_are_kept(write: Write) -> None:
    """What the judgement goes by."""
    config = load_config(write(remote("r", "s3://b"), user="['remote \"r\"']\nprofile = p\n"), os.environ)
    assert config.remotes["r"]["url"].level is Level.REPO
    assert config.remotes["r"]["profile"].level is Level.GLOBAL


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://me:pw@h/x?sig=1", "https://h/x"),
        ("na\x1bme", r"na\x1bme"),
        ("n" * 300, "n" * 200 + "…"),
        ("plain", "plain"),
    ],
)
def test_names_as_they_are_shown(text: str, shown: str) -> None:
    assert show_name(text) == shown


def test_a_file_url_is_a_directory() -> None:
    assert parse_remote_url("file:///srv/a%20b/../c").url == "/srv/c"
    with pytest.raises(InputError):
        parse_remote_url("file://host/srv")
