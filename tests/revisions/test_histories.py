"""Random histories, made with git and our own commit: every revision, mounted, is as it was."""

from __future__ import annotations

import os
import random
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from store.commit import CommitOptions, commit
from tests.mount.datasets import Cache, md5
from tests.mount.mounts import Mounter
from tests.revisions.projects import Project, Seen, look

pytestmark = [pytest.mark.fuse, pytest.mark.modes("fuse", "native")]

STEPS = int(os.environ.get("FUSEFS_HISTORY_STEPS", "8"))
CHOSEN = os.environ.get("FUSEFS_HISTORY_SEED")
SEEDS = [int(CHOSEN)] if CHOSEN else [1, secrets.randbits(32)]
"""One that never changes, and one that is new every time. A failure names its seed."""

FOLDERS = ("data", "nested/deep/set", "with space")
SINGLES = ("weights", "nested/labels.csv")
NAMES = ("a", "b.txt", "sub/c", "sub/deep/d", "sub/deeper/e", "\u00e9", "z z")


@dataclass
class History:
    """A repository that changes at random. What lies in its work tree is the plain copy."""

    project: Project
    order: random.Random
    versions: dict[str, dict[str, Seen]] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)

    @property
    def root(self) -> Path:
        return self.project.root

    def step(self, number: int) -> None:
        """Some changes, and a commit with a tag."""
        changed = set()
        for _ in range(self.order.randint(1, 5)):
            change = self.order.choice(
                (self.write, self.write, self.write, self.remove, self.rename, self.set_mode, self.drop)
            )
            changed.add(change())
        for path in sorted(changed & {*FOLDERS, *SINGLES}):
            if (self.root / path).exists():
                self.record(path)
        if self.order.random() < 0.3:
            self.take_over()
        tag = f"v{number}"
        self.project.commit(tag)
        seen = look(self.root, leave_out=[".git"])
        hidden = (".dvc/cache", ".dvc/tmp")
        self.versions[tag] = {path: one for path, one in seen.items() if not path.startswith(hidden)}

    def content(self) -> bytes:
        kind = self.order.randrange(4)
        if kind == 0:
            return b""
        if kind == 1:
            return b"line %d\r\n" % self.order.randrange(100) * self.order.randint(1, 20)
        return (
            self.order.randbytes(self.order.randint(1, 3000))
            if kind == 2
            else b"text %d\n" % self.order.randrange(50)
        )

    def pick_file(self) -> tuple[str, str]:
        """A path of the work tree, and what it belongs to: an output, or nothing for git's own."""
        if self.order.random() < 0.3:
            return f"code/{self.order.choice(NAMES)}", ""
        if self.order.random() < 0.3:
            single = self.order.choice(SINGLES)
            return single, single
        folder = self.order.choice(FOLDERS)
        return f"{folder}/{self.order.choice(NAMES)}", folder

    def write(self) -> str:
        path, owner = self.pick_file()
        self.told.append(f"write {path}")
        self.project.write(path, self.content())
        return owner

    def remove(self) -> str:
        path, owner = self.pick_file()
        place = self.root / path
        if owner != path and place.exists():
            self.told.append(f"remove {path}")
            place.unlink()
            self.remove_empty(place.parent, self.root / owner)
        return owner

    def remove_empty(self, directory: Path, top: Path) -> None:
        """Neither git nor a manifest knows of directories without files, but the output itself stays."""
        while directory != top and not any(directory.iterdir()):
            directory.rmdir()
            directory = directory.parent

    def rename(self) -> str:
        path, owner = self.pick_file()
        other = self.order.choice(NAMES)
        top = self.root / (owner or "code")
        if owner != path and (self.root / path).exists() and not (top / other).exists():
            self.told.append(f"rename {path} to {other}")
            (top / other).parent.mkdir(parents=True, exist_ok=True)
            (self.root / path).rename(top / other)
            self.remove_empty((self.root / path).parent, self.root / owner)
        return owner

    def set_mode(self) -> str:
        """Executable or not: git tells it of every file, DVC of single ones."""
        path, owner = self.pick_file()
        place = self.root / path
        if owner in ("", path) and place.exists():
            mode = self.order.choice((0o755, 0o644))
            self.told.append(f"mode {mode:o} of {path}")
            place.chmod(mode)
            return owner
        return ""

    def drop(self) -> str:
        """Track an output no longer, in half of the cases so that git does instead."""
        path = self.order.choice((*FOLDERS, *SINGLES))
        metafile = self.root / f"{path}.dvc"
        if not metafile.exists() or self.order.random() < 0.5:
            return ""
        metafile.unlink()
        ignored = metafile.parent / ".gitignore"
        lines = [line for line in ignored.read_text().splitlines() if line != f"/{metafile.stem}"]
        ignored.write_text("".join(f"{line}\n" for line in lines))
        place = self.root / path
        if self.order.random() < 0.5 or (place.is_dir() and not any(place.iterdir())):
            self.told.append(f"drop {path}")
            shutil.rmtree(place) if place.is_dir() else place.unlink()
        else:
            self.told.append(f"give {path} to git")
        return ""

    def record(self, path: str) -> None:
        self.told.append(f"record {path}")
        project = self.project
        project.git("rm", "-r", "--quiet", "--cached", "--ignore-unmatch", path)
        options = CommitOptions(cache=project.cache.root, state=project.root.parent / "state")
        commit(project.root / path, options)

    def take_over(self) -> None:
        """Let an output be as DVC 2 wrote it: hashed with CRLF as LF, at the top of the cache."""
        path = self.order.choice((*FOLDERS, *SINGLES))
        metafile, place = self.root / f"{path}.dvc", self.root / path
        if not metafile.exists() or not place.exists():
            return
        self.told.append(f"as DVC 2 had {path}")
        older = Cache(self.project.cache.root, legacy=True)

        def put(data: bytes) -> str:
            return older.put(data, md5(data.replace(b"\r\n", b"\n") if data.startswith(b"line ") else data))

        if place.is_dir():
            files = {one.relative_to(place).as_posix(): one for one in place.rglob("*") if one.is_file()}
            oid = older.put_manifest(
                {"md5": put(one.read_bytes()), "relpath": name} for name, one in files.items()
            )
            more = ""
        else:
            oid = put(place.read_bytes())
            more = "  isexec: true\n" if os.access(place, os.X_OK) and place.stat().st_mode & 0o100 else ""
        metafile.write_text(f"outs:\n- md5: '{oid}'\n{more}  path: {place.name}\n")


