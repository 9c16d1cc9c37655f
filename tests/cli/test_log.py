"""`fusefs log`: the versions of a dataset, held against the history that was made."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.cli.conftest import V1, V2, V3, Command, Project, run_tool


def size(files: dict[str, bytes]) -> int:
    return sum(map(len, files.values()))


def test_the_versions_newest_first(command: Command, history: Project) -> None:
    versions = command("log", "--json", "data", cwd=history.root).json
    assert [version["subject"] for version in versions] == ["Third data", "Second data", "First data"]
    assert [version["tags"] for version in versions] == [["v3"], ["v2"], ["v1"]]
    assert [version["files"] for version in versions] == [3, 4, 3]
    assert [version["bytes"] for version in versions] == [size(V3), size(V2), size(V1)]
    third, second, first = versions
    assert first["added"] == {"files": 3, "bytes": size(V1)}
    assert (second["added"], second["changed"], second["removed"]) == (
        {"files": 1, "bytes": 4},
        {"files": 1, "bytes": 8},
        {"files": 0, "bytes": 0},
    )
    assert (third["added"]["files"], third["removed"]["files"]) == (1, 2)
    assert first["author"] == "Ada Author"
    assert first["date"] == "2023-11-14T22:14:20+00:00"
    assert first["commit"] == history.git("rev-parse", "v1")


def test_for_people(command: Command, history: Project) -> None:
    done = command("log", "data", cwd=history.root)
    assert done.status == 0
    commit = history.git("rev-parse", "v3")
    assert done.lines[:3] == [
        f"{commit[:12]}  2023-11-14 22:17  Ada Author  (v3)",
        "    Third data",
        "    3 files, 14 bytes  added 1 (2 bytes), removed 2 (6 bytes)",
    ]
    assert done.lines[3] == ""


@pytest.mark.parametrize("target", ["data", "data.dvc", "./data", "data/"])
def test_every_name_of_the_dataset(command: Command, history: Project, target: str) -> None:
    assert len(command("log", "--json", target, cwd=history.root).json) == 3


def test_from_a_revision(command: Command, history: Project) -> None:
    for words in (("data@v2",), ("data", "--rev", "v2"), ("--repo", history.root, "data@v2")):
        versions = command("log", "--json", *words, cwd=history.root).json
        assert [version["subject"] for version in versions] == ["Second data", "First data"]


def test_a_number_of_versions(command: Command, history: Project) -> None:
    versions = command("log", "--json", "-n", "1", "data", cwd=history.root).json
    assert [version["subject"] for version in versions] == ["Third data"]


def test_a_path_inside_the_dataset(command: Command, history: Project) -> None:
    versions = command("log", "--json", "data/s", "--rev", "v2", cwd=history.root).json
    assert [(version["subject"], version["files"], version["bytes"]) for version in versions] == [
        ("First data", 1, 4)
    ]
    versions = command("log", "--json", "data/b", cwd=history.root).json
    assert [version["subject"] for version in versions] == ["Second data", "First data"]


def test_the_whole_project(command: Command, history: Project) -> None:
    versions = command("log", "--json", ".", cwd=history.root).json
    assert [version["subject"] for version in versions] == [
        "Third data",
        "A note",
        "Second data",
        "First data",
    ]
    assert [version["added"]["files"] for version in versions[:3]] == [1, 1, 1]
    # Its own metafile changed as well.
    assert [version["changed"]["files"] for version in versions[:3]] == [1, 0, 2]


def test_a_file_of_git(command: Command, history: Project) -> None:
    [version] = command("log", "--json", "note.txt", cwd=history.root).json
    assert (version["subject"], version["files"], version["bytes"]) == ("A note", 1, 5)


def test_what_touches_only_the_metafile_is_no_version(command: Command, history: Project) -> None:
    metafile = history.root / "data.dvc"
    metafile.write_text(metafile.read_text() + "desc: about it\n")
    history.commit("Describe the data")
    assert len(command("log", "--json", "data", cwd=history.root).json) == 3


def test_a_version_that_comes_back(command: Command, history: Project) -> None:
    history.commit_data(V1, "First data again", "v4")
    versions = command("log", "--json", "data", cwd=history.root).json
    assert [version["tags"] for version in versions] == [["v4"], ["v3"], ["v2"], ["v1"]]


def test_removed_and_added_again(command: Command, project: Project) -> None:
    project.commit_data(V1, "Data")
    (project.root / "data.dvc").unlink()
    project.commit("Without data")
    project.commit_data(V1, "Data again")
    versions = command("log", "--json", "data", cwd=project.root).json
    assert [version["subject"] for version in versions] == ["Data again", "Data"]
    assert versions[0]["added"]["files"] == 3


def test_a_missing_manifest_leaves_counts_open(command: Command, history: Project) -> None:
    second = command("log", "--json", "data@v2", cwd=history.root).json[0]
    history.forget(second["oid"])
    versions = command("log", "--json", "data", cwd=history.root).json
    assert [version["added"] for version in versions] == [None, None, {"files": 3, "bytes": size(V1)}]
    assert [(version["files"], version["bytes"]) for version in versions[:2]] == [(3, 14), (4, 18)]
    assert (
        "    4 files, 18 bytes  added ?, changed ?, removed ?"
        in command("log", "data", cwd=history.root).lines
    )


def test_a_missing_object_leaves_its_size_open(command: Command, history: Project) -> None:
    [change] = [
        change
        for change in command("diff", "--json", "data", "v1", "v2", cwd=history.root).json
        if change["path"] == "c"
    ]
    history.forget(change["new"]["oid"])
    second = command("log", "--json", "data@v2", cwd=history.root).json[0]
    assert second["added"] == {"files": 1, "bytes": None}


def test_without_counting_no_manifest_is_read(command: Command, history: Project) -> None:
    for path in (history.root / ".dvc/cache").rglob("*.dir"):
        path.unlink()
    versions = command("log", "--json", "--no-changes", "data", cwd=history.root).json
    assert [(version["files"], version["added"]) for version in versions] == [(3, None), (4, None), (3, None)]


def test_a_broken_metafile_is_told_in_its_place(command: Command, history: Project) -> None:
    metafile = history.root / "data.dvc"
    good = metafile.read_text()
    metafile.write_text(f"<<<<<<< ours\n{good}=======\n>>>>>>> theirs\n")
    history.commit("Merge badly")
    metafile.write_text(good)
    history.commit("Repair")
    versions = command("log", "--json", "data", cwd=history.root).json
    assert [version["subject"] for version in versions][:3] == ["Repair", "Merge badly", "Third data"]
    assert "data.dvc" in versions[1]["problem"]
    assert versions[0]["added"] is None
    assert any("cannot be read: data.dvc" in line for line in command("log", "data", cwd=history.root).lines)


def test_merged_lines_of_history(command: Command, history: Project) -> None:
    history.git("checkout", "--quiet", "-b", "side", "v1")
    history.commit_data({**V1, "side": b"side\n"}, "On the side")
    history.git("checkout", "--quiet", "main")
    history.git("merge", "--quiet", "--no-ff", "--strategy=ours", "--message", "Merge side", "side")
    subjects = [v["subject"] for v in command("log", "--json", "data", cwd=history.root).json]
    assert subjects == ["Third data", "Second data", "First data"]


def test_a_name_that_a_terminal_would_obey(command: Command, project: Project) -> None:
    project.commit_data(V1, "\x1b[31mred\x1b[0m")
    assert "\x1b" not in command("log", "data", cwd=project.root).stdout


def test_an_at_sign_in_the_name(command: Command, project: Project) -> None:
    project.commit_data(V1, "Data", "v1", name="d@ta")
    for target in ("d@ta", "d@ta@v1"):
        assert len(command("log", "--json", target, cwd=project.root).json) == 1


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["nothing"], "nothing is tracked at 'nothing'"),
        (["nothing"], "tracked are 'data'"),
        (["data", "--rev", "v9"], "did you mean v"),
        (["data@v9"], "did you mean v"),
        (["data/nix/no", "--repo", "."], "no version of data/nix/no"),
        ([""], "empty target"),
        (["../elsewhere", "--repo", "."], "not a path from the root"),
        (["data", "--repo", "/nowhere"], "/nowhere"),
    ],
)
def test_bad_input_is_one_line(command: Command, history: Project, words: list[str], told: str) -> None:
    done = command("log", *words, cwd=history.root)
    assert (done.status, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert told in done.stderr


def test_outside_of_a_repository(command: Command, tmp_path: Path) -> None:
    done = command("log", "data", cwd=tmp_path)
    assert (done.status, done.stderr.count("\n")) == (1, 1)
    assert "no git repository" in done.stderr


def test_a_pipeline_of_the_real_dvc(command: Command, tmp_path: Path) -> None:
    root = tmp_path / "pipeline"
    root.mkdir()
    run_tool(root, "git", "init", "--quiet", "--initial-branch=main")
    run_tool(root, "dvc", "init", "--quiet")
    (root / "in").write_text("1\n")
    run_tool(
        root, "dvc", "stage", "add", "-q", "-n", "copy", "-d", "in", "-o", "out", "mkdir out && cp in out/x"
    )
    for number in (1, 2):
        (root / "in").write_text(f"{number}\n" * number)
        run_tool(root, "dvc", "repro", "--quiet")
        run_tool(root, "git", "add", "--all")
        run_tool(root, "git", "commit", "--quiet", "--message", f"Run {number}", time=1_700_000_000 + number)
    versions = command("log", "--json", "out", cwd=root).json
    assert [(v["subject"], v["files"], v["bytes"]) for v in versions] == [("Run 2", 1, 4), ("Run 1", 1, 2)]
    assert versions[0]["changed"] == {"files": 1, "bytes": 4}


contents = st.dictionaries(
    st.sampled_from(["a", "b", "c/d", "c/e", "é"]), st.sampled_from([b"1\n", b"22\n", b"333\n"]), max_size=4
)


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(contents, min_size=1, max_size=4))
def test_a_linear_history_is_told_as_it_was(
    command: Command, tmp_path_factory: pytest.TempPathFactory, made: list[dict[str, bytes]]
) -> None:
    project = Project.make(tmp_path_factory.mktemp("model") / "project")
    expected = []
    before: dict[str, bytes] | None = None
    for number, files in enumerate(made):
        (project.root / "data").mkdir(exist_ok=True)
        project.commit_data(files, f"Version {number}") if files else None
        if not files or files == before:
            continue
        old = before or {}
        expected.append(
            {
                "subject": f"Version {number}",
                "files": len(files),
                "bytes": size(files),
                "added": sorted(map(len, (files[path] for path in files.keys() - old.keys()))),
                "changed": sorted(
                    len(files[path]) for path in files.keys() & old.keys() if files[path] != old[path]
                ),
                "removed": sorted(len(old[path]) for path in old.keys() - files.keys()),
            }
        )
        before = files
    if not expected:
        return
    told = command("log", "--json", "data", cwd=project.root).json
    for version, model in zip(told, reversed(expected), strict=True):
        assert {name: version[name] for name in ("subject", "files", "bytes")} == {
            name: model[name] for name in ("subject", "files", "bytes")
        }
        for kind in ("added", "changed", "removed"):
            assert version[kind] == {"files": len(model[kind]), "bytes": sum(model[kind])}


def test_a_repository_by_its_url(command: Command, history: Project) -> None:
    for target, subjects in (("data", 3), (".", 4)):
        versions = command("log", "--json", "--repo", f"file://{history.root}", target).json
        assert len(versions) == subjects
