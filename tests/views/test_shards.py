"""`.fusefs/shards`: archives that every reader of tar agrees with, and that nothing is made of beforehand."""

from __future__ import annotations

import errno
import io
import json
import os
import random
import subprocess
import tarfile
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import webdataset

from tests.lazy.test_verified import is_refused
from tests.mount.datasets import BROKEN_NAMES, Cache, entries_of, filler, md5, tree_of, varied_files
from tests.mount.mounts import Mount, Mounter
from tests.patience import until
from tests.revisions.projects import Project
from tests.revisions.test_switch import OLDER_KERNEL, OlderMounter
from tests.servers.access_log import assert_asked, objects_asked
from tests.servers.nginx import nginx

pytestmark = pytest.mark.fuse

SECONDS = 60.0
BLOCK = 1 << 20
MOST_VIEWS = 1000
RECORD = 10240
PAGE = 4096
SAMPLES = {
    f"{kind}/{number:03d}.{extension}": filler(size + number, number)
    for number in range(40)
    for kind, extension, size in (("a", "jpg", 3000), ("a", "seg.png", 1), ("b", "npy", 70_000))
}
ONE = {"a.txt": b"one", "b.txt": b"both", "c.txt": b"gone"}
TWO = {"a.txt": b"another, and longer than a block: " + bytes(600), "b.txt": b"both"}


def unpack(archive: bytes) -> dict[str, bytes]:
    """The members of an archive, which has no path twice."""
    found = {}
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        for member in opened:
            assert member.name not in found
            file = opened.extractfile(member)
            assert file is not None
            found[member.name] = file.read()
    return found


def shards_of(directory: Path) -> list[Path]:
    """The shards, which are all that there is but for what tells how many."""
    names = sorted(os.listdir(directory))
    described = json.loads((directory / "dataset.json").read_text())
    assert names == [*(f"{number:06d}.tar" for number in range(described["shards"])), "dataset.json"]
    return [directory / name for name in names[:-1]]


def read_shards(directory: Path) -> dict[str, bytes]:
    """What is in all shards together."""
    found: dict[str, bytes] = {}
    for shard in shards_of(directory):
        archive = shard.read_bytes()
        assert shard.stat().st_size == len(archive)
        assert len(archive) % RECORD == 0
        members = unpack(archive)
        assert not members.keys() & found.keys()
        found.update(members)
    return found


def served_in(mount: Mount, recipe: str) -> Path:
    return mount.path / ".fusefs" / "shards" / recipe


@pytest.fixture(scope="module")
def samples(shared_mounter: Mounter) -> Mount:
    return shared_mounter.mount_files(SAMPLES)


@pytest.fixture(scope="module")
def varied(shared_mounter: Mounter) -> tuple[Mount, Mapping[str, bytes]]:
    files = {**varied_files(), **{f"names/{name}": b"in " + os.fsencode(name) for name in BROKEN_NAMES}}
    return shared_mounter.mount_files(files), files


def test_every_name_and_length_comes_back(varied: tuple[Mount, Mapping[str, bytes]]) -> None:
    mount, files = varied
    for recipe in ("50", "1000000", "7,shuffle=3"):
        assert read_shards(served_in(mount, recipe)) == files


def test_gnu_tar_unpacks_them(varied: tuple[Mount, Mapping[str, bytes]], tmp_path: Path) -> None:
    mount, files = varied
    for shard in shards_of(served_in(mount, "100")):
        done = subprocess.run(
            ["tar", "--extract", "--file", shard, "--directory", tmp_path],
            capture_output=True,
            timeout=SECONDS,
            check=True,
        )
        assert done.stderr == b""
    assert tree_of(tmp_path) == files
    listed = subprocess.run(
        ["tar", "tf", served_in(mount, "1000000") / "000000.tar"],
        capture_output=True,
        timeout=SECONDS,
        check=True,
    )
    assert listed.stdout.count(b"\n") == len(files)


