"""DVC 0.94: stage files, `Dvcfile`, metafiles without sizes.

Callers: `era_fixtures.isolated`.
"""

from __future__ import annotations

from typing import Final

from era_fixtures import steps
from era_fixtures.samples import ODD_NAMES, write_long_texts
from era_fixtures.workshop import Workshop

RELEASES: Final = ("0.94.1",)
RELEASE: Final = RELEASES[0]


def build(workshop: Workshop) -> None:
    source = steps.make_source(workshop, RELEASE)
    project = workshop.repository("project", RELEASE)
    steps.start_project(project)
    project.tag("v1", "Track a directory, a file, an executable and a text with CRLF")
    project.dvc("push")  # at every tag: 0.94 cannot push all of them at the end

    count = "mkdir -p out && scripts/count data/crlf.txt >out/count.txt"
    project.dvc("run", "--deps", "data", "--outs", "out/count.txt", count)
    project.dvc(
        *("run", "--file", "prepare.dvc", "--deps", "data", "--outs", "prepared"),
        *("--metrics", "metrics.json", "--metrics-no-cache", "summary.json"),
        *("--outs-no-cache", "plain.txt", "--outs-persist", "kept"),
        "mkdir -p prepared/deep kept && cp data/crlf.txt prepared/deep/ && cp data/tool.sh prepared/ && "
        "echo kept >kept/k && echo plain >plain.txt && echo '{\"a\": 1}' | tee metrics.json >summary.json",
    )
    project.tag("v2", "Run stages: cached and uncached outputs and metrics")
    project.dvc("push")

    project.write("work/in/seed.txt", "seed\n")
    project.dvc(
        *("run", "--wdir", "work/in", "--file", "deep.dvc", "--deps", "seed.txt", "--outs", "../up/made"),
        "mkdir -p ../up/made && cp seed.txt ../up/made/",
    )
    project.write("params.yaml", "depth: 3\n")
    project.dvc("run", "--params", "depth", "--outs", "depth.txt", "cp params.yaml depth.txt")
    project.write("lists/a.txt", "a\n")
    project.dvc(
        "run", "--file", "Dvcfile", "--deps", "lists/a.txt", "--outs", "final.txt", "cp lists/a.txt final.txt"
    )
    project.dvc("lock", "prepare.dvc")
    project.tag("v3", "A working directory, a Dvcfile, a locked stage")
    project.dvc("push")

    steps.change_data(project)
    project.tag("v4", "Change, rename, remove and add files of the directory; ignore others")
    project.dvc("push")

    project.dvc("import", "../source", "shared", "--out", "imported")
    project.dvc("import", "../source", "in-git.txt", "--out", "imported.txt", "--rev", "first")
    (workshop.root / "plain").mkdir()
    (workshop.root / "plain/table.csv").write_text("a,b\n1,2\n")
    project.dvc("import-url", "../plain/table.csv", "table.csv")
    project.tag("v5", "Import from a repository of DVC's, from git there, and from a path")
    project.dvc("push")

    project.dvc("move", "model.bin", "models")
    project.dvc("remove", "bin/tool.sh.dvc", "--purge", "--force")
    project.dvc("unlock", "prepare.dvc")
    project.dvc("repro", "--all-pipelines")
    # 0.94 writes these two names, but does not read what it wrote.
    steps.add_odd_names(project, [name for name in ODD_NAMES if name not in ("no", "12:30:45")])
    project.tag("v6", "Move a file, remove another, run what had changed, names that YAML mistakes")
    project.dvc("push")

    steps.add_subrepo(project)
    project.tag("v7", "A project within the project", subrepos=("team",))
    project.dvc("push")

    write_long_texts(project, "long")
    project.dvc("add", "long/split-crlf.txt", "long/binary-later.txt", "long/binary-first.bin")
    project.tag("v8", "Texts longer than the blocks that are hashed", subrepos=("team",))
    project.dvc("push")

    for path in ("long/split-crlf.txt", "long/binary-later.txt"):
        project.dvc("remove", f"{path}.dvc", "--purge", "--force")
    project.write("empty-files/.keep", b"")
    project.write("zero", b"")
    project.dvc("add", "empty-files", "zero")
    project.tag("release/1.0", "Without the long texts; an empty file", subrepos=("team",))
    project.dvc("push")

    plain = steps.make_plain(workshop, RELEASE)
    plain.snapshot_without_git("A project without git")
    project.seal(subrepos=("team",))
    source.seal()
    plain.seal()
