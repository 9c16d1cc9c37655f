"""Whose configuration is heeded: that of revisions, of clones, and of other users' repositories."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from store.dvc.config import Level, load_config, load_config_at
from store.dvc.files import WorkingFiles
from store.dvc.project import find_project
from store.errors import ConfigInvalid
from store.git.files import GitFiles
from store.git.repository import Repository

STRANGER = 54321


@pytest.fixture
def estrange(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Make what lies at a path somebody else's; or, where we may not, ourselves somebody else."""

    def estrange(root: Path) -> None:
        if os.geteuid():
            monkeypatch.setattr(os, "geteuid", lambda: STRANGER)
            return
        for path in (root, *root.rglob("*")):
            os.chown(path, STRANGER, STRANGER, follow_symlinks=False)

    return estrange


def _project(root: Path, config: str, name: str = "config") -> Path:
    (root / ".dvc").mkdir(parents=True, exist_ok=True)
    (root / ".dvc" / name).write_text(config)
    return root


def _committed(directory: Path, config: str) -> WorkingFiles:
    """What stands for the files of a revision."""
    return WorkingFiles(_project(directory, config))


def test_a_revision_has_its_repo_file_and_todays_others(tmp_path: Path, home: Path) -> None:
    (home / "config/dvc").mkdir(parents=True)
    (home / "config/dvc/config").write_text(
        "[core]\nremote = global\nautostage = true\n[cache]\nshared = group\n"
    )
    root = _project(tmp_path / "today", "[core]\nremote = today\n['remote \"t\"']\nurl = s3://t\n")
    _project(root, "['remote \"r\"']\nuser = me\n", "config.local")
    files = _committed(
        tmp_path / "then", "[core]\nremote = then\n['remote \"r\"']\nurl = ../../stor\nuser = they\n"
    )
    config = load_config_at(files, "v1.0", root / ".dvc", os.environ)
    setting = config.get("core", "remote")
    assert setting
    assert (setting.value, setting.level, str(setting.file)) == ("then", Level.REVISION, "v1.0:.dvc/config")
    assert "t" not in config.remotes
    assert config.remotes["r"]["url"].value == str(tmp_path / "stor")
    assert (config.remotes["r"]["user"].value, config.remotes["r"]["user"].level) == ("me", Level.LOCAL)
    assert config.cache_shared_group


def test_where_a_revision_says_the_cache_is(tmp_path: Path, home: Path) -> None:
    root = _project(tmp_path / "today", "")
    for said in ("[cache]\ndir = /elsewhere\n", "[cache]\nlocal = x\n['remote \"x\"']\nurl = /elsewhere\n"):
        config = load_config_at(_committed(tmp_path / "then", said), "v1.0", root / ".dvc", os.environ)
        assert config.cache_dir is None
    assert find_project(root).cache_dir == root / ".dvc/cache"
    (home / "config/dvc").mkdir(parents=True)
    (home / "config/dvc/config").write_text("[cache]\ndir = /mine\n")
    config = load_config_at(_committed(tmp_path / "then", ""), "v1.0", root / ".dvc", os.environ)
    assert config.cache_dir == Path("/mine")


def test_a_revision_that_picks_ones_own_remote_as_cache_is_not_followed(tmp_path: Path, home: Path) -> None:
    (home / "config/dvc").mkdir(parents=True)
    (home / "config/dvc/config").write_text("['remote \"backup\"']\nurl = /backup\n")
    said = "[cache]\nlocal = backup\n"
    assert load_config_at(_committed(tmp_path / "then", said), "v1", None, os.environ).cache_dir is None
    assert load_config(_project(tmp_path / "now", said) / ".dvc", os.environ).cache_dir == Path("/backup")


