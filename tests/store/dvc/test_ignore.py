from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from store.dvc.ignore import SIZE_LIMIT, IgnoreRules
from store.errors import ConfigInvalid

RULES = {
    ".dvcignore": "# comment\n*.log\n!keep.log\n/top\nbuild/\n  spaced  \na/**/z\n**/deep\nlogs/**\n"
    "foo\\ bar\n\\#hash\n\\!bang\n[x-y].txt\n!kept\n[bad\n/\ntmp*\n!tmp/in\n",
    "nested/.dvcignore": "!special.log\n/only\nsub/file\ndirs/\n\\*star\n**/everywhere\n",
    "nested/sub/.dvcignore": "only\n!everywhere\n",
    "all/.dvcignore": "**\n!back\n",
    "build/.dvcignore": "!x\n",
    "#odd/.dvcignore": "name\n",
    "glob[1]/.dvcignore": "name\n",
}
FILES = [
    *(
        "a.log",
        "keep.log",
        "top",
        "sub/top",
        "build/x",
        "sub/build/x",
        "file/build",
        "spaced",
        "a/z",
        "a/b/c/z",
    ),
    *(
        "b/a/z",
        "deep",
        "q/deep/x",
        "logs/x",
        "logs/y/z",
        "p/logs/x",
        "foo bar",
        "#hash",
        "!bang",
        "x.txt",
        "z.txt",
    ),
    *("kept/a.log", "kept/b", "[bad", "tmp/in", "tmp1", "q/tmp2/x"),
    *("nested/special.log", "nested/q/special.log", "nested/other.log", "nested/only", "nested/q/only"),
    *(
        "nested/sub/file",
        "nested/q/sub/file",
        "nested/dirs/x",
        "nested/q/dirs",
        "nested/*star",
        "nested/xstar",
    ),
    *(
        "nested/everywhere",
        "nested/q/everywhere",
        "nested/sub/only",
        "nested/sub/q/only",
        "nested/sub/everywhere",
    ),
    *(
        "everywhere",
        "only",
        "all/back",
        "all/x",
        "#odd/name",
        "#odd/x",
        "glob[1]/name",
        "glob1/name",
        "1",
        "é/ü.log",
    ),
]


def _fill(root: Path, files: list[str], rules: dict[str, str]) -> list[str]:
    """Write them; the relative paths of all files and directories that there are now."""
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    for name, text in rules.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    paths = sorted(root.rglob("*"))
    return [
        p.relative_to(root).as_posix() for p in paths if not {".dvc", ".git"} & set(p.relative_to(root).parts)
    ]


def test_agrees_with_dvc_check_ignore(tmp_path: Path, run: Callable[..., str]) -> None:
    run(tmp_path, "dvc", "init", "--quiet", "--no-scm")
    paths = _fill(tmp_path, FILES, RULES)
    theirs = run(tmp_path, "dvc", "check-ignore", *(f"./{path}" for path in paths)).splitlines()
    rules = IgnoreRules.load(tmp_path)
    ours = [f"./{path}" for path in paths if rules.ignores(path, (tmp_path / path).is_dir())]
    assert ours == theirs
    assert len(theirs) > 30


def test_agrees_with_dvc_add(tmp_path: Path, run: Callable[..., str]) -> None:
    run(tmp_path, "dvc", "init", "--quiet", "--no-scm")
    _fill(
        tmp_path,
        [f"data/{name}" for name in FILES],
        {".dvcignore": RULES[".dvcignore"].replace("/top", "/data/top")},
    )
    for hidden in (
        "data/.git/config",
        "data/.hg/x",
        "data/q/.dvc/config",
        "data/plain/.git",
        "data/.gitignore",
    ):
        (tmp_path / hidden).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / hidden).touch()
    run(tmp_path, "dvc", "add", "--quiet", "data")
    [manifest] = tmp_path.glob(".dvc/cache/files/md5/*/*.dir")
    theirs = {f"data/{entry['relpath']}" for entry in json.loads(manifest.read_bytes())}
    rules = IgnoreRules.load(tmp_path)
    paths = [path for path in (tmp_path / "data").rglob("*") if path.is_file()]
    relative = [path.relative_to(tmp_path).as_posix() for path in paths]
    assert {path for path in relative if not rules.ignores(path, False)} == theirs
    assert {"data/kept/a.log", "data/.gitignore"} <= theirs


@pytest.mark.parametrize(
    "order", list(itertools.permutations(["nested/q/only", "nested/sub/q/only", "build/x"]))
)
def test_answers_do_not_depend_on_the_order_of_questions(tmp_path: Path, order: tuple[str, ...]) -> None:
    _fill(tmp_path, FILES, RULES)
    rules = IgnoreRules.load(tmp_path)
    found = {path: rules.ignores(path, False) for path in order}
    assert found == {"nested/q/only": False, "nested/sub/q/only": True, "build/x": True}


def test_built_in_rules(tmp_path: Path) -> None:
    (tmp_path / "sub/.dvc").mkdir(parents=True)
    rules = IgnoreRules.load(tmp_path)
    directories = {
        name: rules.ignores(name, True) for name in (".git", "a/.hg", ".dvc", "sub", "a", ".github")
    }
    assert directories == {
        ".git": True,
        "a/.hg": True,
        ".dvc": True,
        "sub": True,
        "a": False,
        ".github": False,
    }
    files = {name: rules.ignores(name, False) for name in (".git", ".hg", "x.dvc", ".git/config", "sub/x")}
    assert files == {".git": True, ".hg": False, "x.dvc": False, ".git/config": True, "sub/x": True}


def test_a_rule_of_many_stars_costs_no_more_than_others(tmp_path: Path) -> None:
    (tmp_path / ".dvcignore").write_text("*a" * 40 + "*b\n" + "*a*\\*?c*b\n")
    rules = IgnoreRules.load(tmp_path)
    # Trying all divisions of the name would not end within a lifetime.
    assert not rules.ignores("a" * 250, False)
    assert rules.ignores("a" * 250 + "b", False)
    assert rules.ignores("xax*xcxb", False)


def test_a_path_of_thousands_of_directories(tmp_path: Path) -> None:
    (tmp_path / ".dvcignore").write_text("*.log\n")
    rules = IgnoreRules.load(tmp_path)
    assert rules.ignores("d/" * 2000 + "x.log", False)
    assert not rules.ignores("d/" * 2000 + "x", False)
    # Longer than any that can be opened.
    assert rules.ignores("d/" * 3000 + "x.log", False)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"ok\n!\n", "'sub/.dvcignore' line 2 is not a pattern: '!'"),
        (b"ok\n\nescape\\\n", "'sub/.dvcignore' line 3 is not a pattern"),
        (b"ok\n\xff\n", "'sub/.dvcignore' line 2 is not UTF-8"),
        (b"*[a]" * 9, "'sub/.dvcignore' line 1 has too many stars"),
        (b"x" * (SIZE_LIMIT + 1), "'sub/.dvcignore' has more than"),
    ],
)
def test_broken_rules_name_file_and_line(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/.dvcignore").write_bytes(content)
    rules = IgnoreRules.load(tmp_path)
    assert not rules.ignores("sub", True)
    with pytest.raises(ConfigInvalid) as caught:
        rules.ignores("sub/x", False)
    assert str(caught.value).startswith(message)


def test_rules_that_are_no_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / ".dvcignore").mkdir()
    with pytest.raises(ConfigInvalid, match=r"'.dvcignore' cannot be read: not a regular file"):
        IgnoreRules.load(tmp_path)