# It leaves the files that it reads to the collector.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("recipe", ["7", "7,shuffle=1"])
def test_webdataset_reads_whole_samples(samples: Mount, recipe: str) -> None:
    shards = shards_of(served_in(samples, recipe))
    assert len(shards) == 12  # of 80 samples
    found = {}
    for sample in webdataset.WebDataset([str(shard) for shard in shards], shardshuffle=False):
        key = sample["__key__"]
        assert {name for name in sample if not name.startswith("__")} in ({"jpg", "seg.png"}, {"npy"})
        found.update({f"{key}.{name}": sample[name] for name in sample if not name.startswith("__")})
    assert found == SAMPLES


def test_a_shuffle_is_an_order_and_holds_everywhere(samples: Mount, mounter: Mounter) -> None:
    again = mounter.mount_files(SAMPLES)
    orders = []
    for recipe in ("80", "80,shuffle=1", "80,shuffle=2"):
        archive = (served_in(samples, recipe) / "000000.tar").read_bytes()
        assert archive == (served_in(again, recipe) / "000000.tar").read_bytes()
        orders.append(list(unpack(archive)))
    assert orders[0] == sorted(SAMPLES)
    assert sorted(orders[1]) == sorted(orders[2]) == orders[0]
    assert orders[1] != orders[0] != orders[2] != orders[1]


def test_times_and_modes(samples: Mount, mounter: Mounter) -> None:
    """Equal shards have equal times in all mounts, others have others."""
    files = {**SAMPLES, "b/039.npy": b"changed"}
    changed = mounter.mount_files(files, "--umask", "027", "--uid", "1234")
    before, after = (
        [shard.stat() for shard in shards_of(served_in(mount, "10"))] for mount in (samples, changed)
    )
    assert [one.st_mtime for one in before[:-1]] == [one.st_mtime for one in after[:-1]]
    assert before[-1].st_mtime != after[-1].st_mtime
    assert {one.st_mode for one in before} == {0o100644}
    assert {(one.st_mode, one.st_uid) for one in after} == {(0o100640, 1234)}
    assert served_in(changed, "10").stat().st_mode == 0o40750


def test_any_range_through_a_web_server(samples: Mount, tmp_path: Path) -> None:
    directory = served_in(samples, "30,shuffle=9")
    archive = (directory / "000001.tar").read_bytes()
    choice = random.Random(5)
    with nginx(tmp_path, directory) as server:
        for _ in range(40):
            start = choice.randrange(len(archive))
            stop = min(len(archive), start + choice.choice((1, 512, 4096, 100_000)))
            request = urllib.request.Request(
                f"{server.url}/000001.tar", headers={"Range": f"bytes={start}-{stop - 1}"}
            )
            with urllib.request.urlopen(request, timeout=SECONDS) as answer:
                assert answer.status == 206
                assert answer.read() == archive[start:stop]
        with urllib.request.urlopen(f"{server.url}/dataset.json", timeout=SECONDS) as answer:
            assert json.load(answer)["files"] == len(SAMPLES)


def test_many_readers_of_one_open_file(samples: Mount) -> None:
    shard = served_in(samples, "80") / "000000.tar"
    archive = shard.read_bytes()
    choice = random.Random(6)
    with shard.open("rb", buffering=0) as opened:
        for _ in range(100):
            start, length = choice.randrange(len(archive)), choice.randrange(200_000)
            assert os.pread(opened.fileno(), length, start) == archive[start : start + length]


def test_what_is_no_shard_is_not_there(samples: Mount) -> None:
    directory = samples.path / ".fusefs" / "shards"
    errors = samples.status()["errors"]
    for recipe in (
        "0",
        "007",
        "ten",
        "7,shuffle=",
        "7,shuffle=01",
        "7,seed=1",
        "-1",
        "\udcff",
        "7 ",
        "9" * 41,
    ):
        with pytest.raises(FileNotFoundError):
            os.stat(directory / recipe)
    for name in (
        "0.tar",
        "000000.tar ",
        "000012.tar",
        "-00001.tar",
        "9999999999.tar",
        "000000",
        "\udcff.tar",
    ):
        with pytest.raises(FileNotFoundError):
            os.stat(directory / "7" / name)
    with pytest.raises(IsADirectoryError):
        (directory / "7").read_bytes()
    with pytest.raises(NotADirectoryError):
        os.listdir(directory / "7" / "000000.tar")
    with pytest.raises(OSError, match="Read-only"):
        (directory / "7" / "000000.tar").write_bytes(b"")
    assert samples.status()["errors"] == errors
    for said in (
        "'007' is not how a recipe for shards is spelt: write 7\n",
        "'ten' is not a recipe for shards: write <samples per shard>[,shuffle=SEED]",
    ):  # the log is written behind the answers
        until(lambda said=said: said in samples.log.read_text())
    assert "7" in os.listdir(directory)


