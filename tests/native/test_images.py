"""Large versions as root: names come from an image that the kernel reads, bytes as ever."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
from pathlib import Path

import pytest

from fusefs.control_socket import ask
from fusefs.native.images import FEWEST_FILES
from store.erofs.shelf import SUFFIX
from tests.conftest import kill_for_good
from tests.mount.datasets import BROKEN_NAMES, STRANGE_NAMES, Cache, entries_of, filler, md5, tree_of
from tests.mount.mounts import COMMAND, Mounter, has_image
from tests.patience import until
from tests.revisions.projects import Project, new_project
from tests.supervisor.conftest import kill

pytestmark = [pytest.mark.fuse, pytest.mark.root, pytest.mark.modes("native")]

MANY = {f"many/{number:04d}": b"%d" % (number % 7) for number in range(FEWEST_FILES)}
FILES = {
    "a": b"first",
    "sub/b": filler(30_000, 1),
    "sub/deep/c": filler(5_000_000, 2),
    "empty": b"",
    "new\nline/\\odd: name,": b"odd",
    **{f"strange/{name}": b"x" for name in (*STRANGE_NAMES, *BROKEN_NAMES)},
    **MANY,
}
SECONDS = 60.0
NOBODY = 65534


@pytest.fixture
def cache(mounter: Mounter) -> Cache:
    return Cache(mounter.home / "objects")


def images(mounter: Mounter) -> list[Path]:
    return sorted((mounter.home / "cache" / "fusefs" / "trees").glob(f"*{SUFFIX}"))


def look(path: Path) -> tuple[object, ...]:
    """What has to be the same whoever tells it."""
    status = path.lstat()
    times = (status.st_mtime_ns, status.st_ctime_ns, status.st_atime_ns)
    shown = (stat.filemode(status.st_mode), status.st_uid, status.st_gid, times)
    if path.is_dir():
        return (*shown, sorted(one.name for one in path.iterdir()))
    oid = os.getxattr(path, "user.fusefs.oid")
    return (*shown, status.st_size, status.st_nlink, path.read_bytes(), oid)


def test_an_image_shows_what_our_own_layer_shows(mounter: Mounter, cache: Cache) -> None:
    """But for what does not follow from the oid, and for numbers of inodes, sizes of directories and `df`."""
    oid = cache.put_dataset(FILES)
    mount = mounter.mount(oid, "--cache", cache.root)
    assert has_image(mount)
    other = Mounter(mounter.home, "fuse", mounter.mounts).mount(oid, "--cache", cache.root)
    assert tree_of(mount.path) == FILES
    for path in sorted(other.path.rglob("*")):
        assert look(mount.path / path.relative_to(other.path)) == look(path), path
    names = set(os.listxattr(mount.path / "a"))
    assert names == {"user.fusefs.oid"}
    assert os.getxattr(mount.path, "user.fusefs.oid") == oid.encode()
    found = [path.lstat() for path in [mount.path, *mount.path.rglob("*"), mount.path / ".fusefs"]]
    assert len({status.st_ino for status in found}) == len(found)
    assert len({status.st_dev for status in found}) == 1
    assert sorted(one.name for one in mount.path.iterdir()) == sorted({name.split("/")[0] for name in FILES})
    assert mount.status()["files"] == len(FILES)
    assert (stat.S_IMODE(mount.path.stat().st_mode), mount.path.stat().st_uid) == (0o700, os.geteuid())


def test_nothing_of_what_is_here_needs_the_daemon(mounter: Mounter, cache: Cache) -> None:
    """Not even what nobody has looked at before, nor when it is dead for good: only the root's listing has a
    part of ours."""
    mount = mounter.mount(cache.put_dataset(FILES), "--cache", cache.root)
    assert has_image(mount)
    kill_for_good(mount.pid)
    mount.await_end()
    for top in ("many", "sub"):
        below = {name: data for name, data in FILES.items() if name.startswith(f"{top}/")}
        assert {f"{top}/{name}": data for name, data in tree_of(mount.path / top).items()} == below
    assert (mount.path / "a").read_bytes() == FILES["a"]
    listed = subprocess.run(
        ["ls", "-lR", mount.path / "many"], capture_output=True, timeout=SECONDS, check=True
    )
    assert listed.stdout.count(b"\n") >= len(MANY)
    assert mounter.run("umount", mount.path).returncode == 0


def test_another_daemon_goes_on_with_an_image(mounter: Mounter, cache: Cache) -> None:
    remote = Cache(mounter.home / "remote")
    oid = cache.put_dataset(FILES, sizes=True)
    for name in ("a", "sub/b"):
        remote.put(FILES[name])
        cache.remove(md5(FILES[name]))
    mount = mounter.mount(oid, "--cache", cache.root, "--remote", remote.root, "--no-pin")
    assert has_image(mount)
    assert (mount.path / "a").read_bytes() == FILES["a"]
    os.kill(mount.pid, signal.SIGKILL)
    assert tree_of(mount.path) == FILES
    assert mount.status()["restarts"] == 1


def test_what_is_missing_is_fetched(mounter: Mounter, cache: Cache) -> None:
    """The large one is read through the daemon as it comes, under the same inode."""
    remote = Cache(mounter.home / "remote")
    oid = cache.put_dataset(FILES, sizes=True)
    for name in ("a", "sub/b", "sub/deep/c", "many/0003"):
        remote.put(FILES[name])
        cache.remove(md5(FILES[name]))
    mount = mounter.mount(oid, "--cache", cache.root, "--remote", remote.root, "--no-pin")
    assert has_image(mount)
    before = (mount.path / "sub/deep/c").stat()
    subprocess.run(["ls", "-lR", mount.path], check=True, capture_output=True, timeout=SECONDS)
    assert not cache.place(md5(FILES["a"])).exists()
    assert (mount.path / "many/0003").read_bytes() == FILES["many/0003"]
    assert (mount.path / "many/0010").read_bytes() == FILES["many/0003"]
    with open(mount.path / "sub/deep/c", "rb") as large:
        assert large.read(100) == FILES["sub/deep/c"][:100]
        assert os.path.samestat(os.fstat(large.fileno()), before)
    assert tree_of(mount.path) == FILES
    assert mount.status()["errors"] == 0


def test_an_image_is_made_once_and_not_believed_when_damaged(mounter: Mounter, cache: Cache) -> None:
    oid = cache.put_dataset(FILES, sizes=True)
    mounter.mount(oid, "--cache", cache.root).umount()
    (image,) = images(mounter)
    made = image.stat()
    assert stat.S_IMODE(made.st_mode) == 0o600
    mounter.mount(oid, "--cache", cache.root).umount()
    assert os.path.samestat(image.stat(), made)
    content = image.read_bytes()
    redirect = content.index(md5(FILES["a"])[2:].encode())
    image.write_bytes(content[:redirect] + md5(b"1")[2:].encode() + content[redirect + 30 :])
    mount = mounter.mount(oid, "--cache", cache.root)
    assert has_image(mount)
    assert (mount.path / "a").read_bytes() == FILES["a"]
    assert image.read_bytes() == content
    assert "damaged" in mount.umount()


@pytest.mark.parametrize("is_first", [True, False])
def test_no_image_tells_another_length_than_the_objects(
    mounter: Mounter, cache: Cache, is_first: bool
) -> None:
    """Also not where the wrong object came when the image was there: `cp` would fill up what is too short."""
    oid = cache.put_dataset(FILES, sizes=True)
    if not is_first:
        mounter.mount(oid, "--cache", cache.root, "--no-pin").umount()
    cache.remove(md5(FILES["sub/b"]))
    cache.put(FILES["sub/b"][:-1], md5(FILES["sub/b"]))
    mount = mounter.mount(oid, "--cache", cache.root)
    assert not has_image(mount)
    with pytest.raises(OSError, match="Input/output"):
        (mount.path / "sub/b").read_bytes()
    assert (mount.path / "a").read_bytes() == FILES["a"]
    assert "29999 bytes, not 30000" in mount.umount()


def test_a_redirect_leads_nowhere_but_to_objects(mounter: Mounter, cache: Cache) -> None:
    """An oid is digits; whatever else a manifest says refuses the version."""
    for oid in (
        "../../../../../../etc/hostname",
        "/etc/hostname",
        "ab/../../../../../../etc/passwd",
        "\0" * 32,
    ):
        entries = [*entries_of(MANY), {"md5": oid, "relpath": "stolen"}]
        assert "is not an MD5" in mounter.refuse(cache.put_manifest(entries), "--cache", cache.root)
    assert not images(mounter)


@pytest.fixture
def versions(mounter: Mounter) -> Project:
    """`v1` and `v2` are large, `small` is not."""
    project = new_project(mounter.home / "project", mounter.environment)
    for tag, files in {"v1": FILES, "v2": FILES, "small": {}}.items():
        project.track("data", {**files, "tag": tag.encode(), f"many/{tag}": tag.encode()})
        project.commit(tag)
    return project


def test_switching_from_image_to_image(mounter: Mounter, versions: Project) -> None:
    """Each large version has the names from an image, and is found again by another daemon; what is open
    stays what it was. Nothing of the last one needs a daemon, though nobody has looked at it before."""
    mount = mounter.mount("data@v1", cwd=versions.root)
    assert has_image(mount)
    assert (mount.path / ".fusefs/revs/v2/tag").read_bytes() == b"v2"
    with open(mount.path / "tag", "rb") as held:
        for tag in ("v2", "small", "v1"):
            assert "error" not in ask(mount.status()["control"], {"switch": tag})
            assert has_image(mount)  # the small one is a directory in the overlay of the one before
            assert (mount.path / "tag").read_bytes() == tag.encode()
            commit = versions.git("rev-parse", tag).strip()
            assert os.getxattr(mount.path / ".fusefs/revs" / tag, "user.fusefs.rev") == commit.encode()
            if tag == "v2":
                mount.pid = kill(mount)["pid"]
            assert mount.status()["rev"] == commit
            assert len(list((mount.path / "many").iterdir())) == 1 + len(MANY) * (tag != "small")
        assert held.read() == b"v1"
    opened = [one.resolve() for one in Path(f"/proc/{mount.pid}/fd").iterdir()]
    assert sum(path.suffix == SUFFIX for path in opened) == 1
    kill_for_good(mount.pid)
    mount.await_end()
    below = {name.removeprefix("sub/"): data for name, data in FILES.items() if name.startswith("sub/")}
    assert tree_of(mount.path / "sub") == below
    assert mounter.run("umount", mount.path).returncode == 0
    assert "Traceback" not in mount.log.read_text()


def await_content(path: Path, content: bytes) -> None:
    """Until nobody can have the size any more that was wrong, there is an error and nothing else."""

    def is_right() -> bool:
        try:
            with path.open("rb") as file:
                size, data = os.fstat(file.fileno()).st_size, file.read()
        except OSError as error:
            assert error.errno == errno.EIO
            return False
        assert (size, data) == (len(content), content)
        return True

    until(is_right, "another size")


def test_a_size_that_was_wrong_ends_the_image_of_a_switch(mounter: Mounter, versions: Project) -> None:
    remote, cache = Cache(mounter.home / "remote"), versions.cache
    wrong = md5(FILES["sub/b"])
    remote.put(FILES["sub/b"])
    mount = mounter.mount("data@small", "--remote", remote.root, "--no-pin", cwd=versions.root)
    cache.remove(wrong)
    cache.put(FILES["sub/b"][:-1], wrong)
    assert (mount.path / ".fusefs/revs/v1/tag").read_bytes() == b"v1"
    assert "error" not in ask(mount.status()["control"], {"switch": "v1"})
    assert has_image(mount)
    cache.remove(wrong)
    with pytest.raises(OSError, match="Input/output"):
        (mount.path / "sub/b").read_bytes()
    await_content(mount.path / "sub/b", FILES["sub/b"])
    assert (mount.path / "sub/b").read_bytes() == FILES["sub/b"]


COUNT = """
grep "$FUSEFS_MOUNT " /proc/self/mountinfo | grep -o lowerdir+ | wc -l
cat "$FUSEFS_MOUNT/many/0000"
"""


@pytest.mark.parametrize("sizes", [True, False])
def test_a_command_of_roots_has_an_image(mounter: Mounter, cache: Cache, sizes: bool) -> None:
    """If all sizes are beyond doubt: nothing could take the image back."""
    oid = cache.put_dataset(FILES, sizes=sizes)
    words = ["run", "--mode", "native", "--cache", cache.root, "--log", mounter.home / "log", oid]
    done = mounter.run(*words, "--", "sh", "-c", COUNT)
    assert (done.returncode, done.stdout, done.stderr) == (0, "3\n0" if sizes else "1\n0", "")
    assert len(images(mounter)) == sizes
    assert "Traceback" not in (mounter.home / "log").read_text()


ON = """
set -e
mkdir "$XDG_CACHE_HOME" "$HOME/upper" "$HOME/work"
case $1 in
tmpfs) mount -t tmpfs it "$XDG_CACHE_HOME" ;;
overlay) mount -t overlay -o "lowerdir=$XDG_CACHE_HOME,upperdir=$HOME/upper,workdir=$HOME/work" it \\
    "$XDG_CACHE_HOME" ;;
