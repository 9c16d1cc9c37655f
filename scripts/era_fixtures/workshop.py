"""The bench on which a history is made: a directory, git with a fixed clock, and releases of DVC.

Callers: the histories and `era_fixtures.isolated`. Blocking; one thread.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from era_fixtures.archive import EPOCH
from era_fixtures.listing import Fact, list_tree
from era_fixtures.releases import FixtureError

SECONDS: Final = 600.0


class Workshop:
    """A directory with repositories in it, and what was recorded of them.

    `root` is always the same path, for some metafiles hold absolute ones.
    """

    def __init__(self, root: Path, binaries: Mapping[str, Path]) -> None:
        self.root = root
        self.snapshots: list[dict[str, object]] = []
        self._binaries = binaries
        self._seconds = EPOCH
        self._home = root / "home"
        config = self._home / ".config/dvc/config"
        config.parent.mkdir(parents=True)
        # Without trying links: 2.58 sometimes fails where its threads find out that there are none.
        config.write_text("[core]\n    analytics = false\n[cache]\n    type = copy\n")

    def repository(self, name: str, release: str) -> Repository:
        """A new git repository that `release` has not touched yet."""
        repository = Repository(self, self.root / name, release)
        repository.path.mkdir(parents=True)
        repository.git("init", "--quiet", "--initial-branch=main")
        return repository

    def directory(self, name: str, release: str) -> Repository:
        """A new directory without git."""
        repository = Repository(self, self.root / name, release)
        repository.path.mkdir(parents=True)
        return repository

    def program(self, environment: str, name: str) -> str:
        """The path of a program that one of the environments brings."""
        return str(self._binaries[environment] / name)

    def run(self, directory: Path, release: str, *command: str) -> str:
        """The output of a command that must succeed; `dvc` in it is that of `release`."""
        self._seconds += 60
        when = f"{self._seconds} +0000"
        person = {"NAME": "Ada Example", "EMAIL": "ada@example.org", "DATE": when}
        env = {
            f"GIT_{role}_{key}": value for role in ("AUTHOR", "COMMITTER") for key, value in person.items()
        }
        env |= {
            "PATH": f"{self._binaries[release]}:{os.defpath}",
            "HOME": str(self._home),
            "LANG": "C.UTF-8",
            "PYTHONHASHSEED": "0",
            # Warnings that a newer Python has for an old release's dependencies.
            "PYTHONWARNINGS": "ignore",
            "DVC_NO_ANALYTICS": "1",
            "DVC_TEST": "1",
            "DVC_SITE_CACHE_DIR": str(self._home / "site"),
            "GIT_CONFIG_SYSTEM": os.devnull,
            "AWS_ACCESS_KEY_ID": "example",
            "AWS_SECRET_ACCESS_KEY": "example",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        done = subprocess.run(
            command,
            cwd=directory,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        if done.returncode:
            raise FixtureError(f"{release}: {' '.join(command)} gave {done.returncode}:\n{done.stdout}")
        return done.stdout


class Repository:
    """A directory of a workshop, with the release of DVC that works in it now."""

    def __init__(self, workshop: Workshop, path: Path, release: str) -> None:
        self.path = path
        self.release = release
        self._workshop = workshop

    def git(self, *arguments: str) -> str:
        return self._workshop.run(self.path, self.release, "git", *arguments)

    def dvc(self, *arguments: str, at: str = ".") -> str:
        """`at` is the directory to run in, relative to the repository."""
        return self._workshop.run(self.path / at, self.release, "dvc", *arguments)

    def write(self, path: str, data: bytes | str, *, executable: bool = False) -> None:
        """Write a file anew, so that a link to the cache is replaced and not written through."""
        target = self.path / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        target.write_bytes(data.encode() if isinstance(data, str) else data)
        target.chmod(0o755 if executable else 0o644)

    def read(self, path: str) -> str:
        return (self.path / path).read_text()

    def edit(self, path: str, old: str, new: str) -> None:
        """Replace the one place in a text file that says `old`."""
        text = self.read(path)
        if text.count(old) != 1:
            raise FixtureError(f"{path} does not say {old!r} once:\n{text}")
        self.write(path, text.replace(old, new))

    def remove(self, path: str) -> None:
        target = self.path / path
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(target)
        else:
            target.unlink()

    def rename(self, old: str, new: str) -> None:
        (self.path / new).parent.mkdir(parents=True, exist_ok=True)
        (self.path / old).rename(self.path / new)

    def commit(self, message: str) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", message)

    def tag(
        self, name: str, about: str, *, subrepos: tuple[str, ...] = (), missing: tuple[str, ...] = ()
    ) -> None:
        """Commit all that there is, tag it, and record what this release checks out for the tag.

        `subrepos` are directories with a `.dvc` of their own, whose data are checked out too; `missing`
        are the outputs without data.
        """
        self.commit(about)
        self.git("tag", "--annotate", "--message", about, name)
        self.snapshot(name, about, subrepos, missing)

    def snapshot(
        self, revision: str, about: str, subrepos: tuple[str, ...] = (), missing: tuple[str, ...] = ()
    ) -> None:
        """Record what a fresh clone holds after this release's checkout of `revision`."""
        clone = Repository(self._workshop, self._workshop.root / "clone", self.release)
        self.git("clone", "--quiet", "--no-checkout", str(self.path), str(clone.path))
        # Experiments are not among the references that a clone brings.
        clone.git("fetch", "--quiet", "origin", self.git("rev-parse", f"{revision}^{{commit}}").strip())
        clone.git("checkout", "--quiet", "FETCH_HEAD")
        for project in (".", *subrepos):
            clone.dvc("config", "--local", "cache.dir", str(self.path / project / ".dvc/cache"), at=project)
            # The older releases pass over what has no data without being told to.
            tolerant = ("--allow-missing",) if missing and self.release.startswith("3.") else ()
            clone.dvc("checkout", *tolerant, at=project)
        if any((clone.path / path).exists() for path in missing):
            raise FixtureError(f"{revision}: {missing} should be missing")
        tracked = frozenset(clone.git("ls-files", "-z").split("\0")) - {""}
        self._record(revision, about, list_tree(clone.path, tracked))
        shutil.rmtree(clone.path)

    def snapshot_experiment(self, name: str, about: str) -> None:
        """Record what this release checks out for an experiment, given a date that is always the same."""
        pattern = f"refs/exps/*/*/{name}"
        reference, commit = self.git("for-each-ref", "--format=%(refname) %(objectname)", pattern).split()
        parts = [
            f"{commit}^{{tree}}",
            "-p",
            f"{commit}^",
            "-m",
            self.git("log", "-1", "--format=%B", commit).strip(),
        ]
        self.git("update-ref", reference, self.git("commit-tree", *parts).strip())
        self.snapshot(reference, about)

    def restore(self) -> None:
        """Bring the workspace back to HEAD."""
        self.git("reset", "--quiet", "--hard")
        self.dvc("checkout", "--force")

    def snapshot_without_git(self, about: str) -> None:
        """Record what is there after this release's checkout, in a directory without git."""
        self.dvc("checkout")
        self._record("", about, list_tree(self.path, frozenset()))

    def _record(self, revision: str, about: str, files: dict[str, Fact]) -> None:
        fields: dict[str, object] = {
            "project": self.path.relative_to(self._workshop.root).as_posix(),
            "revision": revision,
            "about": about,
            "dvc": self.release,
            "files": files,
        }
        self._workshop.snapshots.append(fields)

    def seal(self, subrepos: tuple[str, ...] = ()) -> None:
        """Leave HEAD as it is checked out, and nothing that belongs to this machine or this moment."""
        with_git = (self.path / ".git").exists()
        if with_git:
            # The workspace in which data were made differs from a checkout of them: it has executables.
            self.git("submodule", "--quiet", "deinit", "--all", "--force")
            self.git("clean", "-ffdxq", "--exclude=.dvc")
            for project in (".", *subrepos):
                self.dvc("checkout", at=project)
        for pattern in (".dvc/tmp", ".dvc/state*", ".dvc/updater*", ".dvc/lock", ".dvc/config.local"):
            for path in self.path.rglob(pattern):
                self.remove(str(path.relative_to(self.path)))
        if with_git:
            self._pack_git()

    def _pack_git(self) -> None:
        self.git("reflog", "expire", "--expire=now", "--all")
        self.git("-c", "pack.threads=1", "gc", "--quiet", "--aggressive", "--prune=now")
        for name in ("hooks", "logs", "modules", "description", "COMMIT_EDITMSG", "FETCH_HEAD", "ORIG_HEAD"):
            if (self.path / ".git" / name).exists():
                self.remove(f".git/{name}")
        # An index that knows nothing of this machine's inodes.
        self.remove(".git/index")
        self.git("read-tree", "HEAD")
