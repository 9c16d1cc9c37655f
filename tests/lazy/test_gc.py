"""After `fusefs gc` the real `dvc` finds everything that is kept, on the remote and in the cache."""

from __future__ import annotations

import json
import shutil
from typing import Any

from tests.lazy.conftest import FILES, Pushed
from tests.mount.datasets import md5
from tests.mount.mounts import Mounter
from tests.revisions.projects import Project, run_tool

OLD = b"of an old version"
NEW = b"of the new one"


def test_dvc_pulls_what_is_kept(pushed: Pushed, project: Project, mounter: Mounter) -> None:
    def dvc(*words: str) -> str:
        return run_tool("dvc", *words, cwd=pushed.root, environment=project.environment)

    def gc(*words: str, status: int = 0) -> Any:
        done = mounter.run("gc", "--grace", "0", *words, "--yes", "--json", cwd=pushed.root)
        assert done.returncode == status, done.stderr
        return json.loads(done.stdout) if done.stdout else done.stderr

    def record(data: bytes, tag: str) -> None:
        project.write("data/new", data)
        for path, content in FILES.items():
            project.write(f"data/{path}", content)
        for words in (("commit", "data"), ("push", "data")):
            assert mounter.run(*words, cwd=pushed.root).returncode == 0
        project.commit(tag)

    record(OLD, "v2")
    record(NEW, "v3")
    # What `dvc push` has put there is in no log: without v1 nobody knows whose it is.
    assert "in no log" in gc("--remote", "near", "--workspace", status=1)
    told = gc("--remote", "near", "--rev", "v1")
    assert told["deleted"]["objects"] == 2
    assert not pushed.object(pushed.remote, md5(OLD)).exists()
    assert json.loads(dvc("status", "--cloud", "--json", "data.dvc")) == {}
    shutil.rmtree(pushed.cache)
    shutil.rmtree(pushed.root / ".dvc/tmp", ignore_errors=True)
    dvc("pull", "--quiet", "data.dvc", "single.bin.dvc")
    assert (pushed.root / "data/new").read_bytes() == NEW
    assert gc()["deleted"]["objects"] == 0
    project.git("checkout", "--quiet", "v1")
    dvc("pull", "--quiet", "data.dvc")
    assert {path: (pushed.root / "data" / path).read_bytes() for path in FILES} == FILES
    assert not (pushed.root / "data/new").exists()
    project.git("checkout", "--quiet", "main")
    told = gc()["deleted"]["kinds"]  # the old manifest; its files are in the new version, too
    assert (told["manifests"]["objects"], told["files"]["objects"]) == (1, 0)
    assert pushed.object(pushed.cache, md5(NEW)).exists()