@pytest.fixture(autouse=True)
def home(mounter: Mounter, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Our commit reads the user's configuration: there is none."""
    for name, value in mounter.environment.items():
        if name == "HOME" or name.startswith("XDG_"):
            monkeypatch.setenv(name, value)
    yield


@pytest.mark.parametrize("number", range(len(SEEDS)))
def test_every_revision_is_as_it_was(mounter: Mounter, project: Project, number: int) -> None:
    seed = SEEDS[number]
    print(f"seed {seed}: FUSEFS_HISTORY_SEED={seed} repeats this run")
    history = History(project, random.Random(seed))
    for step in range(STEPS):
        history.told.append(f"-- v{step}")
        history.step(step)
    mount = mounter.mount(".", "--revs", "*", cwd=project.root)
    data = mounter.mount(".@v0", cwd=project.root)
    tags = list(history.versions)
    history.order.shuffle(tags)
    try:
        assert sorted(os.listdir(mount.path)) == sorted([*tags, "main"])
        for tag in tags:
            assert look(mount.path / tag) == history.versions[tag], tag
        for tag in tags[:4]:
            assert mounter.run("switch", data.path, tag).returncode == 0
            assert look(data.path) == history.versions[tag], tag
    except BaseException:
        print(*history.told, sep="\n")
        raise
    log = mount.umount()
    assert "Traceback" not in log and "ERROR" not in log
