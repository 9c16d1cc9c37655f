"""DVC 1.11: `dvc.yaml` with `dvc.lock` of schema 1.0, a run cache, stage files as before.

Callers: `era_fixtures.isolated`.
"""

from __future__ import annotations

from typing import Final

from era_fixtures import steps
from era_fixtures.workshop import Workshop

RELEASES: Final = ("1.11.16",)
RELEASE: Final = RELEASES[0]


def build(workshop: Workshop) -> None:
    source = steps.make_source(workshop, RELEASE)
    project = workshop.repository("project", RELEASE)
    steps.start_project(project)
    project.tag("v1", "Track a directory, a file, an executable and a text with CRLF")

    project.write("params.yaml", "lr: 1\nnested:\n  depth: 3\n")
    project.dvc(
        *("run", "--name", "prepare", "--deps", "data", "--params", "lr,nested.depth", "--outs", "prepared"),
        *("--metrics", "metrics.json", "--metrics-no-cache", "summary.json"),
        *("--plots", "curve.csv", "--plots-no-cache", "plot.csv", "--outs-no-cache", "plain.txt"),
        *("--outs-persist", "kept"),
        "mkdir -p prepared/deep kept && cp data/crlf.txt params.yaml prepared/deep/ && "
        "cp data/tool.sh prepared/ && echo kept >kept/k && echo plain >plain.txt && "
        "grep lr params.yaml >metrics.json && echo '{\"a\": 1}' >summary.json && "
        "printf 'x,y\\n1,2\\n' | tee plot.csv >curve.csv",
    )
    project.tag("v2", "Run a stage: outputs, metrics and plots, cached and not")

    project.write("work/in/seed.txt", "seed\n")
    project.dvc(
        *("run", "--name", "deep", "--wdir", "work/in", "--deps", "seed.txt", "--outs", "../up/made"),
        "mkdir -p ../up/made && cp seed.txt ../up/made/",
    )
    project.write("lists/a.txt", "a\n")
    project.dvc(
        *("run", "--single-stage", "--file", "old.dvc", "--deps", "lists/a.txt", "--outs", "old.txt"),
        "cp lists/a.txt old.txt",
    )
    project.write("part/b.txt", "b\n")
    project.dvc("run", "--name", "copy", "--deps", "b.txt", "--outs", "c.txt", "cp b.txt c.txt", at="part")
    project.dvc("freeze", "deep")
    project.tag("v3", "A working directory, a stage file, a second dvc.yaml, a frozen stage")

    steps.change_data(project)
    project.dvc("repro", "--all-pipelines")
    project.tag("v4", "Change, rename, remove and add files of the directory; ignore others")

    # Not of the stage before: runs of stages with persistent outputs are not logged.
    project.dvc(
        *("run", "--name", "train", "--deps", "lists", "--params", "lr", "--outs", "weights"),
        *("--metrics-no-cache", "score.json"),
        "mkdir -p weights && cp params.yaml weights/w && cp lists/a.txt weights/ && "
        "echo '{\"s\": 1}' >score.json",
    )
    for rate in (2, 3, 2):  # the last is in the run cache already
        project.write("params.yaml", f"lr: {rate}\nnested:\n  depth: 3\n")
        project.dvc("repro")
    project.tag("v5", "A stage with several parameters in turn; its runs are logged")

    project.dvc("import", "../source", "shared", "--out", "imported", "--rev", "first")
    project.dvc("import", "../source", "in-git.txt", "--out", "imported.txt")
    (workshop.root / "plain").mkdir()
    (workshop.root / "plain/table.csv").write_text("a,b\n1,2\n")
    project.dvc("import-url", "../plain/table.csv", "table.csv")
    project.tag("v6", "Import from a repository of DVC's, from git there, and from a path")

    project.dvc("move", "model.bin", "models")
    project.dvc("remove", "bin/tool.sh.dvc", "--outs")
    project.dvc("update", "imported.dvc", "--rev", "main")
    steps.add_odd_names(project)
    project.tag("v7", "Move a file, remove another, update an import, names that YAML mistakes")

    steps.add_subrepo(project)
    project.write("zero", b"")
    project.dvc("add", "zero")
    project.tag("release/1.0", "A project within the project; an empty file", subrepos=("team",))
    project.dvc("push", "--all-tags", "--run-cache")

    plain = steps.make_plain(workshop, RELEASE)
    plain.dvc("run", "--name", "copy", "--deps", "photos", "--outs", "four.txt", "cp photos/one.txt four.txt")
    plain.snapshot_without_git("A project without git")
    project.seal(subrepos=("team",))
    source.seal()
    plain.seal()
