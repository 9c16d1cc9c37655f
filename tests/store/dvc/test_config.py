from __future__ import annotations

from pathlib import Path

import pytest

from store.dvc.config import Config, Level, load_config
from store.errors import ConfigInvalid

_NAMED = {"SYSTEM": "system", "GLOBAL": "user"}


def _load(tmp_path: Path, **texts: str) -> Config:
    """The configuration with these texts as system, global_, repo and local."""
    for level, name in {
        "system": "system/dvc/config",
        "global_": "user/dvc/config",
        "repo": "repo/.dvc/config",
        "local": "repo/.dvc/config.local",
    }.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if level in texts:
            file.write_text(texts[level])
    env = {
        "HOME": str(tmp_path / "home"),
        "XDG_CONFIG_DIRS": f"{tmp_path / 'system'}:/nowhere",
        "XDG_CONFIG_HOME": str(tmp_path / "user"),
    }
    return load_config(tmp_path / "repo/.dvc", env)


def test_nothing_is_set_by_default(tmp_path: Path) -> None:
    config = load_config(None, {"HOME": str(tmp_path), "XDG_CONFIG_DIRS": str(tmp_path)})
    assert config == Config({}, {})
    assert config.cache_dir is None
    assert config.cache_types == ("reflink", "copy")
    assert (config.cache_shared_group, config.hardlink_lock, config.no_scm) == (False, False, False)


def test_the_environment_may_name_the_directories(tmp_path: Path) -> None:
    """They hold `config` themselves, and what XDG's variables name does not count beside them."""
    for name, text in {
        "system": "[core]\na = s\nb = s\n",
        "user": "[core]\nb = u\n",
        "xdg/dvc": "[core]\na = no\nc = no\n",
    }.items():
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "config").write_text(text)
    named = {f"DVC_{level}_CONFIG_DIR": str(tmp_path / name) for level, name in _NAMED.items()}
    xdg = dict.fromkeys(("XDG_CONFIG_DIRS", "XDG_CONFIG_HOME"), str(tmp_path / "xdg"))
    config = load_config(None, {"HOME": str(tmp_path), **xdg, **named})
    found = {option: config.get("core", option) for option in "abc"}
    assert {option: setting and (setting.value, setting.level) for option, setting in found.items()} == {
        "a": ("s", Level.SYSTEM),
        "b": ("u", Level.GLOBAL),
        "c": None,
    }


def test_stronger_files_win_option_by_option(tmp_path: Path) -> None:
    config = _load(
        tmp_path,
        system="[core]\na = s\nb = s\nc = s\nd = s\n",
        global_="[core]\nb = g\nc = g\nd = g\n",
        repo="[CORE]\nC = r\nd = r\n['remote \"R\"']\nurl = s3://x\nuser = u\n",
        local='[core]\nd = l\n[remote "r"]\nuser = v\n',
    )
    found = {option: config.get("core", option) for option in "abcde"}
    assert {k: v and (v.value, v.level) for k, v in found.items()} == {
        "a": ("s", Level.SYSTEM),
        "b": ("g", Level.GLOBAL),
        "c": ("r", Level.REPO),
        "d": ("l", Level.LOCAL),
        "e": None,
    }
    assert {k: v.value for k, v in config.remotes["r"].items()} == {"url": "s3://x", "user": "v"}
    assert config.remotes["r"]["user"].file == tmp_path / "repo/.dvc/config.local"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("../../shared", "shared"),
        ("cache dir", "repo/.dvc/cache dir"),
        ("'quoted, with comma'", "repo/.dvc/quoted, with comma"),
        ("~", "home"),
        ("~/c", "home/c"),
        ("~nobody-of-this-name/c", "repo/.dvc/~nobody-of-this-name/c"),
    ],
)
def test_relative_paths_begin_at_the_file(tmp_path: Path, text: str, expected: str) -> None:
    config = _load(tmp_path, repo=f"[cache]\ndir = {text}\n")
    assert config.cache_dir == tmp_path / expected


def test_paths_of_remotes(tmp_path: Path) -> None:
    text = '[remote "a"]\nurl = ../../store\nkeyfile = key\nuser = ./me\n[remote "b"]\nurl = remote://a/x\n'
    config = _load(tmp_path, repo=text)
    values = {option: setting.value for option, setting in config.remotes["a"].items()}
    assert values == {
        "url": str(tmp_path / "store"),
        "keyfile": str(tmp_path / "repo/.dvc/key"),
        "user": "./me",
    }
    assert config.remotes["b"]["url"].value == "remote://a/x"


