"""DVC's configuration: four files, merged option by option, each value with the file it came from.

From weak to strong: system (`/etc/xdg/dvc/config`), global (`~/.config/dvc/config`), repo
(`.dvc/config`, committed) and local (`.dvc/config.local`, never committed). The syntax is
ConfigObj's: names are lower-cased, unquoted commas make lists, `%(name)s` is replaced. Relative
paths are relative to the directory of the file that holds them.

At a revision the repo file is the one that is committed there, the others are today's. Whoever commits
it is not whoever reads it: what it says of the cache's place is not followed, and `store.dvc.project`
judges what a working tree says of it. No message quotes a line: it may hold a secret.

Callers: `store.dvc.project`, what reads revisions, later remotes. Blocking reads, frozen results, any thread.
"""

from __future__ import annotations

import io
import os
import pwd
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from types import MappingProxyType
from typing import Final, TypeAlias

from configobj import (
    ConfigObj,
    ConfigObjError,
    DuplicateError,
    InterpolationError,
    NestingError,
)

from store.dvc.files import Files, join, read_regular
from store.errors import ConfigInvalid

SIZE_LIMIT: Final = 1 << 20
LINK_TYPES: Final = ("reflink", "hardlink", "symlink", "copy")
DEFAULT_LINK_TYPES: Final = ("reflink", "copy")
# Each may double what the one before made, so few must do; nobody was seen to write one.
_INTERPOLATIONS = 16

_PATH_OPTIONS = frozenset(
    (
        "url",
        "credentialpath",
        "configpath",
        "keyfile",
        "cert_path",
        "key_path",
        "gdrive_user_credentials_file",
        "gdrive_service_account_json_file_path",
    )
)
_REMOTE = re.compile(r'\s*remote\s*"(.*)"\s*', re.DOTALL)
_URL = re.compile(r"\w+://")
_BOOLEANS: Final = {"true": True, "false": False}


class Level(Enum):
    """Which of the files."""

    SYSTEM = "system"
    GLOBAL = "global"
    REPO = "repo"
    REVISION = "revision"
    """The repo file as it is committed at a revision."""
    LOCAL = "local"


@dataclass(frozen=True, slots=True)
class Setting:
    """A value and where it stands. A list, which unquoted commas make, is a tuple."""

    value: str | tuple[str, ...]
    level: Level
    file: Path
    """Absolute; at a revision `REV:PATH`, as git writes it."""


_TRUST: Final = (Level.REVISION, Level.REPO, Level.LOCAL, Level.GLOBAL, Level.SYSTEM)

Section = Mapping[str, Setting]
_Sections: TypeAlias = dict[str, dict[str, Setting]]
_EMPTY: Section = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Config:
    """The merged configuration. Section, option and remote names are in lower case.

    The typed accessors raise `ConfigInvalid`, which names the file, for a value that makes no sense.
    """

    sections: Mapping[str, Section]
    remotes: Mapping[str, Section]

    def get(self, section: str, option: str) -> Setting | None:
        """The setting, or None where no file has it."""
        return self.sections.get(section, _EMPTY).get(option)

    @property
    def cache_setting(self) -> Setting | None:
        """What says where the cache is: `cache.dir`, or the remote that DVC 0.x names in `cache.local`."""
        named = self.get("cache", "local")
        if not named:
            return self.get("cache", "dir")
        setting = self.remotes.get(_text(named, "cache.local").lower(), _EMPTY).get("url")
        if not setting:
            raise _fault(named, "cache.local names a remote that has no url")
        # Two files have a say: the one that is trusted less counts.
        return min(setting, replace(setting, level=named.level, file=named.file), key=_trust)

    @property
    def cache_dir(self) -> Path | None:
        """The cache's directory, absolute; None where it is not set, or only at a revision."""
        setting = self.cache_setting
        if not setting or setting.level is Level.REVISION:
            return None
        path = Path(_text(setting, "cache.dir"))
        if not path.is_absolute():
            raise _fault(setting, f"cache.dir is {str(path)!r}, which is not a directory on this machine")
        return path

    @property
    def cache_types(self) -> tuple[str, ...]:
        """The kinds of links that DVC may make, by preference: of `LINK_TYPES`."""
        setting = self.get("cache", "type")
        if not setting:
            return DEFAULT_LINK_TYPES
        listed = setting.value.split(",") if isinstance(setting.value, str) else setting.value
        types = tuple(name.strip() for name in listed)
        if not set(types) <= set(LINK_TYPES):
            raise _fault(setting, f"cache.type may hold {', '.join(LINK_TYPES)}, not {', '.join(types)!r}")
        return types

    @property
    def cache_shared_group(self) -> bool:
        """Whether the group of the cache directory may write into it (`cache.shared = group`)."""
        setting = self.get("cache", "shared")
        if setting and _text(setting, "cache.shared").lower() != "group":
            raise _fault(setting, "cache.shared can only be 'group'")
        return setting is not None

    @property
    def hardlink_lock(self) -> bool:
        """Whether DVC locks with hard links, because its directory does not know `flock`."""
        return self._flag("core", "hardlink_lock")

    @property
    def no_scm(self) -> bool:
        """Whether DVC leaves git alone here (`dvc init --no-scm`)."""
        return self._flag("core", "no_scm")

    def _flag(self, section: str, option: str) -> bool:
        setting = self.get(section, option)
        if not setting:
            return False
        text = _text(setting, f"{section}.{option}").lower()
        if text not in _BOOLEANS:
            raise _fault(setting, f"{section}.{option} is neither true nor false")
        return _BOOLEANS[text]