def test_a_version_without_files(mounter: Mounter) -> None:
    mount = mounter.mount_files({})
    assert read_shards(served_in(mount, "1")) == {}


def test_a_mount_has_only_so_many_views(mounter: Mounter) -> None:
    mount = mounter.mount_files({"a": b"a"})
    for samples in range(1, MOST_VIEWS + 1):
        os.stat(served_in(mount, str(samples)))
    with pytest.raises(OSError) as failed:
        os.stat(served_in(mount, str(MOST_VIEWS + 1)))
    assert failed.value.errno == errno.EIO
    assert read_shards(served_in(mount, "1")) == {"a": b"a"}
    assert len(os.listdir(mount.path / ".fusefs" / "shards")) == MOST_VIEWS
    assert "mount it anew" in mount.umount()


def test_data_that_is_called_like_the_control_directory(mounter: Mounter) -> None:
    files = {".fusefs/shards/7/000000.tar": b"data", "x": b"y"}
    mount = mounter.mount_files(files, control=".fusefs-control")
    assert read_shards(mount.path / ".fusefs-control" / "shards" / "1") == files
    assert os.listdir(mount.path / ".fusefs" / "shards" / "7") == ["000000.tar"]


# What is not here


class Remote:
    """A remote behind a web server, and a cache that has the manifest alone."""

    def __init__(self, home: Path, url: str, cache: Cache, remote: Cache, oid: str) -> None:
        self.url, self.cache, self.remote, self.oid = url, cache, remote, oid
        self.log = home / "access.log"

    def mount(self, mounter: Mounter, *flags: str) -> Mount:
        return mounter.mount(self.oid, "--cache", self.cache.root, "--remote", self.url, *flags)


@pytest.fixture
def remote(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Remote]:
    """Sizes are known beforehand, unless the parameter says otherwise."""
    cache, there = Cache(tmp_path / "cache"), Cache(tmp_path / "remote")
    for data in SAMPLES.values():
        there.put(data)
    oid = cache.put_manifest(entries_of(SAMPLES, sizes=getattr(request, "param", "sizes") == "sizes"))
    extra = f"access_log {tmp_path}/access.log;"
    with nginx(tmp_path / "nginx", there.root, extra=extra) as server:
        yield Remote(tmp_path, server.url, cache, there, oid)


def test_opening_brings_nothing_and_reading_each_member_once(mounter: Mounter, remote: Remote) -> None:
    mount = remote.mount(mounter)
    shards = shards_of(served_in(mount, "10,shuffle=4"))
    sizes = []
    for shard in shards:
        with shard.open("rb") as file:
            sizes.append(file.seek(0, os.SEEK_END))
    status = mount.status()
    assert (status["hits"], status["misses"], status["bytes_remote"]) == (0, 0, 0)
    assert not objects_asked(remote.log)
    archives = [shard.read_bytes() for shard in shards]
    assert [len(archive) for archive in archives] == sizes
    found = {path: data for archive in archives for path, data in unpack(archive).items()}
    assert found == SAMPLES
    assert mount.status()["errors"] == 0
    assert_asked(remote.log, {md5(data) for data in SAMPLES.values()}, mount)
    mount.umount()


def test_what_was_evicted_comes_back(mounter: Mounter, remote: Remote) -> None:
    mount = remote.mount(mounter)
    assert read_shards(served_in(mount, "5")) == SAMPLES
    gone = list(SAMPLES.values())[::3]
    mount.await_kept()
    for data in gone:
        remote.cache.remove(md5(data))
    assert read_shards(served_in(mount, "6")) == SAMPLES
    assert_asked(remote.log, map(md5, [*SAMPLES.values(), *gone]), mount)
    mount.umount()


@pytest.mark.parametrize("remote", ["no sizes"], indirect=True)
def test_sizes_are_learnt_when_they_are_wanted(mounter: Mounter, remote: Remote) -> None:
    mount = remote.mount(mounter, "--no-prefetch")
    assert read_shards(served_in(mount, "9")) == SAMPLES
    assert mount.status()["errors"] == 0
    mount.umount()


