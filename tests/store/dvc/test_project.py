from __future__ import annotations

import os
import pwd
from collections.abc import Callable
from pathlib import Path

import pytest

from store.dvc.discovery import Broken, Metafile
from store.dvc.project import Kind, Project, default_cache_dir, find_project
from store.errors import ConfigInvalid
from store.git import work_tree

OUT = "outs:\n- path: {}\n  md5: 92ea5dc312bbab1be4c38c7b05d14fd6\n  hash: md5\n"


def _track(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(OUT.format(Path(name).stem))


def _found(project: Project) -> list[str]:
    return [found.path for found in project.metafiles()]


def test_a_repository_of_dvc(repository: Path) -> None:
    project = find_project(repository / "data/sub/not-there")
    assert (project.root, project.kind, project.cache_dir) == (
        repository,
        Kind.DVC,
        repository / ".dvc/cache",
    )
    found = list(project.metafiles())
    assert all(isinstance(metafile, Metafile) for metafile in found)
    paths = {m.path: [m.output_path(o) for o in m.outputs] for m in found if isinstance(m, Metafile)}
    assert paths == {
        "data.dvc": ["data"],
        "tools/deep.dvc": ["tools/deep/er"],
        "tools/run.sh.dvc": ["tools/run.sh"],
    }


def test_without_git_the_walk_finds_the_same_and_what_git_ignores(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work_tree, "list_files", lambda directory, *patterns: None)
    assert set(_found(find_project(repository))) == {
        "data.dvc", "tools/deep.dvc", "tools/run.sh.dvc", "scratch/x.dvc",
    }  # fmt: skip


def test_kinds_and_their_caches(tmp_path: Path, home: Path) -> None:
    for name in ("dvc/.dvc", "dvc/submodule/.git", "dvc/subrepo/.dvc", "git/.git", "git/sub", "none"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "worktree").mkdir()
    (tmp_path / "worktree/.git").write_text("gitdir: elsewhere\n")
    ours = home / "data/fusefs"
    found = {}
    for name in ("dvc", "dvc/submodule/x", "dvc/subrepo/x", "git/sub", "worktree/x/y", "none", "none/x/y"):
        project = find_project(tmp_path / name)
        found[name] = (project.root.relative_to(tmp_path).as_posix(), project.kind, project.cache_dir)
    assert found == {
        "dvc": ("dvc", Kind.DVC, tmp_path / "dvc/.dvc/cache"),
        "dvc/submodule/x": ("dvc", Kind.DVC, tmp_path / "dvc/.dvc/cache"),
        "dvc/subrepo/x": ("dvc/subrepo", Kind.DVC, tmp_path / "dvc/subrepo/.dvc/cache"),
        "git/sub": ("git", Kind.GIT, ours),
        "worktree/x/y": ("worktree", Kind.GIT, ours),
        "none": ("none", Kind.NONE, ours),
        "none/x/y": ("none", Kind.NONE, ours),
    }


def test_the_configured_cache(tmp_path: Path, run: Callable[..., str]) -> None:
    run(tmp_path, "dvc", "init", "--quiet", "--no-scm")
    run(tmp_path, "dvc", "cache", "dir", "--local", "../elsewhere")
    assert find_project(tmp_path).cache_dir == tmp_path.parent / "elsewhere"
    assert find_project(tmp_path).config.no_scm


def test_a_broken_configuration_is_named(tmp_path: Path) -> None:
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").write_text("nonsense")
    with pytest.raises(ConfigInvalid, match=r"\.dvc/config line 1"):
        find_project(tmp_path)


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({"HOME": "/h", "XDG_DATA_HOME": "/d"}, "/d/fusefs"),
        ({"HOME": "/h"}, "/h/.local/share/fusefs"),
        ({"HOME": "/h", "XDG_DATA_HOME": "relative"}, "/h/.local/share/fusefs"),
        ({}, f"{pwd.getpwuid(os.getuid()).pw_dir}/.local/share/fusefs"),
    ],
)
def test_default_cache(env: dict[str, str], expected: str) -> None:
    assert default_cache_dir(env) == Path(expected)