def load_config(dvc_dir: Path | None, env: Mapping[str, str]) -> Config:
    """Read and merge the files; `dvc_dir` is the project's `.dvc`, None outside of one.

    `env` is the process's environment: `HOME`, `XDG_CONFIG_HOME`, `XDG_CONFIG_DIRS` and DVC's own
    `DVC_SYSTEM_CONFIG_DIR`, `DVC_GLOBAL_CONFIG_DIR`. Raises `ConfigInvalid`. The files of a project
    must not be symlinks, which a clone could point at any file; one's own may well be.
    """
    home = home_directory(env)
    return _merge(_read(file, level, home) for level, file in _config_files(dvc_dir, env))


def load_config_at(
    files: Files, rev: str, dvc_dir: Path | None, env: Mapping[str, str], *, root: str = ""
) -> Config:
    """As `load_config`, with the repo file as `files` have it: a revision called `rev`.

    `root` is the DVC root in it. Relative paths of the repo file are relative to today's `.dvc`, as are
    those of the local one; without (`dvc_dir` None: a clone) they stay as written. Raises `ConfigInvalid`.
    """
    home = home_directory(env)
    found = [(level, _read(file, level, home)) for level, file in _config_files(dvc_dir, env)]
    path = join(root, ".dvc/config")
    file = Path(f"{rev}:{path}")
    try:
        data = files.read(path, SIZE_LIMIT)
    except OSError as error:
        raise ConfigInvalid(f"{file} cannot be read: {error.strerror}") from None
    committed = _parse_sections(data, file, Level.REVISION, dvc_dir, home) if data else {}
    local = [sections for level, sections in found if level is Level.LOCAL]
    below = [sections for level, sections in found if level in (Level.SYSTEM, Level.GLOBAL)]
    return _merge([*below, committed, *local])


def _merge(files: Iterable[_Sections]) -> Config:
    """One configuration of several, the weakest first."""
    sections: dict[str, dict[str, Setting]] = {}
    remotes: dict[str, dict[str, Setting]] = {}
    for found in files:
        for name, options in found.items():
            remote = _REMOTE.fullmatch(name)
            group, key = (remotes, remote[1]) if remote else (sections, name)
            group.setdefault(key, {}).update(options)
    return Config(_freeze(sections), _freeze(remotes))


def home_directory(env: Mapping[str, str]) -> Path:
    """`$HOME`, or what the user database says where the environment is bare, as under `mount -a`."""
    home = Path(env.get("HOME", ""))
    return home if home.is_absolute() else Path(pwd.getpwuid(os.getuid()).pw_dir)


def _config_files(dvc_dir: Path | None, env: Mapping[str, str]) -> list[tuple[Level, Path]]:
    system = env.get("DVC_SYSTEM_CONFIG_DIR")
    if not system:
        system = f"{env.get('XDG_CONFIG_DIRS', '').split(os.pathsep)[0].strip() or '/etc/xdg'}/dvc"
    user = env.get("DVC_GLOBAL_CONFIG_DIR")
    if not user:
        user = f"{env.get('XDG_CONFIG_HOME', '').strip() or home_directory(env) / '.config'}/dvc"
    files = [(Level.SYSTEM, Path(system, "config")), (Level.GLOBAL, Path(user, "config"))]
    if dvc_dir:
        files += [(Level.REPO, dvc_dir / "config"), (Level.LOCAL, dvc_dir / "config.local")]
    return files


