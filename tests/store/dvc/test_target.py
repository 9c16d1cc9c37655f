from __future__ import annotations

from pathlib import Path

import pytest

from store.dvc import discovery
from store.dvc import target as target_module
from store.dvc.discovery import Metafile
from store.dvc.files import WorkingFiles
from store.dvc.project import Kind, find_project
from store.dvc.target import find_target
from store.errors import InputError, MetafileInvalid, NotStored, NotTracked

DIGEST = "92ea5dc312bbab1be4c38c7b05d14fd6"


def _out(path: str, *, tree: bool = False, more: str = "") -> str:
    return f"- path: {path}\n  md5: {DIGEST}{'.dir' if tree else ''}\n  hash: md5\n{more}"


def _write(file: Path, *outs: str, head: str = "") -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{head}outs:\n{''.join(outs)}")


@pytest.mark.parametrize(
    ("name", "metafile", "path", "inside"),
    [
        ("data", "data.dvc", "data", ""),
        ("data/", "data.dvc", "data", ""),
        ("data.dvc", "data.dvc", "data", ""),
        ("data/sub", "data.dvc", "data", "sub"),
        ("data/sub/b", "data.dvc", "data", "sub/b"),
        ("data/not/there", "data.dvc", "data", "not/there"),
        ("tools/../data/./sub", "data.dvc", "data", "sub"),
        ("tools/run.sh", "tools/run.sh.dvc", "run.sh", ""),
        ("tools/deep/er", "tools/deep.dvc", "deep/er", ""),
        ("tools/deep/er/x", "tools/deep.dvc", "deep/er", "x"),
        ("link/run.sh", "tools/run.sh.dvc", "run.sh", ""),
        ("link/deep/er/x", "tools/deep.dvc", "deep/er", "x"),
    ],
)
def test_in_a_repository_of_dvc(repository: Path, name: str, metafile: str, path: str, inside: str) -> None:
    found = find_target(repository / name)
    assert found.project.root == repository
    assert found.metafile == repository / metafile
    assert [(output.path, found.inside) for output in found.outputs] == [(path, inside)]


def test_executable_files_keep_their_bit(repository: Path) -> None:
    [output] = find_target(repository / "tools/run.sh").outputs
    assert output.isexec