esac
shift
"$@" mount --mode native --cache "$HOME/objects" "$OID" "$HOME/mnt"
grep "$HOME/mnt " /proc/self/mountinfo | grep -o lowerdir+ | wc -l
cat "$HOME/mnt/many/0000"
fsck.erofs "$XDG_CACHE_HOME"/fusefs/trees/*.erofs >&2
"$@" umount "$HOME/mnt"
"""
"""In a mount namespace of its own: what the user's directory of images is to lie on, and the command."""


@pytest.mark.parametrize("below", ["tmpfs", "overlay"])
def test_an_image_that_is_mounted_by_a_loop_device(mounter: Mounter, cache: Cache, below: str) -> None:
    """As before Linux 6.12: it lies where the kernel cannot mount it from the file, or not as a layer."""
    (mounter.home / "mnt").mkdir()
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", ON, "sh", below, *COMMAND],
        env={**mounter.environment, "OID": cache.put_dataset(FILES, sizes=True)},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "3\n0"), done.stderr


def test_a_size_that_was_wrong_ends_the_image(mounter: Mounter, cache: Cache) -> None:
    """It was that of a file in the object's place, and nobody can know better before the object comes."""
    remote = Cache(mounter.home / "remote")
    remote.put(FILES["sub/b"])
    oid = cache.put_dataset(FILES)
    cache.remove(md5(FILES["sub/b"]))
    cache.put(FILES["sub/b"][:-1], md5(FILES["sub/b"]))
    mount = mounter.mount(oid, "--cache", cache.root, "--remote", remote.root, "--no-pin")
    assert has_image(mount)
    cache.remove(md5(FILES["sub/b"]))
    with pytest.raises(OSError, match="Input/output"):
        (mount.path / "sub/b").read_bytes()
    await_content(mount.path / "sub/b", FILES["sub/b"])
    assert tree_of(mount.path) == FILES


WITHOUT_EROFS = """
import errno, os, sys
if "fusefs.native.attach" in sys.orig_argv:
    from fusefs.native import image_mount, mount_api
    mount_detached = mount_api.mount_detached
    def refuse(kind, options, attributes):
        if kind == "erofs" and (LACKING == "erofs" or "/proc/self/fd" in str(options)):
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
        return mount_detached(kind, options, attributes)
    mount_api.mount_detached = refuse
    if LACKING == "loop devices":
        image_mount._LOOP_CONTROL = "/nowhere/loop-control"
"""
"""For the child that mounts: a kernel without EROFS, or one of before 6.12 and without loop devices."""


class OlderMounter(Mounter):
    """Starts what takes the kernel for another one."""

    @property
    def environment(self) -> dict[str, str]:
        inherited = super().environment
        return {**inherited, "PYTHONPATH": f"{self.home / 'older'}{os.pathsep}{inherited['PYTHONPATH']}"}


@pytest.mark.parametrize("lacking", ["erofs", "loop devices"])
def test_a_kernel_that_takes_no_image(mounter: Mounter, cache: Cache, lacking: str) -> None:
    """The mount shows our own layer, and says why."""
    older = OlderMounter(mounter.home, "native", mounter.mounts)
    (older.home / "older").mkdir()
    (older.home / "older" / "sitecustomize.py").write_text(f"LACKING = {lacking!r}\n{WITHOUT_EROFS}")
    mount = older.mount(cache.put_dataset(FILES, sizes=True), "--cache", cache.root)
    assert not has_image(mount)
    assert tree_of(mount.path) == FILES
    assert mount.status()["mode"] == "native"
    log = mount.umount()
    assert "the image of the version cannot be mounted: " in log
    assert "Traceback" not in log


def test_a_remotes_word_is_not_enough_for_an_image(mounter: Mounter, cache: Cache) -> None:
    """What an image told cannot be taken back. When the objects have come, their lengths are known."""
    remote = Cache(mounter.home / "remote")
    files = {"sub/b": FILES["sub/b"], **MANY}
    oid = cache.put_dataset(files)
    for data in set(files.values()):
        remote.put(data)
        cache.remove(md5(data))
    where = (oid, "--cache", cache.root, "--remote", remote.root, "--no-pin")
    mount = mounter.mount(*where)
    assert (mount.path / "sub/b").stat().st_size == len(FILES["sub/b"])
    assert not has_image(mount)
    assert (mount.path / "sub/b").read_bytes() == files["sub/b"]
    mount.umount()
    mount = mounter.mount(*where)
    assert not has_image(mount)
    assert tree_of(mount.path) == files
    mount.umount()
    assert not images(mounter)
    mount = mounter.mount(*where)
    assert has_image(mount)
    assert tree_of(mount.path) == files


def test_views_of_a_version_with_an_image(mounter: Mounter, cache: Cache) -> None:
    """They are ours to show, and the kernel merges them with what the image has."""
    oid = cache.put_dataset(FILES, sizes=True)
    mount = mounter.mount(oid, "--cache", cache.root)
    assert has_image(mount)
    other = Mounter(mounter.home, "fuse", mounter.mounts).mount(oid, "--cache", cache.root)
    shards = [one.path / ".fusefs" / "shards" / "500" for one in (mount, other)]
    names = [sorted(path.name for path in directory.iterdir()) for directory in shards]
    assert names[0] == names[1] and "dataset.json" in names[0]
    for name in names[0]:
        assert (shards[0] / name).read_bytes() == (shards[1] / name).read_bytes()


@pytest.mark.parametrize("others", [False, True])
def test_who_else_may_enter_an_image(mounter: Mounter, cache: Cache, others: bool) -> None:
    for above in [mounter.home, *mounter.home.parents]:
        if above.stat().st_mode & 0o777 == 0o700:  # pytest's own
            above.chmod(0o755)
    flags = ["--allow-other"] if others else []
    mount = mounter.mount(cache.put_dataset(FILES, sizes=True), "--cache", cache.root, *flags)
    assert has_image(mount)
    read = subprocess.run(
        ["setpriv", f"--reuid={NOBODY}", "--clear-groups", "cat", mount.path / "a"],
        capture_output=True,
        timeout=SECONDS,
        check=False,
    )
    assert read.stdout == (FILES["a"] if others else b"")
