"""What the histories have in common, each step as the release in use does it.

Callers: the histories.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from era_fixtures.pipelines import EXTRA_VARS, PARAMS
from era_fixtures.samples import CRLF, ODD_NAMES, TOOL, noise, write_dataset, write_git_files
from era_fixtures.workshop import Repository, Workshop

PARTIAL: Final = ("partly", "partly-url")
"""Imports of which only the metafile was made."""


def make_source(workshop: Workshop, release: str) -> Repository:
    """A repository to import from: a directory that changes, a file of git's."""
    source = workshop.repository("source", release)
    source.dvc("init", "--quiet")
    source.write("shared/x.txt", "shared x\n")
    source.write("shared/sub/y.txt", "shared y\r\n")
    source.dvc("add", "shared")
    source.write("in-git.txt", "tracked by git in the source\n")
    source.commit("Share a directory")
    source.git("tag", "first")
    source.write("shared/x.txt", "shared x, changed\n")
    source.dvc("add", "shared")
    source.commit("Change it")
    return source


def start_project(project: Repository) -> None:
    project.dvc("init", "--quiet")
    project.dvc("remote", "add", "--default", "storage", "../remote")
    write_git_files(project)
    write_dataset(project, "data")
    project.write("model.bin", noise("model 1", 300))
    project.write("bin/tool.sh", TOOL, executable=True)
    project.write("notes.txt", CRLF)
    project.dvc("add", "data", "model.bin", "bin/tool.sh", "notes.txt")


def write_pipeline(project: Repository, pipeline: str) -> None:
    project.write("params.yaml", PARAMS)
    project.write("extra.yaml", EXTRA_VARS)
    project.write("work/second/seed.txt", "seed\n")
    project.write("maps/.keep", "")
    project.write("lists/a.txt", "a\n")
    project.write("dvc.yaml", pipeline.replace("    frozen: true\n", ""))
    project.dvc("repro")
    project.write("dvc.yaml", pipeline)


def change_data(project: Repository) -> None:
    project.write("data/plain-new.txt", "new\n")
    project.write("data/crlf.txt", CRLF + "four\r\n")
    project.rename("data/numbers/second", "data/numbers/renamed")
    project.remove("data/numbers/first/1.txt")
    project.write("data/scratch.tmp", "not wanted\n")
    project.write(".dvcignore", "*.tmp\n/hidden/\n")
    project.write("hidden/broken.dvc", "outs: [\n")
    project.dvc("add", "data")


def run_with_rates(project: Repository, rates: tuple[int, ...]) -> None:
    for rate in rates:
        project.write("params.yaml", PARAMS.replace("lr: 1", f"lr: {rate}"))
        project.dvc("repro")


def import_things(workshop: Workshop, project: Repository) -> None:
    project.dvc("import", "../source", "shared", "--out", "imported", "--rev", "first")
    project.dvc("import", "../source", "in-git.txt", "--out", "imported.txt")
    (workshop.root / "plain").mkdir()
    (workshop.root / "plain/table.csv").write_text("a,b\n1,2\n")
    (workshop.root / "plain/tree/deep").mkdir(parents=True)
    (workshop.root / "plain/tree/deep/leaf.txt").write_text("leaf\n")
    project.dvc("import-url", "../plain/table.csv", "table.csv")
    project.dvc("import-url", "../plain/tree", "tree")
    project.dvc("import-url", "--to-remote", "../plain/table.csv", "far.csv")
    project.dvc("fetch", "far.csv")
    project.dvc("import", "--no-download", "../source", "shared/sub", "--out", PARTIAL[0])
    project.dvc("import-url", "--no-download", "../plain/tree/deep", PARTIAL[1])


def move_things(project: Repository) -> None:
    for name in PARTIAL:  # they never are up to date
        project.dvc("remove", f"{name}.dvc")
    project.dvc("move", "model.bin", "models")
    project.dvc("remove", "bin/tool.sh.dvc", "--outs")
    project.dvc("update", "imported.dvc", "--rev", "main")
    add_odd_names(project)


def add_odd_names(project: Repository, names: Sequence[str] = ODD_NAMES) -> None:
    """Outputs whose names must be quoted in YAML, or must not be mistaken for something else."""
    for name in names:
        project.write(f"odd/{name}", f"named {name}\n")
    project.dvc("add", *(f"odd/{name}" for name in names))


def add_subrepo(project: Repository) -> None:
    (project.path / "team").mkdir()
    project.dvc("init", "--quiet", "--subdir", at="team")
    project.write("team/own/1.txt", "team 1\n")
    project.dvc("add", "own", at="team")


def make_experiments(project: Repository) -> None:
    """Two experiments on top of HEAD, one run and one saved; the workspace is as it was before."""
    params = project.read("params.yaml")
    project.dvc("exp", "run", "--name", "faster", "--set-param", "lr=5", "train")
    project.snapshot_experiment("faster", "An experiment that was run")
    project.restore()
    project.write("data/only-in-experiment.txt", "experiment\n")
    project.dvc("add", "data")
    project.dvc("exp", "save", "--name", "saved")
    project.snapshot_experiment("saved", "An experiment that was saved")
    project.restore()
    assert project.read("params.yaml") == params


def make_plain(workshop: Workshop, release: str) -> Repository:
    """A project without git."""
    plain = workshop.directory("no-scm", release)
    plain.dvc("init", "--quiet", "--no-scm")
    plain.write("photos/one.txt", "1\n")
    plain.write("photos/two/three.txt", "3\r\n")
    plain.dvc("add", "photos")
    return plain