def test_relative_to_the_working_directory(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(repository / "data")
    assert find_target(Path("sub")).inside == "sub"
    assert find_target(Path("../tools/run.sh.dvc")).metafile == repository / "tools/run.sh.dvc"
    with pytest.raises(NotTracked, match=r"^\.\./nothing does not.*tracked nearby: .*\.\./tools/run\.sh"):
        find_target(Path("../nothing"))


def test_outside_of_any_repository(tmp_path: Path) -> None:
    _write(tmp_path / "photos.dvc", _out("photos", tree=True))
    (tmp_path / "photos/2020").mkdir(parents=True)
    for name, inside in {
        "photos": "",
        "photos.dvc": "",
        "photos/2020": "2020",
        "photos/2020/a.jpg": "2020/a.jpg",
    }.items():
        found = find_target(tmp_path / name)
        assert (found.project.kind, found.metafile, found.inside) == (
            Kind.NONE,
            tmp_path / "photos.dvc",
            inside,
        )


def test_one_metafile_with_several_outputs(tmp_path: Path) -> None:
    (tmp_path / ".dvc").mkdir()
    _write(tmp_path / "all.dvc", _out("a", tree=True), _out("b"), _out("m.json", more="  cache: false\n"))
    assert [output.path for output in find_target(tmp_path / "all.dvc").outputs] == ["a", "b"]
    assert [output.path for output in find_target(tmp_path / "b").outputs] == ["b"]
    assert find_target(tmp_path / "a/x/y").inside == "x/y"


def test_the_innermost_output_wins(tmp_path: Path) -> None:
    (tmp_path / ".dvc").mkdir()
    _write(tmp_path / "both.dvc", _out("data", tree=True), _out("data/inner", tree=True))
    assert find_target(tmp_path / "data/inner/x").outputs[0].path == "data/inner"
    assert find_target(tmp_path / "data/other").outputs[0].path == "data"


def test_metafiles_far_from_what_they_track(tmp_path: Path) -> None:
    (tmp_path / ".dvc").mkdir()
    _write(tmp_path / "meta/far.dvc", _out("data", tree=True), head="wdir: ../else\n")
    found = find_target(tmp_path / "else/data/x")
    assert (found.metafile, found.inside) == (tmp_path / "meta/far.dvc", "x")


def test_a_tracked_directory_that_is_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk/sub").mkdir(parents=True)
    (tmp_path / "repo/.dvc").mkdir(parents=True)
    (tmp_path / "repo/data").symlink_to(tmp_path / "disk")
    _write(tmp_path / "repo/data.dvc", _out("data", tree=True))
    assert find_target(tmp_path / "repo/data/sub").inside == "sub"


def test_a_link_into_another_repository(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name / ".dvc").mkdir(parents=True)
    (tmp_path / "two/sets").mkdir()
    (tmp_path / "one/sets").symlink_to(tmp_path / "two/sets")
    _write(tmp_path / "two/sets/x.dvc", _out("x"))
    for name in ("one/sets/x", "one/sets/x.dvc"):
        assert find_target(tmp_path / name).project.root == tmp_path / "two"


def test_the_near_place_spares_the_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def search(*arguments: object) -> None:
        raise AssertionError("searched everywhere")

    monkeypatch.setattr(target_module, "_look_everywhere", search)
    (tmp_path / ".dvc").mkdir()
    _write(tmp_path / "x.dvc", _out("data", tree=True))
    assert find_target(tmp_path / "data/a/b").inside == "a/b"


@pytest.mark.parametrize(
    ("outs", "message"),
    [
        ("- path: x\n  hash: md5\n", "'x' has no hash"),
        (_out("x", more="  cache: false\n"), "'x' is kept in git"),
        ("- path: s3://bucket/x\n  etag: a\n", "'s3://bucket/x' lies outside"),
    ],
)
def test_outputs_without_an_object_say_why(tmp_path: Path, outs: str, message: str) -> None:
    (tmp_path / ".dvc").mkdir()
    _write(tmp_path / "x.dvc", outs)
    with pytest.raises(NotStored) as caught:
        find_target(tmp_path / "x.dvc")
    assert str(caught.value).startswith(f"{tmp_path / 'x.dvc'}: {message}")


def test_a_path_without_an_object_says_why(tmp_path: Path) -> None:
    (tmp_path / ".dvc").mkdir()
    _write(tmp_path / "x.dvc", "- path: x\n  hash: md5\n")
    with pytest.raises(NotStored, match="'x' has no hash"):
        find_target(tmp_path / "x")


def test_not_tracked_names_what_is_and_the_remedy(tmp_path: Path) -> None:
    (tmp_path / ".dvc").mkdir()
    (tmp_path / "my photos").mkdir()
    for name in "abcde":
        _write(tmp_path / f"sets/{name}.dvc", _out(name))
    with pytest.raises(NotTracked) as caught:
        find_target(tmp_path / "my photos")
    sets = tmp_path / "sets"
    assert str(caught.value).split("; ") == [
        f"{tmp_path}/my photos is not tracked by DVC",
        f"tracked nearby: {sets}/a, {sets}/b, {sets}/c and 2 more",
        f"`fusefs commit '{tmp_path}/my photos'` would make a version of it",
    ]


@pytest.mark.parametrize("name", [".", "sets"])
def test_a_directory_that_holds_tracked_things_names_them(tmp_path: Path, name: str) -> None:
    (tmp_path / ".dvc").mkdir()
    _write(tmp_path / "sets/a.dvc", _out("a"))
    with pytest.raises(NotTracked) as caught:
        find_target(tmp_path / name)
    assert str(caught.value).endswith(f"is not tracked by DVC; name what is tracked in it: {tmp_path}/sets/a")


def test_what_does_not_exist_cannot_be_committed(tmp_path: Path) -> None:
    with pytest.raises(NotTracked) as caught:
        find_target(tmp_path / "nothing.dvc")
    assert str(caught.value) == f"{tmp_path}/nothing.dvc does not exist, nor is it tracked by DVC"


def test_broken_metafiles_are_named(tmp_path: Path) -> None:
    (tmp_path / ".dvc").mkdir()
    (tmp_path / "data.dvc").write_text("outs: 3\n")
    for name in ("data", "data.dvc"):
        with pytest.raises(MetafileInvalid, match=r"data.dvc line 1: outs is not a list"):
            find_target(tmp_path / name)
    with pytest.raises(NotTracked, match=r"not everything could be read: .*data.dvc line 1: outs"):
        find_target(tmp_path / "other")


def test_a_metafile_that_tracks_nothing(tmp_path: Path) -> None:
    (tmp_path / "x.dvc").touch()
    with pytest.raises(NotTracked, match="tracks nothing"):
        find_target(tmp_path / "x.dvc")


@pytest.mark.parametrize("name", ["n" * 254, "n" * 5000, "d/" * 1000 + "x", "/", "\udcff"])
def test_any_name_gets_an_answer(tmp_path: Path, name: str) -> None:
    (tmp_path / ".dvc").mkdir()
    with pytest.raises(NotTracked):
        find_target(tmp_path / name)


PIPELINE = """\
stages:
  train:
    foreach: [a, b]
    do:
      cmd: make
      wdir: work
      outs: ["model-${item}", "scores-${item}": {cache: false}]
"""
LOCK = f"""\
schema: '2.0'
stages:
  train@a:
    cmd: make
    outs:
    - {{path: model-a, hash: md5, md5: {DIGEST}.dir}}
    - {{path: scores-a, hash: md5, md5: {DIGEST}}}
"""


def _pipeline(root: Path) -> Path:
    (root / ".dvc").mkdir()
    (root / "sub").mkdir()
    (root / "sub/dvc.yaml").write_text(PIPELINE)
    (root / "sub/dvc.lock").write_text(LOCK)
    return root


def test_outputs_of_pipelines(tmp_path: Path) -> None:
    root = _pipeline(tmp_path)
    for name, inside in {"model-a": "", "model-a/x/y": "x/y"}.items():
        found = find_target(root / "sub/work" / name)
        assert (found.metafile, found.inside) == (root / "sub/dvc.yaml", inside)
        assert [(output.stage, output.path) for output in found.outputs] == [("train@a", "work/model-a")]
    assert [output.path for output in find_target(root / "sub/dvc.yaml").outputs] == ["work/model-a"]
    with pytest.raises(NotStored, match="'work/model-b' has no hash"):
        find_target(root / "sub/work/model-b")
    with pytest.raises(NotStored, match=r"'work/scores-a' is kept in git"):
        find_target(root / "sub/work/scores-a")


def test_outputs_of_pipelines_far_away(tmp_path: Path) -> None:
    root = _pipeline(tmp_path)
    text = (root / "sub/dvc.yaml").read_text()
    (root / "sub/dvc.yaml").write_text(text.replace("wdir: work", "wdir: ../other"))
    assert find_target(root / "other/model-a/x").metafile == root / "sub/dvc.yaml"


def test_a_pipeline_that_is_broken_is_named(tmp_path: Path) -> None:
    root = _pipeline(tmp_path)
    (root / "sub/dvc.yaml").write_text("stages: 3\n")
    with pytest.raises(
        NotTracked, match=r"not everything could be read: .*sub/dvc\.yaml line 1: stages is not"
    ):
        find_target(root / "sub/work/model-a")
    with pytest.raises(MetafileInvalid, match=r"dvc\.yaml line 1"):
        find_target(root / "sub/dvc.yaml")
    (root / "sub/dvc.yaml").write_text("stages: {a: 3}\n")
    with pytest.raises(NotTracked, match=r"tracks nothing: .*stage 'a': .*not a mapping"):
        find_target(root / "sub/dvc.yaml")


def test_a_metafile_of_the_right_name_needs_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = _pipeline(tmp_path)
    _write(root / "sub/data.dvc", _out("data", tree=True))
    for number in range(20):
        _write(root / f"sub/other{number}.dvc", _out(f"other{number}"))
    read: list[str] = []

    def read_metafile(files: WorkingFiles, path: str, where: str) -> Metafile | None:
        read.append(path)
        return discovery.read_metafile(files, path, where)

    monkeypatch.setattr(target_module, "read_metafile", read_metafile)
    assert find_target(root / "sub/data/x/y").inside == "x/y"
    assert read == ["sub/data.dvc"]
    read.clear()
    find_target(root / "sub/data.dvc")
    assert read == ["sub/data.dvc"]


def test_a_current_directory_that_was_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    for ask in (find_target, find_project):
        with pytest.raises(
            InputError, match=r"^the current directory was removed; change to one that exists$"
        ):
            ask(Path("data"))