@pytest.mark.parametrize("remote", ["no sizes"], indirect=True)
def test_a_size_that_nobody_knows_keeps_the_others(mounter: Mounter, remote: Remote) -> None:
    path = "b/039.npy"  # of the last sample
    remote.remote.remove(md5(SAMPLES[path]))
    mount = remote.mount(mounter)
    directory = served_in(mount, "40")
    assert sorted(os.listdir(directory)) == ["000000.tar", "000001.tar", "dataset.json"]
    assert len(unpack((directory / "000000.tar").read_bytes())) == 80
    for name in ("000001.tar", "dataset.json"):
        with pytest.raises(OSError) as failed:
            (directory / name).read_bytes()
        assert failed.value.errno == errno.EIO
    assert repr(path) in mount.umount()


def test_a_member_that_is_nowhere_is_an_error_of_its_own(
    mounter: Mounter, remote: Remote, samples: Mount
) -> None:
    path = "b/020.npy"
    archive = (served_in(samples, "1000") / "000000.tar").read_bytes()
    start = archive.index(SAMPLES[path])
    stop = start + len(SAMPLES[path])
    remote.remote.remove(md5(SAMPLES[path]))
    mount = remote.mount(mounter)
    with (served_in(mount, "1000") / "000000.tar").open("rb", buffering=0) as opened:
        assert os.fstat(opened.fileno()).st_size == len(archive)
        for page in range(0, len(archive), PAGE):
            try:
                assert os.pread(opened.fileno(), PAGE, page) == archive[page : page + PAGE]
            except OSError as error:
                assert error.errno == errno.EIO
                assert start - PAGE < page < stop
            else:
                assert not start <= page < stop
    assert mount.status()["errors"]
    log = mount.umount()
    assert repr(path) in log
    assert "Traceback" not in log


def test_a_size_that_was_wrong_is_corrected(mounter: Mounter) -> None:
    """A file in the cache told it, and the object that came in its place is another length's."""
    cache = Cache(mounter.home / "cache")
    cache.put(b"short", md5(TWO["a.txt"]))
    cache.put(TWO["b.txt"])
    mount = mounter.mount(cache.put_manifest(entries_of(TWO)), "--cache", cache.root)
    shard = served_in(mount, "2") / "000000.tar"
    before = shard.stat()
    with shard.open("rb", buffering=0) as opened:
        cache.remove(md5(TWO["a.txt"]))
        cache.put(TWO["a.txt"])
        with pytest.raises(OSError) as failed:
            opened.read()
    assert failed.value.errno == errno.EIO
    assert unpack(shard.read_bytes()) == TWO
    assert shard.stat().st_ino == before.st_ino
    described = json.loads((shard.parent / "dataset.json").read_text())
    assert described["bytes"] == sum(map(len, TWO.values()))
    assert "'a.txt' has 634 bytes and not 5" in mount.umount()


def test_wrong_bytes_that_were_served_are_forgotten(mounter: Mounter, tmp_path: Path) -> None:
    """Blocks of a large member are served before all of it can be hashed; if that fails they are not kept."""
    cache, there = Cache(tmp_path / "cache"), Cache(tmp_path / "remote")
    large = filler(6 * BLOCK, 3)
    wrong = bytearray(large)
    wrong[100] ^= 0xFF
    there.put(bytes(wrong), md5(large))
    oid = cache.put_manifest(entries_of({"a": b"", "large": large}, sizes=True))
    with nginx(tmp_path / "nginx", there.root) as server:
        mount = mounter.mount(oid, "--cache", cache.root, "--remote", server.url)
        shard = served_in(mount, "1") / "000001.tar"
        with shard.open("rb", buffering=0) as opened:
            head = os.pread(opened.fileno(), PAGE, 0)
            assert head[512:] == wrong[: PAGE - 512]  # nobody can know yet
            for offset in range(0, len(large), BLOCK):
                try:
                    os.pread(opened.fileno(), BLOCK, offset)
                except OSError:
                    break
            until(lambda: is_refused(opened.fileno()))  # what was in the page cache is not there any more
        mount.umount()


