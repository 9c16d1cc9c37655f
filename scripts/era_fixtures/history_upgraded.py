"""One repository through all eras: entries of every age side by side, in both layouts of the cache.

Callers: `era_fixtures.isolated`.
"""

from __future__ import annotations

from typing import Final

from era_fixtures import steps
from era_fixtures.samples import CRLF
from era_fixtures.workshop import Workshop

RELEASES: Final = ("0.94.1", "1.11.16", "2.58.2", "3.67.1")


def build(workshop: Workshop) -> None:
    project = workshop.repository("project", RELEASES[0])
    steps.start_project(project)
    project.write("scale/one.txt", "one\r\n")
    project.dvc("add", "scale")
    project.dvc(
        *(
            "run",
            "--file",
            "train.dvc",
            "--deps",
            "data",
            "--outs",
            "weights",
            "--metrics-no-cache",
            "score.json",
        ),
        "mkdir -p weights && cp data/crlf.txt weights/w && echo '{}' >score.json",
    )
    project.tag("era-0", "As 0.94 made it")
    project.dvc("push")

    project.release = RELEASES[1]
    project.dvc("remove", "train.dvc")
    project.dvc(
        *(
            "run",
            "--name",
            "train",
            "--deps",
            "data",
            "--outs",
            "weights",
            "--metrics-no-cache",
            "score.json",
        ),
        "mkdir -p weights && cp data/crlf.txt weights/w && echo '{}' >score.json",
    )
    project.write("scale/two.txt", "two\r\n")
    project.dvc("add", "scale")
    project.write("since-1.txt", CRLF + "1\r\n")
    project.dvc("add", "since-1.txt")
    project.tag("era-1", "1.11 replaces a stage file by a pipeline and adds to a directory")
    project.dvc("push")

    project.release = RELEASES[2]
    project.write("scale/three.txt", "three\r\n")
    project.dvc("add", "scale")
    project.write("since-2.txt", CRLF + "2\r\n")
    project.dvc("add", "since-2.txt")
    project.dvc("commit", "--force")
    project.tag("era-2", "2.58 writes the lock file anew")
    project.dvc("push")

    # The newest releases do not read what 0.94 wrote, so 2.58 writes that anew while it is in use.
    for path in ("data", "model.bin", "bin/tool.sh", "notes.txt"):
        project.remove(f"{path}.dvc")
        project.dvc("add", path)
    project.tag("era-2-rewritten", "2.58 writes the metafiles of 0.94 anew, for 3 to read")
    project.dvc("push")

    project.release = RELEASES[3]
    project.write("scale/four.txt", "four\r\n")
    project.dvc("add", "scale")
    project.write("since-3.txt", CRLF + "3\r\n")
    project.dvc("add", "since-3.txt")
    project.tag("era-3", "3 beside 2: both layouts in one cache and one remote")
    project.dvc("push")

    project.dvc("cache", "migrate", "--dvc-files")
    project.tag("era-3-migrated", "3 has migrated the cache and the metafiles")
    project.dvc("push")
    project.seal()
