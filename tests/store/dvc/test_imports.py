"""Imports are followed over working trees that stand for commits; one test has the real DVC and git."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from store.dvc.files import Files, WorkingFiles
from store.dvc.import_source import DatabaseImport, RepositoryImport, UrlImport
from store.dvc.imports import HOPS, Hop, Importer, follow_import
from store.dvc.index import Index, read_index
from store.dvc.metafile import parse_dvc_file
from store.errors import MetafileInvalid, NotTracked, RepositoryUnusable
from store.git.files import GitFiles
from store.git.repository import Repository
from store.git.urls import Location
from tests.repositories import initialize

COMMIT = "d7feaeca7581d3aa66062a686b2073d0ea1ba872"
DIGEST = "92ea5dc312bbab1be4c38c7b05d14fd6"


class Directories:
    """Every commit of a repository is what lies in its directory; URLs are looked up in a table."""

    def __init__(self, urls: dict[str, Path] | None = None) -> None:
        self.urls = urls or {}
        self.opened: list[str] = []

    def open(self, location: Location, commit: str) -> Files:
        self.opened.append(location.url)
        assert commit == COMMIT
        directory = location.local or self.urls.get(location.url)
        if directory is None:
            raise RepositoryUnusable("nobody answers there")
        return WorkingFiles(directory)

    def read_index(self, location: Location, commit: str, root: str) -> Index:
        directory = location.local or self.urls[location.url]
        return read_index(WorkingFiles(directory), root=root)


class Commits(contextlib.ExitStack):
    """The real ones, closed together."""

    def open(self, location: Location, commit: str) -> Files:
        assert location.local
        repository = self.enter_context(Repository.open(location.local))
        return GitFiles(repository, repository.resolve(commit))

    def read_index(self, location: Location, commit: str, root: str) -> Index:
        return read_index(self.open(location, commit), root=root)


def follow(
    source: RepositoryImport, repositories: Directories | Commits, bases: Sequence[Path]
) -> tuple[Hop, ...]:
    """All the way, from a repository of this machine if there are any bases."""
    return tuple(follow_import(source, repositories, Importer(tuple(bases))))


def _import(url: object, path: str) -> RepositoryImport:
    return RepositoryImport(str(url), path, "", COMMIT, "")


def _repository(root: Path, **imported: tuple[object, str]) -> Path:
    """A DVC repository with an output `data/`, a file `README` and what is imported: name → url, path."""
    (root / ".dvc").mkdir(parents=True)
    (root / "README").write_text("text")
    out = "outs:\n- path: {}\n  md5: {}{}\n  hash: md5\n"
    (root / "data.dvc").write_text(out.format("data", DIGEST, ".dir"))
    for name, (url, path) in imported.items():
        dep = f"deps:\n- path: '{path}'\n  repo:\n    url: '{url}'\n    rev_lock: {COMMIT}\n"
        (root / f"{name}.dvc").write_text(dep + out.format(name, DIGEST, ".dir"))
    return root


def test_the_three_kinds_of_imports() -> None:
    def source(dep: str, more: str = "") -> object:
        [output] = parse_dvc_file(f"{more}deps:\n- {dep}\nouts:\n- path: x\n".encode(), "x.dvc")
        return output.source

    repo = f"{{path: a/b, repo: {{url: u, rev: main, rev_lock: {COMMIT}, remote: r, config: c}}}}"
    assert source(repo) == RepositoryImport("u", "a/b", "main", COMMIT, "r")
    assert source("{path: s3://b/x, etag: E-1, version_id: v}") == UrlImport("s3://b/x", "E-1", "v")
    assert source("{db: {connection: pg, query: select 1, file_format: csv}}") == DatabaseImport(
        "pg", "select 1", ""
    )
    assert source("{path: src}", "cmd: make\n") is None
    assert source("{path: a}\n- {path: b}") is None


def test_an_output_of_another_repository(tmp_path: Path) -> None:
    origin = _repository(tmp_path / "origin")
    [hop] = follow(_import(origin, "./data/sub//x"), Directories(), [tmp_path])
    assert (hop.root, hop.path, hop.inside, hop.location.local) == ("", "data/sub/x", "sub/x", origin)
    assert hop.tracked is not None
    assert (hop.tracked.metafile, hop.tracked.path) == ("data.dvc", "data")


def test_a_file_and_a_directory_of_git(tmp_path: Path) -> None:
    origin = _repository(tmp_path / "origin")
    (origin / "docs").mkdir()
    for path in ("README", "docs", ""):
        [hop] = follow(_import(origin, path), Directories(), [tmp_path])
        assert (hop.path, hop.tracked) == (path, None)


def test_an_import_of_an_import_of_an_import(tmp_path: Path) -> None:
    _repository(tmp_path / "one")
    _repository(tmp_path / "two", copy=(tmp_path / "one", "data"))
    _repository(tmp_path / "three", again=(tmp_path / "two", "copy/deep"))
    hops = follow(_import(tmp_path / "three", "again/er"), Directories(), [tmp_path])
    assert [(hop.location.local, hop.path) for hop in hops] == [
        (tmp_path / "three", "again/er"),
        (tmp_path / "two", "copy/deep/er"),
        (tmp_path / "one", "data/deep/er"),
    ]
    assert hops[-1].inside == "deep/er"


def test_a_repository_inside_another_one(tmp_path: Path) -> None:
    outer = _repository(tmp_path / "outer")
    _repository(outer / "sub/inner")
    [hop] = follow(_import(outer, "sub/inner/data/x"), Directories(), [tmp_path])
    assert (hop.root, hop.inside) == ("sub/inner", "x")


def test_relative_paths_are_meant_from_the_first_place_that_has_them(tmp_path: Path) -> None:
    _repository(tmp_path / "one")
    _repository(tmp_path / "deep/two", copy=("../../one", "data"))
    bases = [tmp_path / "deep/meta", tmp_path / "deep"]
    hops = follow(_import("two", "copy"), Directories(), bases)
    assert [hop.location.local and hop.location.local.resolve() for hop in hops] == [
        tmp_path / "deep/two",
        tmp_path / "one",
    ]


def test_loops_name_the_chain(tmp_path: Path) -> None:
    _repository(tmp_path / "one", a=(tmp_path / "two", "b"))
    _repository(tmp_path / "two", b=("../one", "a"))
    with pytest.raises(MetafileInvalid) as caught:
        follow(_import(tmp_path / "one", "a"), Directories(), [tmp_path])
    one, two = f"{tmp_path}/one@{COMMIT[:10]}:a", f"{tmp_path}/two@{COMMIT[:10]}:b"
    assert str(caught.value) == (
        f"imports go round in a circle: {one} → {two} → {tmp_path}/two/../one@{COMMIT[:10]}:a; "
        "import it from its origin"
    )


def test_chains_have_an_end(tmp_path: Path) -> None:
    # Each asks for a path that is deeper by one: never the same place twice.
    _repository(tmp_path / "one", a=(".", "a/x"))
    repositories = Directories()
    with pytest.raises(MetafileInvalid, match="more than 16 times"):
        follow(_import(tmp_path / "one", "a"), repositories, [tmp_path])
    assert len(repositories.opened) == HOPS


def test_a_source_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(
        RepositoryUnusable, match=r"^the repository '\.\./gone' that was imported from is gone"
    ):
        follow(_import("../gone", "data"), Directories(), [tmp_path])
    with pytest.raises(RepositoryUnusable) as caught:
        follow(_import("https://user:secret@host/r.git", "data"), Directories(), [])
    assert str(caught.value) == f"imported from https://host/r.git@{COMMIT[:10]}:data: nobody answers there"


def test_a_path_that_the_source_does_not_have(tmp_path: Path) -> None:
    origin = _repository(tmp_path / "origin")
    (origin / "bad.dvc").write_text("outs: 3\n")
    with pytest.raises(NotTracked) as caught:
        follow(_import(origin, "nothing"), Directories(), [tmp_path])
    assert str(caught.value) == (
        f"imported from {origin}@{COMMIT[:10]}:nothing, where nothing of that name is tracked; "
        "bad.dvc line 1: outs is not a list"
    )


def test_repositories_from_elsewhere_do_not_lead_to_this_machine(tmp_path: Path) -> None:
    secret = _repository(tmp_path / "secret")
    for url in (str(secret), f"file://{secret}", "../secret"):
        remote = _repository(tmp_path / f"remote{len(url)}", data2=(url, "data"))
        repositories = Directories({"https://host/r": remote})
        with pytest.raises(RepositoryUnusable, match="by a repository from elsewhere is not followed"):
            follow(_import("https://host/r", "data2"), repositories, [tmp_path])
        assert repositories.opened == ["https://host/r"]


@pytest.mark.parametrize("url", ["ext::sh -c x", "-u/x", "", "https://-x/r"])
def test_hostile_addresses(tmp_path: Path, url: str) -> None:
    with pytest.raises(RepositoryUnusable):
        follow(_import(url, "data"), Directories(), [tmp_path])


@pytest.mark.parametrize("path", ["/etc/passwd", "..", "a/../../b"])
def test_paths_that_lead_out_of_the_source(tmp_path: Path, path: str) -> None:
    with pytest.raises(MetafileInvalid, match="is no path inside"):
        follow(_import(_repository(tmp_path / "r"), path), Directories(), [tmp_path])


@pytest.mark.parametrize("commit", ["", "main", "--upload-pack=x", COMMIT[:10]])
def test_what_is_no_commit(tmp_path: Path, commit: str) -> None:
    with pytest.raises(MetafileInvalid, match="names no commit"):
        follow(RepositoryImport(str(tmp_path), "x", "", commit, ""), Directories(), [tmp_path])


def test_what_dvc_import_writes(tmp_path: Path, run: Callable[..., str]) -> None:
    who = ("-c", "user.name=n", "-c", "user.email=e@x")
    origin, middle, last = (tmp_path / name for name in ("origin", "middle", "last"))
    for root in (origin, middle, last):
        initialize(root)
    (origin / "data").mkdir()
    (origin / "data/x").write_text("x")
    (origin / "plain").write_text("git has it")
    run(origin, "dvc", "add", "--quiet", "data")
    for root, source in ((origin, None), (middle, origin), (last, middle)):
        if source:
            run(root, "dvc", "import", "--quiet", str(source), "data")
        if source is middle:
            run(root, "dvc", "import", "--quiet", str(origin), "plain")
        run(root, "git", "add", ".")
        run(root, "git", *who, "commit", "--quiet", "--message", "m")
    shutil.rmtree(origin / "data")
    sources = {tracked.path: tracked.source for tracked in read_index(WorkingFiles(last)).outputs}
    data, plain = sources["data"], sources["plain"]
    assert isinstance(data, RepositoryImport)
    assert isinstance(plain, RepositoryImport)
    with Commits() as commits:
        hops = follow(data, commits, [last])
        assert [hop.location.local for hop in hops] == [middle, origin]
        assert hops[-1].tracked and hops[-1].tracked.source is None
        [hop] = follow(plain, commits, [last])
        assert hop.tracked is None
        assert hop.files.read(hop.path, 100) == b"git has it"