# The version at the root


@pytest.fixture
def versions(project: Project) -> Project:
    for tag, files in (("v1", ONE), ("v2", TWO)):
        project.track("data", files)
        project.commit(tag)
    return project


@pytest.fixture(params=["newer", "older"])
def kernels_mounter(request: pytest.FixtureRequest, mounter: Mounter) -> Iterator[Mounter]:
    """Mounts as with a kernel that forgets all names at once, and with one that must be told each."""
    if request.param == "newer":
        yield mounter
        return
    if mounter.mode == "native":
        pytest.skip("in native mode no kernel is told of names")
    older = OlderMounter(mounter.home, mounter.mode)
    (older.home / "older").mkdir()
    (older.home / "older" / "sitecustomize.py").write_text(OLDER_KERNEL)
    yield older
    older.close()
    assert (older.home / "told").exists()


@pytest.mark.modes("fuse", "native")
def test_a_switch_takes_the_view_along(kernels_mounter: Mounter, versions: Project) -> None:
    mounter = kernels_mounter
    mount = mounter.mount("data@v1", cwd=versions.root)
    directory = served_in(mount, "1")
    assert read_shards(directory) == ONE
    with (directory / "000000.tar").open("rb", buffering=0) as opened:
        assert mounter.run("switch", mount.path, "v2").returncode == 0
        assert read_shards(directory) == TWO
        assert unpack(opened.read()) == {"a.txt": ONE["a.txt"]}
    assert not (directory / "000002.tar").exists()
    assert mounter.run("switch", mount.path, "v1").returncode == 0
    assert read_shards(directory) == ONE
    mount.umount()


@pytest.mark.modes("fuse")  # a view at the root is for fuse mode alone
def test_a_mount_of_shards(kernels_mounter: Mounter, versions: Project) -> None:
    mounter = kernels_mounter
    mount = mounter.mount("data@v1", "--view", "shards:2", cwd=versions.root)
    assert read_shards(mount.path) == ONE
    assert mount.status()["view"] == "shards:2"
    assert "  shown as       shards:2\n" in mounter.run("status", mount.path).stdout
    assert read_shards(served_in(mount, "1")) == ONE
    assert os.statvfs(mount.path).f_blocks == 1
    with (mount.path / "000001.tar").open("rb", buffering=0) as opened:
        assert mounter.run("switch", mount.path, "v2").returncode == 0
        assert read_shards(mount.path) == TWO
        assert unpack(opened.read()) == {"c.txt": ONE["c.txt"]}
    with pytest.raises(FileNotFoundError):
        (mount.path / "000001.tar").stat()
    assert mounter.run("switch", mount.path, "v1").returncode == 0
    assert read_shards(mount.path) == ONE
    mount.umount()


def test_a_command_with_shards(mounter: Mounter, versions: Project) -> None:
    options = ("--log", mounter.home / "run.log", "-o", r"view=shards:2\,shuffle=1")
    done = mounter.run("run", *options, "data@v1", "--", "ls", "{}", cwd=versions.root)
    assert (done.returncode, done.stdout) == (0, "000000.tar\n000001.tar\ndataset.json\n")


@pytest.mark.parametrize(
    ("view", "said"),
    [
        ("shards", "views look like shards:1000"),
        ("pictures:10", "kinds are chunks, frames, shards"),
        ("shards:0", "0 samples a shard"),
        ("shards:10,shuffle", "write <samples per shard>[,shuffle=SEED]"),
        ("shards:010", "write 10"),
        ("frames:gif", "gif"),
        ("chunks:0", "chunk"),
        ("", "views look like shards:1000"),
    ],
)
def test_a_wrong_view_is_said_before_anything_is_mounted(mounter: Mounter, view: str, said: str) -> None:
    place = mounter.new_mountpoint()
    done = mounter.run("mount", "--view", view, "data.dvc", place)
    assert done.returncode == 2
    assert said in done.stderr.splitlines()[-1]
    assert not os.path.ismount(place)


def test_a_view_is_of_one_version(mounter: Mounter, versions: Project) -> None:
    said = mounter.refuse("data.dvc", "--view", "shards:1", "--revs", "v*", cwd=versions.root)
    assert "--view is of one version" in said
