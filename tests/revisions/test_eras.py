"""Repositories of every era of DVC: each revision, mounted, is what that release's own checkout gave."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.eras import ERAS, Era, FileFact, unpack
from tests.mount.mounts import Mounter
from tests.revisions.projects import Seen, look

pytestmark = pytest.mark.fuse

PARTIAL = "partly/y.txt", b"shared y\r\n"
"""Of an import of which only the metafile was made a checkout has nothing; `dvc pull` would bring it."""


def told_of(seen: Mapping[str, Seen]) -> dict[str, tuple[str, int, bool, str, bool]]:
    """What `look` has found, in the fixtures' words: only empty directories count."""
    inner = {path.rpartition("/")[0] for path in seen}
    found = {}
    for path, one in seen.items():
        if one.kind == "directory":
            if path not in inner:
                found[path] = ("", 0, False, "", True)
        elif one.kind == "link":
            found[path] = ("", 0, False, one.content.decode(), False)
        else:
            digest = hashlib.md5(one.content, usedforsecurity=False).hexdigest()
            found[path] = (digest, len(one.content), one.executable, "", False)
    return found


def expected_of(listing: Mapping[str, FileFact]) -> dict[str, tuple[str, int, bool, str, bool]]:
    return {
        path: (fact.md5, fact.size, fact.executable, fact.link, fact.is_directory)
        for path, fact in listing.items()
    }


@pytest.fixture
def era(name: str, tmp_path: Path) -> Era:
    return unpack(name, tmp_path / "era")


@pytest.mark.parametrize("name", ERAS)
def test_every_tag_and_experiment_of_an_era(mounter: Mounter, era: Era) -> None:
    """All of them in one mount, looked up by name."""
    mount = mounter.mount(".", "--revs", "*", cwd=era.repository)
    revs = mount.path / ".fusefs" / "revs"
    faults = {}
    for rev in (*era.tags, *era.experiments):
        seen = look(revs / rev.replace("/", "%2F"))
        path, data = PARTIAL
        if path in seen:
            assert seen.pop(path) == Seen("file", data)
            del seen["partly"]
        found = told_of(seen)
        expected = expected_of(era.listing(rev))
        if found != expected:
            paths = sorted(set(found) | set(expected))
            faults[rev] = {
                path: (found.get(path), expected.get(path))
                for path in paths
                if found.get(path) != expected.get(path)
            }
    log = mount.umount()
    assert faults == {}, log
    assert "Traceback" not in log


@pytest.mark.parametrize("name", ["0.94", "1.11", "2.58", "3"])
def test_a_project_without_git(mounter: Mounter, era: Era) -> None:
    expected = expected_of(era.listing(""))
    tracked = {path: fact for path, fact in expected.items() if path.partition("/")[0] == "photos"}
    assert tracked
    mount = mounter.mount("photos", cwd=era.no_scm)
    found = {f"photos/{path}": fact for path, fact in told_of(look(mount.path)).items()}
    assert found == tracked
