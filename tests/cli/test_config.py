"""`fusefs config`: every option that is set, where from, and no secret."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.cli.conftest import Command, Project, run_tool
from tests.repositories import initialize

SECRETS = {
    "secret_access_key": "s3cret-key",
    "session_token": "t0ken-session",
    "password": "hunter-2",
    "connection_string": "AccountKey=azure-string",
    "sas_token": "sv=sas",
    "passphrase": "a pass phrase",
}


def options(command: Command, *words: str | Path, cwd: Path) -> dict[str, tuple[object, str]]:
    told = command("config", "--json", *words, cwd=cwd).json
    return {option["name"]: (option["value"], option["level"]) for option in told}


def test_what_holds_and_from_where(command: Command, project: Project, tmp_path: Path) -> None:
    (tmp_path / "home/config/dvc").mkdir(parents=True)
    (tmp_path / "home/config/dvc/config").write_text("[core]\nremote = far\n[cache]\ntype = copy\n")
    (project.root / ".dvc/config").write_text(
        "[core]\nremote = near\n['remote \"near\"']\nurl = ../../store\njobs = 1,2\n"
    )
    (project.root / ".dvc/config.local").write_text("[cache]\ndir = /srv/cache\n")
    assert options(command, cwd=project.root) == {
        "cache.dir": ("/srv/cache", "local"),
        "cache.type": ("copy", "global"),
        "core.remote": ("near", "repo"),
        "remote.near.jobs": (["1", "2"], "repo"),
        "remote.near.url": (str(tmp_path / "store"), "repo"),
    }
    lines = command("config", cwd=project.root).lines
    assert lines[0].startswith("cache.dir = /srv/cache  ")
    assert lines[0].endswith(f"  local: {project.root}/.dvc/config.local")


def test_secrets_are_masked(command: Command, project: Project) -> None:
    remote = "".join(f"{name} = {value}\n" for name, value in SECRETS.items())
    (project.root / ".dvc/config.local").write_text(
        f"['remote \"r\"']\nurl = https://user:hunter-3@example.org/x?sig=signature\n{remote}"
        "user = user\nnote = before hunter-2 after\nlist = a, hunter-2\n"
    )
    for words in ((), ("--json",)):
        shown = command("config", *words, cwd=project.root).stdout
        assert not any(secret in shown for secret in (*SECRETS.values(), "hunter-3", "signature"))
        assert "user" in shown
    told = options(command, cwd=project.root)
    assert told["remote.r.note"] == ("before *** after", "local")
    assert told["remote.r.url"] == ("https://user:***@example.org/x?***", "local")


def test_what_the_real_dvc_wrote(command: Command, tmp_path: Path) -> None:
    root = initialize(tmp_path / "real")
    run_tool(root, "dvc", "remote", "add", "--quiet", "-d", "store", "s3://bucket/path")
    run_tool(root, "dvc", "remote", "modify", "--local", "store", "secret_access_key", "abc,def")
    assert options(command, cwd=root) == {
        "core.remote": ("store", "repo"),
        "remote.store.url": ("s3://bucket/path", "repo"),
        "remote.store.secret_access_key": ("***", "local"),
    }


def test_a_revision(command: Command, project: Project) -> None:
    (project.root / ".dvc/config").write_text(
        "[core]\nremote = old\n[cache]\ndir = /etc\n['remote \"old\"']\nurl = ../store\n"
    )
    project.commit("Old", "v1")
    (project.root / ".dvc/config").write_text("[core]\nremote = new\n")
    (project.root / ".dvc/config.local").write_text("[cache]\ntype = copy\n")
    expected = {
        "core.remote": ("old", "revision"),
        "cache.type": ("copy", "local"),
        "remote.old.url": (str(project.root / "store"), "revision"),
    }
    assert options(command, "--rev", "v1", cwd=project.root) == expected
    assert options(command, "--repo", project.root, "--rev", "v1", cwd=project.root.parent) == expected
    lines = command("config", "--rev", "v1", cwd=project.root).lines
    assert lines[1].endswith("revision: v1:.dvc/config")


def test_nothing_is_set(command: Command, tmp_path: Path) -> None:
    done = command("config", cwd=tmp_path)
    assert (done.status, done.stdout) == (0, "")
    assert "no option is set" in done.stderr
    assert command("config", "--json", cwd=tmp_path).json == []


@pytest.mark.parametrize("words", [["--rev", "v9"], ["--repo", "/nowhere"]])
def test_bad_input_is_one_line(command: Command, project: Project, words: list[str]) -> None:
    project.commit("Empty")
    done = command("config", *words, cwd=project.root)
    assert (done.status, done.stdout, done.stderr.count("\n")) == (1, "", 1)


def test_a_broken_file_is_one_line_without_its_text(command: Command, project: Project) -> None:
    (project.root / ".dvc/config").write_text("password hunter-2\n")
    done = command("config", cwd=project.root)
    assert (done.status, done.stderr.count("\n")) == (1, 1)
    assert "hunter-2" not in done.stderr


def test_how_far_remotes_are_trusted(command: Command, project: Project, tmp_path: Path) -> None:
    (tmp_path / "home/config/dvc").mkdir(parents=True)
    (tmp_path / "home/config/dvc/config").write_text("['remote \"m\"']\nurl = https://mine.example/x\n")
    (project.root / ".dvc/config").write_text(
        "[core]\nremote = b\n['remote \"a\"']\nurl = https://u:hunter-2@a.example\nprofile = p\n"
        "['remote \"b\"']\nurl = https://mine.example/y\n['remote \"c\"']\nurl = gdrive://root\n"
    )
    project.commit("Remotes")
    done = command("config", cwd=project.root)
    assert done.lines[done.lines.index("remotes in the order in which they are asked:") + 1 :] == [
        "  b  https://mine.example/y  trusted, with your credentials",
        "  m  https://mine.example/x  trusted, with your credentials",
        "  a  https://a.example  trusted, with your credentials",
    ]
    assert "the remote 'c': remotes of the kind gdrive:// are not supported" in done.stderr
    served = f"file://{project.root}"
    assert "trusted" in command("config", "--repo", served, cwd=tmp_path).stdout  # a path of this machine


def test_remotes_of_another_users_repository(
    command: Command, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project.root / ".dvc/config").write_text("['remote \"a\"']\nurl = https://a.example\nprofile = p\n")
    owner = os.geteuid() + 4321
    if os.geteuid():
        monkeypatch.setattr(os, "geteuid", lambda: owner)
    else:
        for path in (project.root / ".dvc", project.root / ".dvc/config"):
            os.chown(path, owner, owner)
    done = command("config", cwd=project.root)
    assert "  a  https://a.example  not trusted, with no credentials but its own" in done.lines
    assert "profile of the remote 'a' is not followed" in done.stderr
    [url] = [one for one in command("config", "--json", cwd=project.root).json if one["option"] == "url"]
    assert (url["trusted"], url["ambient"]) == (False, False)
