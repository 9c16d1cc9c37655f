from __future__ import annotations

from pathlib import Path

import pytest

from store.dvc.files import WorkingFiles
from store.dvc.index import Index, find_dvc_roots, read_index
from store.oid import MD5_DOS2UNIX

DIGEST = "92ea5dc312bbab1be4c38c7b05d14fd6"


def _out(path: str, *, tree: bool = False, more: str = "") -> str:
    return f"- path: {path}\n  md5: {DIGEST}{'.dir' if tree else ''}\n  hash: md5\n{more}"


def _write(file: Path, *outs: str, head: str = "") -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{head}outs:\n{''.join(outs)}")


def _paths(index: Index) -> list[str]:
    return [tracked.path for tracked in index.outputs]


def test_outputs_are_sorted_by_their_parts(tmp_path: Path) -> None:
    outs = [
        _out("a", tree=True),
        _out("a-b"),
        _out("a.txt"),
        _out("A"),
        _out("b/c/d"),
        _out("b/c", tree=True),
    ]
    _write(tmp_path / "all.dvc", *outs)
    _write(tmp_path / "meta/inner.dvc", _out("../a/x"))
    index = read_index(WorkingFiles(tmp_path))
    assert _paths(index) == ["A", "a", "a/x", "a-b", "a.txt", "b/c", "b/c/d"]
    assert [broken.message for broken in index.broken] == [
        "'a/x' (of meta/inner.dvc) lies inside 'a' (of all.dvc); the inner one is shown there",
        "'b/c/d' (of all.dvc) lies inside 'b/c' (of all.dvc); the inner one is shown there",
    ]


def test_the_innermost_output_is_found(tmp_path: Path) -> None:
    _write(tmp_path / "all.dvc", _out("data", tree=True), _out("data/in/ner", tree=True), _out("file"))
    index = read_index(WorkingFiles(tmp_path))

    def find(path: str) -> tuple[str, str] | None:
        found = index.find(path)
        return (found[0].path, found[1]) if found else None

    assert find("data") == ("data", "")
    assert find("data/in") == ("data", "in")
    assert find("data/in/ner") == ("data/in/ner", "")
    assert find("data/in/ner/x/y") == ("data/in/ner", "x/y")
    assert find("data/in/nerd") == ("data", "in/nerd")
    assert find("file") == ("file", "")
    assert find("file/x") is None
    assert find("dat") is None
    assert find("") is None


def test_what_lies_below_a_directory(tmp_path: Path) -> None:
    _write(tmp_path / "all.dvc", *(_out(path) for path in ("a/b", "a/b/c", "a-/d", "a/c", "z")))
    index = read_index(WorkingFiles(tmp_path))
    assert [tracked.path for tracked in index.below("a")] == ["a/b", "a/b/c", "a/c"]
    assert [tracked.path for tracked in index.below("a/b")] == ["a/b/c"]
    assert [tracked.path for tracked in index.below("")] == _paths(index)
    assert index.below("a/") == index.below("nothing") == ()


def test_the_root_itself_as_an_output(tmp_path: Path) -> None:
    _write(tmp_path / "all.dvc", _out(".", tree=True))
    index = read_index(WorkingFiles(tmp_path))
    assert _paths(index) == [""]
    assert index.find("x/y") == (index.outputs[0], "x/y")
    assert index.below("") == ()


def test_one_path_tracked_twice(tmp_path: Path) -> None:
    _write(tmp_path / "a.dvc", "- path: x\n  hash: md5\n")
    _write(tmp_path / "b.dvc", _out("x"))
    _write(tmp_path / "c.dvc", _out("x", tree=True))
    index = read_index(WorkingFiles(tmp_path))
    [tracked] = index.outputs
    assert (tracked.metafile, tracked.output.is_dir) == ("b.dvc", False)
    assert [broken.message for broken in index.broken] == [
        "'x' is tracked twice, by a.dvc and b.dvc; one of them is left out",
        "'x' is tracked twice, by b.dvc and c.dvc; one of them is left out",
    ]


def test_outputs_that_have_no_place_in_the_repository(tmp_path: Path) -> None:
    outs = [
        "- path: s3://bucket/x\n  etag: a\n",
        _out("/abs"),
        _out("../../up"),
        _out("../../up/../d/x"),
        _out("y"),
    ]
    _write(tmp_path / "d/all.dvc", *outs)
    index = read_index(WorkingFiles(tmp_path))
    assert _paths(index) == ["d/y"]
    assert [broken.message for broken in index.broken] == [
        "d/all.dvc: '../../up' lies outside the repository; it is left out",
        "d/all.dvc: '../../d/x' lies outside the repository; it is left out",
    ]


def test_the_oldest_stage_files(tmp_path: Path) -> None:
    old = f"cmd: make\ndeps:\n- path: src\nouts:\n- cache: true\n  md5: {DIGEST}\n  metric: false\n"
    (tmp_path / "sub").mkdir()
    (tmp_path / "Dvcfile").write_text(old + "  path: made\nwdir: sub\n")
    (tmp_path / "sub/Dvcfile").write_text(old + "  path: model\n")
    (tmp_path / "sub/train.dvc").write_text(old + "  path: metrics.json\n")
    (tmp_path / "dvcfile").write_text("not one\n")
    index = read_index(WorkingFiles(tmp_path))
    assert [(tracked.path, tracked.metafile) for tracked in index.outputs] == [
        ("sub/made", "Dvcfile"),
        ("sub/metrics.json", "sub/train.dvc"),
        ("sub/model", "sub/Dvcfile"),
    ]
    assert {tracked.output.oid and tracked.output.oid.algorithm for tracked in index.outputs} == {
        MD5_DOS2UNIX
    }
    assert not index.broken


def test_what_is_broken_does_not_take_the_rest_down(tmp_path: Path) -> None:
    _write(tmp_path / "sub/good.dvc", _out("x"))
    (tmp_path / "sub/bad.dvc").write_text("<<<<<<< HEAD\nouts:\n")
    index = read_index(WorkingFiles(tmp_path), root="sub")
    assert _paths(index) == ["x"]
    [broken] = index.broken
    assert broken.path == "sub/bad.dvc"
    assert broken.message == "sub: bad.dvc line 1: a merge conflict that is not resolved"


def test_repositories_in_repositories(tmp_path: Path) -> None:
    for root in ("", "a", "a/b/c", "d/e"):
        (tmp_path / root / ".dvc/tmp").mkdir(parents=True)
        _write(tmp_path / root / "x.dvc", _out("x"))
    (tmp_path / ".git/.dvc").mkdir(parents=True)
    (tmp_path / "link").symlink_to("a")
    (tmp_path / "file").mkdir()
    (tmp_path / "file/.dvc").touch()
    files = WorkingFiles(tmp_path)
    assert find_dvc_roots(files) == ("", "a", "d/e", "a/b/c")
    for root in find_dvc_roots(files):
        assert _paths(read_index(files, root=root)) == ["x"]


@pytest.mark.parametrize("data", [b"", b"outs:\n", b"outs: []\n"])
def test_nothing_tracked(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.dvc").write_bytes(data)
    assert read_index(WorkingFiles(tmp_path)) == Index((), ())