def _read(file: Path, level: Level, home: Path) -> _Sections:
    """The sections of one file; empty where it is not there."""
    own = level in (Level.REPO, Level.LOCAL)
    if own and file.is_symlink():
        raise ConfigInvalid(f"{file} is a symlink; put the file itself there")
    try:
        data = read_regular(file, SIZE_LIMIT, follow=not own)
    except OSError as error:
        raise ConfigInvalid(f"{file} cannot be read: {error.strerror}") from None
    return _parse_sections(data, file, level, file.parent, home) if data else {}


def _parse_sections(data: bytes, file: Path, level: Level, directory: Path | None, home: Path) -> _Sections:
    """The sections in the bytes of a file. Relative paths are of `directory`, if there is one."""
    sections: _Sections = {}
    for section, options in _parse(data, file).items():
        # Options outside of any section are read by nobody.
        if not isinstance(options, dict):
            continue
        name = section.lower()
        is_remote = bool(_REMOTE.fullmatch(name))
        settings = sections.setdefault(name, {})
        for option, value in options.items():
            key = option.lower()
            if isinstance(value, list):
                settings[key] = Setting(tuple(value), level, file)
            elif isinstance(value, str):
                is_path = (is_remote and key in _PATH_OPTIONS) or (name == "cache" and key == "dir")
                text = _resolve(value, directory, home) if is_path and value else value
                settings[key] = Setting(text, level, file)
    return sections


def _parse(data: bytes, file: Path) -> dict[str, object]:
    """ConfigObj's reading of a file, interpolated. Raises `ConfigInvalid`."""
    if len(data) > SIZE_LIMIT:
        raise ConfigInvalid(f"{file} has more than {SIZE_LIMIT} bytes")
    if b"\0" in data:
        raise ConfigInvalid(f"{file} is not text")
    if data.count(b"%(") > _INTERPOLATIONS:
        raise ConfigInvalid(f"{file} refers to its own options (%(name)s) more than {_INTERPOLATIONS} times")
    try:
        parsed: dict[str, object] = ConfigObj(io.StringIO(data.decode("utf-8-sig"))).dict()
    except UnicodeDecodeError:
        raise ConfigInvalid(f"{file} is not UTF-8") from None
    except RecursionError:
        raise ConfigInvalid(f"{file} has sections nested too deep") from None
    except InterpolationError:
        raise ConfigInvalid(
            f"{file} refers to an option (%(name)s) that is not there, or to itself"
        ) from None
    except ConfigObjError as error:
        # The first of several stands in `errors`; the text of any quotes the line.
        first = (getattr(error, "errors", None) or [error])[0]
        raise ConfigInvalid(f"{file} line {first.line_number}: {_reason(first)}") from None
    return parsed


def _reason(error: ConfigObjError) -> str:
    if isinstance(error, DuplicateError):
        return "this name stands there a second time"
    if isinstance(error, NestingError):
        return "a section that does not belong here"
    return "neither [section] nor name = value"


def _resolve(path: str, directory: Path | None, home: Path) -> str:
    """A path option, absolute; URLs are left as they are, and relative paths of no directory."""
    if _URL.match(path):
        return path
    if path == "~" or path.startswith("~/"):
        return str(home) + path[1:]
    try:
        expanded = Path(path).expanduser()
    except RuntimeError:
        expanded = Path(path)  # `~name` of nobody is a directory of that name
    if directory is None:
        return str(expanded)
    return os.path.normpath(directory.absolute() / expanded)


def _trust(setting: Setting) -> int:
    return _TRUST.index(setting.level)


def _text(setting: Setting, name: str) -> str:
    if isinstance(setting.value, str):
        return setting.value
    raise _fault(setting, f"{name} is a list; quote it if the comma belongs to it")


def _fault(setting: Setting, message: str) -> ConfigInvalid:
    return ConfigInvalid(f"{setting.file}: {message}")


def _freeze(groups: dict[str, dict[str, Setting]]) -> Mapping[str, Section]:
    return MappingProxyType({name: MappingProxyType(options) for name, options in groups.items()})
