"""DVC 2.58: `dvc.lock` of schema 2.0, interpolation, foreach, experiments; the cache still in its old layout.

Callers: `era_fixtures.isolated`.
"""

from __future__ import annotations

from typing import Final

from era_fixtures import steps
from era_fixtures.pipelines import PIPELINE, PLAIN_PIPELINE
from era_fixtures.workshop import Workshop

RELEASES: Final = ("2.58.2",)
RELEASE: Final = RELEASES[0]


def build(workshop: Workshop) -> None:
    source = steps.make_source(workshop, RELEASE)
    project = workshop.repository("project", RELEASE)
    steps.start_project(project)
    project.dvc("remote", "add", "second", "../second remote")
    project.tag("v1", "Track a directory, a file, an executable and a text with CRLF")
    steps.write_pipeline(project, PIPELINE)
    project.dvc("repro")
    project.tag("v2", "A pipeline: interpolation, foreach, working directories, kinds of outputs")
    steps.change_data(project)
    project.dvc("repro")
    project.tag("v3", "Change, rename, remove and add files of the directory; ignore others")
    steps.run_with_rates(project, (2, 3, 2))
    project.tag("v4", "Several parameters in turn; the runs are logged")
    steps.make_experiments(project)
    steps.import_things(workshop, project)
    project.tag("v5", "Import whole and in part, from repositories and from paths", missing=steps.PARTIAL)
    steps.move_things(project)
    project.tag("v6", "Move a file, remove another, update an import, names that YAML mistakes")
    steps.add_subrepo(project)
    project.write("zero", b"")
    (project.path / "nothing").mkdir()
    project.dvc("add", "zero", "nothing")
    about = "A project within the project; an empty file and an empty directory"
    project.tag("release/1.0", about, subrepos=("team",))
    project.dvc("push", "--all-tags", "--run-cache")

    plain = steps.make_plain(workshop, RELEASE)
    plain.write("dvc.yaml", PLAIN_PIPELINE)
    plain.dvc("repro")
    plain.snapshot_without_git("A project without git")
    project.seal(subrepos=("team",))
    source.seal()
    plain.seal()