def test_the_walk_goes_where_dvc_goes(tmp_path: Path) -> None:
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvcignore").write_text("hidden\n*.old.dvc\n")
    _track(
        tmp_path,
        "b.dvc",
        "a/c.dvc",
        "hidden/x.dvc",
        "x.old.dvc",
        "b/inside.dvc",
        "subrepo/x.dvc",
        "outside/x.dvc",
    )
    _track(
        tmp_path,
        ".dvc/tmp/x.dvc",
        ".git/x.dvc",
        "name.dvc/d.dvc",
        "plain.txt",
        "nested/n.dvc",
        "nested/m.dvc",
    )
    (tmp_path / "subrepo/.dvc").mkdir()
    (tmp_path / "nested/.dvcignore").write_text("n.dvc\n")
    (tmp_path / "way").symlink_to("outside")
    (tmp_path / "outside/.dvcignore").write_text("/x.dvc\n")
    assert _found(find_project(tmp_path)) == ["b.dvc", "a/c.dvc", "name.dvc/d.dvc", "nested/m.dvc"]


def test_what_is_broken_does_not_take_the_rest_down(tmp_path: Path) -> None:
    (tmp_path / ".dvc").mkdir()
    _track(tmp_path, "good.dvc", "rules/unreachable.dvc", "z/good.dvc")
    (tmp_path / "bad.dvc").write_text("outs: [\n")
    (tmp_path / "rules/.dvcignore").write_text("!\n")
    os.mkfifo(tmp_path / "pipe.dvc")
    (tmp_path / "gone.dvc").symlink_to("nowhere")
    found = list(find_project(tmp_path).metafiles())
    assert [metafile.path for metafile in found if isinstance(metafile, Metafile)] == [
        "good.dvc",
        "z/good.dvc",
    ]
    assert [broken for broken in found if isinstance(broken, Broken)] == [
        Broken("bad.dvc", "bad.dvc line 2: not YAML: did not find expected node content"),
        Broken("pipe.dvc", "pipe.dvc cannot be read: not a regular file"),
        Broken("rules/.dvcignore", "'rules/.dvcignore' line 1 is not a pattern: '!'"),
    ]


def test_broken_rules_at_the_root_are_reported(tmp_path: Path) -> None:
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvcignore").write_text("!\n")
    [broken] = find_project(tmp_path).metafiles()
    assert isinstance(broken, Broken)
    assert broken.path == ".dvcignore"


def test_outside_of_repositories_only_the_directory_itself(tmp_path: Path) -> None:
    _track(tmp_path, "a.dvc", "below/b.dvc")
    assert _found(find_project(tmp_path)) == ["a.dvc"]


def test_git_is_asked_without_what_a_repository_configures(tmp_path: Path, run: Callable[..., str]) -> None:
    run(tmp_path, "git", "init", "--quiet")
    witness = tmp_path / "witness"
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\ntouch {witness}\n")
    program.chmod(0o755)
    hooks = tmp_path / ".git/hooks"
    hooks.mkdir(exist_ok=True)
    for hook in ("post-index-change", "fsmonitor-watchman"):
        (hooks / hook).symlink_to(program)
    run(tmp_path, "git", "config", "core.fsmonitor", str(program))
    _track(tmp_path, "a.dvc", "ignored.dvc", "sub/ignored.dvc")
    (tmp_path / ".gitignore").write_text("ignored.dvc\n")
    run(tmp_path, "git", "ls-files", "--others")
    assert witness.exists(), "git would have run the program"
    witness.unlink()
    assert work_tree.list_files(tmp_path, "*.dvc") == ["a.dvc"]
    assert not witness.exists()


def test_git_cannot_tell_outside_of_its_trees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert work_tree.list_files(tmp_path, "*.dvc") is None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert work_tree.list_files(tmp_path, "*.dvc") is None


def test_names_that_are_not_text(tmp_path: Path, run: Callable[..., str]) -> None:
    run(tmp_path, "git", "init", "--quiet")
    name = os.fsdecode(b"odd \xff\n name.dvc")
    (tmp_path / name).write_text(OUT.format("x"))
    assert _found(find_project(tmp_path)) == [name]
