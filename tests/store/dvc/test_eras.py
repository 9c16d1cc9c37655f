"""The index of every revision of every era against what that era's own `dvc checkout` made."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path

import pytest

from store.dvc.files import Files, WorkingFiles
from store.dvc.import_source import RepositoryImport, UrlImport
from store.dvc.index import TrackedOutput, find_dvc_roots, read_index
from store.dvc.runs import read_runs
from store.dvc.target import find_target
from store.git.files import GitFiles
from store.git.repository import Repository
from store.local_cache import LocalCache
from store.manifest import parse_manifest
from store.oid import MD5, Oid
from tests.eras import ERAS, Era, FileFact, unpack


@pytest.fixture(params=ERAS)
def era(request: pytest.FixtureRequest, tmp_path: Path) -> Era:
    return unpack(request.param, tmp_path / "era")


@pytest.fixture
def newest(tmp_path: Path) -> Era:
    return unpack("3", tmp_path / "era")


def _contents(files: Files, work_tree: Path) -> Iterator[tuple[str, str]]:
    """What the indices say there is beside git's files: paths and digests.

    A digest is empty where it is not of the bytes as they are.
    """
    for root in find_dvc_roots(files):
        index = read_index(files, root=root)
        assert index.broken == ()
        with closing(LocalCache(work_tree / root / ".dvc/cache")) as cache:
            for tracked in index.outputs:
                place = posixpath.join(root, tracked.path)
                oid = tracked.output.oid
                if tracked.output.cached and oid:
                    for relpath, digest in _entries(tracked, oid, cache).items():
                        yield posixpath.join(place, relpath), digest if oid.algorithm == MD5 else ""


def _entries(tracked: TrackedOutput, oid: Oid, cache: LocalCache) -> dict[str, str]:
    if not oid.is_tree:
        return {"": oid.digest}
    entries = tracked.output.entries or parse_manifest(cache.read(oid), str(oid))
    if tracked.output.entries:
        assert tracked.output.size == sum(entry.size or 0 for entry in tracked.output.entries)
    return {entry.relpath: entry.md5 for entry in entries}


def _compare(found: Iterator[tuple[str, str]], listing: Mapping[str, FileFact]) -> None:
    expected = {path: fact.md5 for path, fact in listing.items() if fact.md5 and not fact.git}
    # A lone file's place ends with a slash, because nothing was joined to it.
    digests = {path.rstrip("/"): digest for path, digest in found}
    assert digests.keys() == expected.keys()
    assert {path: digest or expected[path] for path, digest in digests.items()} == expected


def test_every_revision(era: Era) -> None:
    with Repository.open(era.repository) as repository:
        for revision in (*era.tags, *era.experiments):
            files = GitFiles(repository, repository.resolve(revision))
            _compare(_contents(files, era.repository), era.listing(revision))


def test_the_project_without_git(era: Era) -> None:
    if not era.no_scm.exists():
        assert era.name in ("cloud", "upgraded")
        return
    # Here git cannot tell which files are DVC's own.
    listing = {path: fact for path, fact in era.listing("").items() if not _is_dvcs(path)}
    _compare(_contents(WorkingFiles(era.no_scm), era.no_scm), listing)


def _is_dvcs(path: str) -> bool:
    return posixpath.basename(path) in ("Dvcfile", "dvc.yaml", "dvc.lock", ".dvcignore") or path.endswith(
        ".dvc"
    )


def test_every_output_of_the_working_tree_is_a_target(era: Era) -> None:
    index = read_index(WorkingFiles(era.repository))
    stored = [tracked for tracked in index.outputs if tracked.output.cached and tracked.output.oid]
    assert stored
    for tracked in stored:
        found = find_target(era.repository / tracked.path)
        assert found.metafile == era.repository / tracked.metafile
        assert found.outputs == (tracked.output,)


def test_runs_are_logged_since_dvc_1(era: Era) -> None:
    log = read_runs(era.repository / ".dvc/cache")
    assert bool(log.runs) == (era.name != "0.94")
    assert log.broken == ()
    assert all(run.command and run.outs for run in log.runs)


def test_what_an_index_tells_beside_the_content(newest: Era) -> None:
    index = read_index(WorkingFiles(newest.repository))
    assert {type(tracked.source) for tracked in index.outputs} >= {RepositoryImport, UrlImport}
    assert any("@" in tracked.stage for tracked in index.outputs)
    assert any(tracked.output.remote for tracked in index.outputs)
    assert any(not tracked.output.push for tracked in index.outputs)
    assert any(not tracked.output.cached for tracked in index.outputs)
