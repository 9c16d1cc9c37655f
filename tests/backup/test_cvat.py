"""Backups for CVAT and of CVAT's: what it wrote comes back as it was, what it imports is what it asks for."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.backup.cvat_zips import ANNOTATIONS, picture, read_zip, task, task_files, write_zip
from tests.mount.datasets import write_folder
from tests.mount.mounts import COMMAND, Mounter
from tests.revisions.projects import Project, new_project
from tests.store.media.videos import MAKERS

pytestmark = pytest.mark.fuse


@pytest.fixture
def project(mounter: Mounter) -> Project:
    """An empty repository of git and DVC."""
    return new_project(mounter.home / "project", mounter.environment)


def restore(mounter: Mounter, file: Path) -> Path:
    """The metafile of the version that a zip became."""
    place = mounter.home / "restored"
    done = mounter.run("restore", "--json", file, place, "--cache", mounter.home / "objects")
    assert done.returncode == 0, done.stderr
    return Path(json.loads(done.stdout)["metafile"])


def back_up(mounter: Mounter, *targets: Path) -> tuple[dict[str, bytes], str]:
    """What is in the zip, and what was said."""
    file = mounter.home / f"backup-{len(list(mounter.home.glob('backup-*')))}.zip"
    done = mounter.run("backup", "--cache", mounter.home / "objects", "--format", "cvat", *targets, file)
    assert done.returncode == 0, done.stderr
    return read_zip(file), done.stderr


def commit(mounter: Mounter, name: str, files: dict[str, bytes]) -> Path:
    write_folder(mounter.home / name, files)
    done = mounter.run("commit", "--cache", mounter.home / "objects", mounter.home / name)
    assert done.returncode == 0, done.stderr
    return mounter.home / f"{name}.dvc"


def test_a_task_comes_back_as_cvat_wrote_it(mounter: Mounter) -> None:
    files = task_files()
    metafile = restore(mounter, write_zip(mounter.home / "task.zip", files | {"data/index.json": b"{}"}))
    assert metafile.name == "crossing.dvc"
    mount = mounter.mount(metafile, "--cache", mounter.home / "objects")
    assert {name: (mount.path / name).read_bytes() for name in files} == files
    assert not (mount.path / "data/index.json").exists()
    mount.umount()
    found, said = back_up(mounter, metafile)
    assert found == files
    assert "warning" not in said
    assert restore(mounter, mounter.home / "backup-0.zip") == metafile


def test_a_project_comes_back_as_cvat_wrote_it(mounter: Mounter) -> None:
    project = json.dumps({"version": "1.0", "name": "a/b", "labels": [], "status": "annotation"}).encode()
    files = {"project.json": project, "assets/all.png": picture(1)}
    for number in (0, 10, 2):
        files |= {f"task_{number}/{name}": data for name, data in task_files(number % 3 + 1).items()}
    metafile = restore(mounter, write_zip(mounter.home / "project.zip", files))
    assert metafile.name == "a_b.dvc"
    found, _ = back_up(mounter, metafile)
    assert found == files


def test_documents_that_do_not_fit_any_more_are_not_written_back(mounter: Mounter) -> None:
    files = task_files()
    del files["data/street/02.png"]
    found, said = back_up(mounter, commit(mounter, "fewer", files))
    assert "task.json is not written back" in said
    document = json.loads(found["task.json"])
    assert (document["labels"], document["jobs"][0]["stop_frame"]) == ([], 1)
    assert json.loads(found["annotations.json"])[0]["shapes"] == []
    assert {name for name in found if name.endswith(".png")} == {"data/street/00.png", "data/street/01.png"}


def test_honeypots_are_more_frames_than_images(mounter: Mounter) -> None:
    files = task_files()
    data = json.loads(files["task.json"])["data"] | {"validation_layout": {"mode": "gt_pool"}}
    files["task.json"] = task(7, data=data)
    found, _ = back_up(mounter, commit(mounter, "honeypots", files))
    assert found == files


def test_media_of_a_share_are_local_in_the_backup(mounter: Mounter) -> None:
    files = task_files()
    data = json.loads(files["task.json"])["data"] | {"storage": "share"}
    files["task.json"] = task(2, data=data)
    found, _ = back_up(mounter, commit(mounter, "share", files))
    document = json.loads(found["task.json"])
    assert document["data"]["storage"] == "local"
    assert document["labels"]
    assert found["annotations.json"] == ANNOTATIONS


def test_a_folder_of_images_is_a_task(mounter: Mounter) -> None:
    images = {
        "b/2.png": picture(2, (5, 4)),
        "a.png": picture(1),
        ".hidden.png": picture(3),
        "labels.txt": b"x",
    }
    found, said = back_up(mounter, commit(mounter, "images", images))
    assert "2 files of 'images' are no media of the task" in said
    assert [name for name in found if name.startswith("data/")] == [
        "data/a.png",
        "data/b/2.png",
        "data/manifest.jsonl",
    ]
    lines = [json.loads(line) for line in found["data/manifest.jsonl"].splitlines()]
    assert [(line["name"], line["width"], line["height"]) for line in lines[2:]] == [
        ("a", 8, 6),
        ("b/2", 5, 4),
    ]
    document = json.loads(found["task.json"])
    assert (document["name"], document["jobs"][0]["stop_frame"]) == ("images", 1)
    assert document["data"]["sorting_method"] == "lexicographical"
    assert len(json.loads(found["annotations.json"])) == 1


def test_an_order_of_its_own_is_predefined(mounter: Mounter) -> None:
    lines = [{"version": "1.1"}, {"type": "images"}]
    lines += [{"name": name, "extension": ".png", "width": 8, "height": 6} for name in "cab"]  # type: ignore[dict-item]
    manifest = "".join(json.dumps(line) + "\n" for line in lines).encode()
    files = {f"{name}.png": picture(number) for number, name in enumerate("abc")}
    found, _ = back_up(mounter, commit(mounter, "ordered", files | {"manifest.jsonl": manifest}))
    named = [json.loads(line).get("name") for line in found["data/manifest.jsonl"].splitlines()[2:]]
    assert named == ["c", "a", "b"]
    data = json.loads(found["task.json"])["data"]
    assert (data["sorting_method"], data["storage_method"]) == ("predefined", "cache")


def test_several_versions_are_a_project_and_a_pipe_will_do(mounter: Mounter) -> None:
    video = MAKERS["constant"][1]()
    clip = commit(mounter, "clips", {"in/a.mp4": video, "notes.txt": b"x"})
    images = commit(mounter, "images", {"a.png": picture(1)})
    found, _ = back_up(mounter, clip, images)
    assert json.loads(found["project.json"])["version"] == "1.0"
    assert found["task_0/data/a.mp4"] == video
    document = json.loads(found["task_0/task.json"])
    assert (document["data"]["chunk_type"], document["jobs"][0]["stop_frame"]) == ("video", 59)
    assert json.loads(found["task_0/data/manifest.jsonl"].splitlines()[2])["properties"]["length"] == 60
    assert found["task_1/data/a.png"] == picture(1)
    with (mounter.home / "piped.zip").open("wb") as piped:
        flags = ("--cache", mounter.home / "objects", "--format", "cvat")
        words = [*COMMAND, "backup", *flags, clip, images, "-"]
        cat = subprocess.Popen("cat", stdin=subprocess.PIPE, stdout=piped)
        subprocess.run(words, env=mounter.environment, stdout=cat.stdin, check=True)
        cat.communicate()
    assert read_zip(mounter.home / "piped.zip") == found


def test_what_is_no_task_is_said(mounter: Mounter) -> None:
    mixed = commit(mounter, "mixed", {"a.png": picture(1), "a.mp4": b"x"})
    file = mounter.home / "none.zip"
    done = mounter.run("backup", "--cache", mounter.home / "objects", "--format", "cvat", mixed, file)
    assert done.returncode == 1
    assert "'mixed' has 1 videos and 1 images" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not file.exists()


def test_one_video_of_a_version_whose_bytes_are_elsewhere(mounter: Mounter, project: Project) -> None:
    video = MAKERS["constant"][1]()
    project.track("clips", {"in/a.mp4": video, "in/b.mp4": b"another"})
    project.commit("v1")
    remote, file = mounter.home / "remote", mounter.home / "a.zip"
    (project.root / ".dvc/cache").rename(remote)
    words = ("backup", "clips/in/a.mp4@v1", "--format", "cvat", file)
    done = mounter.run(*words, cwd=project.root)
    assert (done.returncode, file.exists()) == (1, False)
    done = mounter.run(*words, "--remote", str(remote), cwd=project.root)
    assert done.returncode == 0, done.stderr
    found = read_zip(file)
    assert {name for name in found if name.endswith(".mp4")} == {"data/a.mp4"}
    assert found["data/a.mp4"] == video
    assert json.loads(found["task.json"])["name"] == "a.mp4"
