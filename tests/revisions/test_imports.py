"""What the real `dvc import` brought is shown from the project's cache, else from where it came from."""

from __future__ import annotations

import os
import re
import shutil
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.mount.datasets import Cache, md5, tree_of, write_folder
from tests.mount.mounts import Mounter
from tests.repositories import initialize

pytestmark = pytest.mark.fuse

TOOL_SECONDS = 60.0
DATA = {"a": b"data a", "sub/b": b"data b", "sub/deep/c": b"data c" * 3000}
DOCS = {"one": b"git has one", "below/two": b"git has two"}
SINGLE = b"a single output"
PLAIN = b"a file of git's"
MIXED = {"in git": b"from git", "out/x": b"from the cache"}
SUB = {path.removeprefix("sub/"): data for path, data in DATA.items() if path.startswith("sub/")}


@dataclass(frozen=True)
class Tools:
    """The real git and dvc, out of the reach of this machine's configuration."""

    environment: dict[str, str]

    def __call__(self, directory: Path, *command: str | Path) -> str:
        done = subprocess.run(
            command,
            cwd=directory,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=TOOL_SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def commit(self, root: Path, tag: str) -> None:
        self(root, "git", "add", ".")
        self(root, "git", "commit", "--quiet", "--message", tag)
        self(root, "git", "tag", tag)


def make_tools(mounter: Mounter) -> Tools:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for tool in ("dvc", "git"):
        assert shutil.which(tool, path=path), f"{tool} is not installed; scripts/setup does it"
    names = {
        f"GIT_{who}_{what}": "somebody@here" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
    }
    site = {"DVC_SITE_CACHE_DIR": str(mounter.home / "site"), "DVC_NO_ANALYTICS": "1", "PATH": path}
    return Tools(mounter.environment | names | site)


@dataclass(frozen=True)
class Chain:
    """`last` imports from `middle`, which imports from `origin`. No cache but the origin's has anything."""

    tools: Tools
    origin: Path
    middle: Path
    last: Path


@pytest.fixture(scope="module")
def made(shared_mounter: Mounter) -> Chain:
    tools = make_tools(shared_mounter)
    origin, middle, last = (initialize(shared_mounter.home / name) for name in ("origin", "middle", "last"))
    write_folder(origin / "data", DATA)
    write_folder(origin / "docs", DOCS)
    write_folder(origin / "mixed", MIXED)
    (origin / "single").write_bytes(SINGLE)
    (origin / "plain").write_bytes(PLAIN)
    tools(origin, "dvc", "add", "--quiet", "data", "single", "mixed/out")
    tools.commit(origin, "v1")
    for path, out in (("data", "data"), ("data/sub", "sub"), ("single", "single"), ("docs", "docs")):
        tools(middle, "dvc", "import", "--quiet", origin, path, "--out", out)
    for path in ("data", "single", "plain", "mixed"):
        tools(middle, "dvc", "import", "--quiet", "--no-download", origin, path, "--out", f"partial-{path}")
    tools.commit(middle, "v1")
    tools(last, "dvc", "import", "--quiet", middle, "data", "--out", "again")
    tools(last, "dvc", "import", "--quiet", "--no-download", middle, "docs", "--out", "docs")
    tools.commit(last, "v1")
    write_folder(origin / "data", {"later": b"not what was imported"})
    tools(origin, "dvc", "add", "--quiet", "data")
    tools.commit(origin, "v2")
    return Chain(tools, origin, middle, last)


def rewrite(tools: Tools, root: Path, changes: dict[str, str]) -> None:
    """Replace words in the metafiles, and commit them as `v1` again."""
    for metafile in root.glob("?*.dvc"):
        # A long path is written on a line of its own.
        text = re.sub(r"url:\s*\n\s+", "url: ", metafile.read_text())
        for old, new in changes.items():
            text = text.replace(old, new)
        metafile.write_text(text)
    tools(root, "git", "tag", "--delete", "v1")
    tools.commit(root, "v1")


@pytest.fixture
def chain(made: Chain, mounter: Mounter) -> Chain:
    """A copy for a test, at the same paths as far as the imports know: those are written anew."""
    tools, home = make_tools(mounter), mounter.home
    origin, middle, last = (home / name for name in ("origin", "middle", "last"))
    for root in (origin, middle, last):
        shutil.copytree(made.origin.parent / root.name, root, symlinks=True)
    before = tools(middle, "git", "rev-parse", "HEAD").strip()
    rewrite(tools, middle, {str(made.origin.parent): str(home)})
    # The metafiles of the middle one changed, and so its commit.
    after = tools(middle, "git", "rev-parse", "HEAD").strip()
    rewrite(tools, last, {str(made.origin.parent): str(home), before: after})
    for root in (middle, last):
        shutil.rmtree(root / ".dvc" / "cache")
        for output in ("data", "sub", "single", "docs", "again"):
            shutil.rmtree(root / output, ignore_errors=True)
        (root / "single").unlink(missing_ok=True)
    return Chain(tools, origin, middle, last)


CONTENT = {
    "data": DATA,
    "sub": SUB,
    "single": {"single": SINGLE},
    "docs": DOCS,
    "partial-data": DATA,
    "partial-single": {"partial-single": SINGLE},
    "partial-plain": {"partial-plain": PLAIN},
    "partial-mixed": MIXED,
}


def test_every_kind_of_import_from_where_it_came(chain: Chain, mounter: Mounter) -> None:
    for name, content in CONTENT.items():
        for target in (f"{name}.dvc", f"{name}@v1", name):
            mount = mounter.mount(target, cwd=chain.middle)
            shown = {
                path: data
                for path, data in tree_of(mount.path).items()
                if path not in (".gitignore", "out.dvc")
            }
            assert shown == content, target
            assert mount.status()["errors"] == 0
            mount.umount()
    assert not (chain.middle / ".dvc" / "cache").exists()


def test_an_import_of_an_import(chain: Chain, mounter: Mounter) -> None:
    for target, content in (("again", DATA), ("again@v1", DATA), ("again/sub", SUB), ("docs@v1", DOCS)):
        assert tree_of(mounter.mount(target, cwd=chain.last).path) == content


def test_a_whole_project_with_its_imports(chain: Chain, mounter: Mounter) -> None:
    tree = tree_of(mounter.mount(".@v1", cwd=chain.middle).path)
    for name, content in CONTENT.items():
        for path, data in content.items():
            assert tree[path if path == name else f"{name}/{path}"] == data


def test_what_the_own_cache_has_needs_no_source(chain: Chain, mounter: Mounter) -> None:
    Cache(chain.middle / ".dvc" / "cache").put_dataset(DATA)
    shutil.rmtree(chain.origin)
    assert tree_of(mounter.mount("data", cwd=chain.middle).path) == DATA
    assert tree_of(mounter.mount("data@v1", cwd=chain.middle).path) == DATA


def test_objects_of_several_caches_make_one_tree(chain: Chain, mounter: Mounter) -> None:
    """Some in the own cache, some in the middle one, the rest in the origin's."""
    own, middle, origin = (
        Cache(root / ".dvc" / "cache") for root in (chain.last, chain.middle, chain.origin)
    )
    own.put_dataset({"a": DATA["a"]})
    middle.put(DATA["sub/b"])
    for data in (DATA["a"], DATA["sub/b"]):
        origin.remove(md5(data))
    mount = mounter.mount("again@v1", cwd=chain.last)
    assert tree_of(mount.path) == DATA
    assert mount.status()["misses"] == 0


def test_a_source_that_is_gone(chain: Chain, mounter: Mounter) -> None:
    shutil.rmtree(chain.origin)
    gone = re.escape(f"the repository '{chain.origin}' that was imported from is gone")
    for target in ("data", "data@v1", "single.dvc", "partial-data@v1"):
        assert re.search(gone, mounter.refuse(target, cwd=chain.middle))
    # In a whole project it is a warning, and the rest is shown.
    place = mounter.new_mountpoint()
    done = mounter.run("run", ".@v1", "--", "ls", "{}", cwd=chain.middle)
    assert done.returncode == 0, done.stderr
    assert "'data' is left out: the repository" in done.stderr
    assert "data.dvc" in done.stdout.split()
    assert "single" not in done.stdout.split()
    place.rmdir()


def test_what_is_partly_here_is_shown_although_its_source_is_gone(chain: Chain, mounter: Mounter) -> None:
    cache = Cache(chain.middle / ".dvc" / "cache")
    cache.put_dataset(DATA)
    cache.remove(md5(DATA["a"]))
    shutil.rmtree(chain.origin)
    place = mounter.new_mountpoint()
    done = mounter.run("run", "data@v1", "--", "cat", "{}/sub/b", cwd=chain.middle)
    assert (done.returncode, done.stdout) == (0, DATA["sub/b"].decode())
    assert "'data' is not whole in the cache, and the repository" in done.stderr
    place.rmdir()


def test_objects_that_are_nowhere(chain: Chain, mounter: Mounter) -> None:
    shutil.rmtree(chain.origin / ".dvc" / "cache")
    refusal = mounter.refuse("again@v1", cwd=chain.last)
    assert re.search(
        r"imported from \S*middle@\w{10}:data → \S*origin@\w{10}:data: .*manifest|object", refusal
    )
    assert "`dvc fetch` there or `dvc pull` here brings it" in refusal


def test_versions_that_are_opened_later(chain: Chain, mounter: Mounter) -> None:
    """They may need caches that the mount did not know when it began."""
    Cache(chain.middle / ".dvc" / "cache").put_dataset({"own": b"mine"})
    write_folder(chain.middle / "data", {"own": b"mine"})
    (chain.middle / "data.dvc").unlink()
    chain.tools(chain.middle, "dvc", "add", "--quiet", "data")
    chain.tools.commit(chain.middle, "v2")
    mount = mounter.mount("data@v2", cwd=chain.middle)
    assert tree_of(mount.path) == {"own": b"mine"}
    assert tree_of(mount.path / ".fusefs" / "revs" / "v1") == DATA


def test_a_url_that_leads_to_another_repository_of_this_machine(chain: Chain, mounter: Mounter) -> None:
    """A file URL is a path, too."""
    metafile = chain.middle / "data.dvc"
    metafile.write_text(metafile.read_text().replace(f"url: {chain.origin}", f"url: file://{chain.origin}"))
    assert tree_of(mounter.mount("data.dvc", cwd=chain.middle).path) == DATA
    metafile.write_text(metafile.read_text().replace(f"url: file://{chain.origin}", "url: ../origin"))
    assert tree_of(mounter.mount("data.dvc", cwd=chain.middle).path) == DATA


@pytest.fixture
def served(chain: Chain) -> Iterator[str]:
    """The URL below which the chain's repositories can be cloned."""
    root = chain.origin.parent
    command = ["git", "daemon", "--inetd", "--export-all", f"--base-path={root}", "--log-destination=none"]
    for repository in (chain.origin, chain.middle):
        chain.tools(repository, "git", "config", "uploadpack.allowFilter", "true")
        chain.tools(repository, "git", "config", "uploadpack.allowAnySHA1InWant", "true")

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            subprocess.run(
                command,
                stdin=self.request,
                stdout=self.request,
                env=chain.tools.environment,
                timeout=TOOL_SECONDS,
                check=False,
            )

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"git://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def test_imports_by_url(chain: Chain, mounter: Mounter, served: str) -> None:
    """Files of git's come from a clone; of outputs only the objects that are on this machine."""
    rewrite(chain.tools, chain.middle, {f"url: {chain.origin}": f"url: {served}/origin"})
    docs = mounter.mount("docs@v1", cwd=chain.middle)
    assert tree_of(docs.path) == DOCS
    plain = mounter.mount("partial-plain.dvc", cwd=chain.middle)
    assert tree_of(plain.path) == {"partial-plain": PLAIN}
    refusal = mounter.refuse("partial-data@v1", cwd=chain.middle)
    assert refusal.startswith(f"fusefs: imported from {served}/origin@")
    assert "`dvc fetch` there or `dvc pull` here brings it" in refusal
    Cache(mounter.home / "data" / "fusefs").put_dataset(DATA)  # where what is cloned has its objects
    assert tree_of(mounter.mount("partial-data@v1", cwd=chain.middle).path) == DATA


def test_what_is_cloned_does_not_lead_to_this_machine(chain: Chain, mounter: Mounter, served: str) -> None:
    not_followed = "a path of this machine, by a repository from elsewhere is not followed"
    assert not_followed in mounter.refuse("data@v1", "--repo", f"{served}/middle")
    commit = chain.tools(chain.middle, "git", "rev-parse", "HEAD").strip()
    metafile = chain.last / "again.dvc"
    metafile.write_text(metafile.read_text().replace(f"url: {chain.middle}", f"url: {served}/middle"))
    assert commit in metafile.read_text()
    assert not_followed in mounter.refuse("again.dvc", cwd=chain.last)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make what somebody else owns")
def test_a_repository_of_another_user_leads_nowhere(chain: Chain, mounter: Mounter) -> None:
    os.chown(chain.middle, 12345, 12345)
    refusal = mounter.refuse("data.dvc", cwd=chain.middle)
    assert "a path of this machine, by a repository of another user is not followed" in refusal
    # Neither does one on the way.
    refusal = mounter.refuse("again", cwd=chain.last)
    assert "belongs to somebody else, and git does not read it" in refusal


@pytest.mark.parametrize("url", ["ext::sh -c touch% pwned", "-oProxyCommand=x", "--upload-pack=x"])
def test_hostile_addresses_run_nothing(chain: Chain, mounter: Mounter, url: str) -> None:
    metafile = chain.middle / "data.dvc"
    metafile.write_text(metafile.read_text().replace(f"url: {chain.origin}", f"url: '{url}'"))
    assert "is no repository's address" in mounter.refuse("data.dvc", cwd=chain.middle)
    assert not (chain.middle / "pwned").exists()


def test_a_directory_that_is_no_repository_any_more(chain: Chain, mounter: Mounter) -> None:
    """git would look upwards, and may find another one."""
    inner = chain.middle / "inner"
    inner.mkdir()
    metafile = chain.middle / "data.dvc"
    metafile.write_text(metafile.read_text().replace(f"url: {chain.origin}", "url: inner"))
    assert f"{inner} is not the root of a git repository" in mounter.refuse("data.dvc", cwd=chain.middle)


def test_import_url_is_served_from_the_cache_or_is_one_line(chain: Chain, mounter: Mounter) -> None:
    outside = mounter.home / "outside"
    outside.write_bytes(b"from elsewhere")
    chain.tools(chain.middle, "dvc", "import-url", "--quiet", outside, "here")
    chain.tools(chain.middle, "dvc", "import-url", "--quiet", "--no-download", outside, "not-here")
    assert tree_of(mounter.mount("here.dvc", cwd=chain.middle).path) == {"here": b"from elsewhere"}
    assert "has no hash" in mounter.refuse("not-here.dvc", cwd=chain.middle)