def test_cache_options(tmp_path: Path) -> None:
    config = _load(
        tmp_path,
        repo="[cache]\ntype = hardlink, symlink\nshared = Group\ndir = /repo\n"
        "[core]\nhardlink_lock = True\nno_scm = true\n",
        local='[cache]\ntype = "reflink, copy"\ndir = /local\n',
    )
    assert config.cache_dir == Path("/local")
    assert config.cache_types == ("reflink", "copy")
    assert config.cache_shared_group
    assert config.hardlink_lock
    assert config.no_scm


def test_a_remote_can_be_named_as_cache(tmp_path: Path) -> None:
    config = _load(tmp_path, repo='[cache]\nlocal = Mine\n[remote "mine"]\nurl = ../c\n')
    assert config.cache_dir == tmp_path / "repo/c"


@pytest.mark.parametrize(
    ("text", "accessor", "message"),
    [
        ("[cache]\ntype = junction\n", "cache_types", "cache.type may hold"),
        ("[cache]\nshared = all\n", "cache_shared_group", "cache.shared can only be"),
        ("[cache]\ndir = a, b\n", "cache_dir", "cache.dir is a list"),
        ("[cache]\ndir = s3://x/y\n", "cache_dir", "cache.dir is 's3:/x/y'"),
        ("[cache]\nlocal = nobody\n", "cache_dir", "cache.local names a remote"),
        ("[core]\nhardlink_lock = 1\n", "hardlink_lock", "core.hardlink_lock is neither"),
    ],
)
def test_values_without_sense_name_their_file(tmp_path: Path, text: str, accessor: str, message: str) -> None:
    config = _load(tmp_path, repo=text)
    with pytest.raises(ConfigInvalid) as caught:
        getattr(config, accessor)
    assert str(caught.value).startswith(f"{tmp_path / 'repo/.dvc/config'}: {message}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[core]\nsecret\n", "line 2: neither [section] nor name = value"),
        ("[core]\na = 'secret\n", "line 2: neither"),
        ("[core]\nsecret\nsecret\n", "line 2: neither"),
        ("[core]\nsecret = 1\nsecret = 2\n", "line 3: this name stands there a second time"),
        ("[secret]\n[secret]\n", "line 2: this name"),
        ("[[secret]]\n", "line 1: a section that does not belong"),
        ("[core]\na = %(secret)s\n", "refers to an option"),
        ("[core]\na = %(b)s\nb = %(a)s\n", "refers to an option"),
        ("[core]\n" + "a = %(b)s\n" * 17, "refers to its own options"),
        ("".join(f"{'[' * n}s{']' * n}\n" for n in range(1, 1010)), "has sections nested too deep"),
        ("[core]\na = \0\n", "is not text"),
    ],
)
def test_broken_files_give_one_line_without_their_content(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        _load(tmp_path, repo=text)
    assert str(caught.value).startswith(f"{tmp_path / 'repo/.dvc/config'} {message}")
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_byte_order_mark_and_bytes_that_are_not_utf8(tmp_path: Path) -> None:
    assert _load(tmp_path, repo="\ufeff[core]\nremote = r\n").get("core", "remote")
    (tmp_path / "repo/.dvc/config").write_bytes(b"[core]\na = \xff\n")
    with pytest.raises(ConfigInvalid, match="is not UTF-8"):
        _load(tmp_path)


def test_interpolation_as_configobj_does_it(tmp_path: Path) -> None:
    config = _load(tmp_path, repo="[cache]\nbase = /x\ndir = %(base)s/y\n")
    assert config.cache_dir == Path("/x/y")


def test_links_are_refused_in_a_project_and_followed_at_home(tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.write_text("[cache]\ndir = c\n")
    link = tmp_path / "user/dvc/config"
    link.parent.mkdir(parents=True)
    link.symlink_to(real)
    assert _load(tmp_path).cache_dir == tmp_path / "user/dvc/c"
    (tmp_path / "repo/.dvc/config").symlink_to(real)
    with pytest.raises(ConfigInvalid, match="is a symlink"):
        _load(tmp_path)


def test_what_is_not_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "repo/.dvc/config").mkdir(parents=True)
    with pytest.raises(ConfigInvalid, match="cannot be read: not a regular file"):
        _load(tmp_path)