def test_a_clone_has_no_directory_to_be_relative_to(tmp_path: Path) -> None:
    files = _committed(
        tmp_path / "then/sub", "['remote \"r\"']\nurl = ../../stor\n['remote \"s\"']\nurl = s3://b\n"
    )
    config = load_config_at(WorkingFiles(tmp_path / "then"), "HEAD", None, os.environ, root="sub")
    assert config.remotes["r"]["url"].value == "../../stor"
    assert config.remotes["s"]["url"].value == "s3://b"
    assert str(config.remotes["s"]["url"].file) == "HEAD:sub/.dvc/config"
    assert not load_config_at(files, "HEAD", None, os.environ, root="nothing").remotes


def test_a_broken_file_of_a_revision_is_named(tmp_path: Path) -> None:
    files = _committed(tmp_path / "then", "[core]\nnonsense\n")
    with pytest.raises(ConfigInvalid, match=r"^v1\.0:\.dvc/config line 2: "):
        load_config_at(files, "v1.0", None, os.environ)


def test_a_committed_link_is_not_followed(tmp_path: Path, run: Callable[..., str]) -> None:
    (tmp_path / "secret").write_text("[core]\nremote = x\n")
    root = tmp_path / "repository"
    (root / ".dvc").mkdir(parents=True)
    (root / ".dvc/config").symlink_to(tmp_path / "secret")
    run(root, "git", "init", "--quiet")
    run(root, "git", "add", ".")
    run(root, "git", "-c", "user.name=n", "-c", "user.email=e@x", "commit", "--quiet", "--message", "m")
    with Repository.open(root) as repository:
        files = GitFiles(repository, repository.resolve("HEAD"))
        with pytest.raises(ConfigInvalid, match=r"^HEAD:\.dvc/config cannot be read: a symlink"):
            load_config_at(files, "HEAD", None, os.environ)
    with pytest.raises(ConfigInvalid, match="is a symlink"):
        find_project(root)


@pytest.mark.parametrize("name", ["config", "config.local"])
def test_ones_own_repository_may_name_any_cache(tmp_path: Path, name: str) -> None:
    root = _project(tmp_path / "r", "[cache]\ndir = /data/cache\n", name)
    assert find_project(root).cache_dir == Path("/data/cache")


@pytest.mark.parametrize("name", ["config", "config.local"])
def test_another_users_repository_may_not(
    tmp_path: Path, home: Path, name: str, estrange: Callable[[Path], None]
) -> None:
    root = _project(tmp_path / "r", f"[cache]\ndir = {tmp_path}/outside\n", name)
    estrange(root)
    project = find_project(root)
    with pytest.raises(ConfigInvalid) as caught:
        _ = project.cache_dir
    assert str(caught.value) == (
        f"{root} belongs to another user, and its cache '{tmp_path}/outside' lies outside of it; "
        "if you want that one, say so with `dvc config --global cache.dir` or --cache"
    )


def test_another_users_cache_that_is_a_link(tmp_path: Path, estrange: Callable[[Path], None]) -> None:
    root = _project(tmp_path / "r", "")
    (tmp_path / "outside").mkdir()
    (root / ".dvc/cache").symlink_to(tmp_path / "outside")
    assert find_project(root).cache_dir == root / ".dvc/cache"
    estrange(root)
    with pytest.raises(ConfigInvalid, match="lies outside of it"):
        _ = find_project(root).cache_dir


def test_another_users_repository_with_its_own_cache(
    tmp_path: Path, estrange: Callable[[Path], None]
) -> None:
    root = _project(tmp_path / "r", "[cache]\ndir = ../objects\n")
    estrange(root)
    assert find_project(root).cache_dir == root / "objects"


def test_ones_own_configuration_holds_for_another_users_repository(
    tmp_path: Path, home: Path, estrange: Callable[[Path], None]
) -> None:
    (home / "config/dvc").mkdir(parents=True)
    (home / "config/dvc/config").write_text("[cache]\ndir = /data/cache\n")
    root = _project(tmp_path / "r", "")
    estrange(root)
    assert find_project(root).cache_dir == Path("/data/cache")
