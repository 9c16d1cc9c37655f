"""`.dvcignore`: which files DVC does not see. The same answers as DVC 3 gives, oddities included.

The rules are those of git, with DVC's own additions: `.git`, `.hg` and `.dvc` directories are never
seen, nor are directories that hold a `.dvc` of their own (subrepos). A version made with other rules
than DVC's would have another oid, so where DVC strays from git these rules stray along:

- a pattern without a trailing slash matches everything below what it names, so `!keep` brings back
  `keep/a.log` in spite of an earlier `*.log`, and `logs/**` takes `logs` itself;
- white space around a line is cut, escaped or not;
- the rules of a nested file are rewritten to be relative to the root, in which the name of its
  directory stands unescaped and a leading backslash is lost.

Callers: commit (what belongs to a version) and discovery (where to look for metafiles). One thread
at a time: nested files are read when their directory is first asked for, and remembered.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pathspec.patterns.gitignore import GitIgnorePatternError
from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

from store.dvc.files import Files, WorkingFiles
from store.errors import ConfigInvalid

DVCIGNORE: Final = ".dvcignore"
SIZE_LIMIT: Final = 1 << 20
"""Bytes of one `.dvcignore`; the longest that people write have some hundred lines."""

_BUILT_IN = (".hg/", ".git/", ".git", ".dvc/")
_LINE_END = re.compile(r"\r\n|\r|\n")
# pathspec names a group in every regex; names may stand only once in the combination.
_GROUP_NAME = re.compile(r"\(\?P<ps_d>")
# A star, then single characters (plain, escaped, any) up to the next star of the same name. Sets are
# left alone: those of pathspec may match a slash, which a star may not, and then order matters.
_INNER_STAR = re.compile(
    r"\[\^/\]\*((?:\[\^/\](?!\*)|\\.|[^][\\(){}?*+|^$./])*)(?=\[\^/\]\*)",
    re.DOTALL,
)
_BACKTRACKING = re.compile(r"\[\^/\]\*(?!\?)|\.\+")
_BACKTRACKING_LIMIT = 5
"""Stars in one rule that try every division of a name: each multiplies the time by its length."""


@dataclass(frozen=True, slots=True)
class _Pattern:
    regex: str
    ignore: bool
    dirs_only: bool


@dataclass(frozen=True, slots=True)
class _Group:
    """Neighbouring patterns with the same effect, as one regular expression."""

    regex: re.Pattern[str]
    ignore: bool
    dirs_only: bool


@dataclass(frozen=True, slots=True)
class _Directory:
    """What holds for the names of one directory. `groups`: the last rule of the file comes first."""

    ignored: bool
    patterns: tuple[_Pattern, ...]
    groups: tuple[_Group, ...]


class IgnoreRules:
    """The rules for everything below one root, which is a DVC project's or any directory."""

    __slots__ = ("_directories", "_files")

    def __init__(self, files: Files) -> None:
        """Reads the root's `.dvcignore`. Raises `ConfigInvalid` if that cannot be used."""
        self._files = files
        patterns = tuple(_parse(line, "built-in pattern") for line in _BUILT_IN)
        known = tuple(pattern for pattern in patterns if pattern)
        self._directories = {"": self._with_own_rules("", _Directory(False, known, _combine(known)))}

    @classmethod
    def load(cls, root: Path) -> IgnoreRules:
        """The rules of the working tree at `root`. Raises `ConfigInvalid`."""
        return cls(WorkingFiles(root))

    def ignores(self, relpath: str, is_dir: bool) -> bool:
        """Whether DVC does not see the file or directory `relpath` (`/`-separated, below the root).

        True as well for everything below an ignored directory. Raises `ConfigInvalid`, which names
        file and line, when a nested `.dvcignore` on the way cannot be used.
        """
        parent, _, _ = relpath.rpartition("/")
        directory = self._directory(parent)
        if directory.ignored or _matches(directory.groups, relpath, is_dir):
            return True
        return is_dir and self._files.exists(f"{relpath}/.dvc")

    def _directory(self, path: str) -> _Directory:
        """What holds in the directory `path`; reads the nested files from the root down to it."""
        known = self._directories.get(path)
        if known:
            return known
        # From the nearest known ancestor down, without recursion: a path may have thousands of parts.
        missing = [path]
        while (above := missing[-1].rpartition("/")[0]) not in self._directories:
            missing.append(above)
        directory = self._directories[above]
        for path in reversed(missing):
            if not directory.ignored:
                if _matches(directory.groups, path, True) or self._files.exists(f"{path}/.dvc"):
                    directory = _Directory(True, (), ())
                else:
                    directory = self._with_own_rules(path, directory)
            self._directories[path] = directory
        return directory

    def _with_own_rules(self, path: str, inherited: _Directory) -> _Directory:
        """What holds in `path`, given what is inherited from its parent."""
        name = f"{path}/{DVCIGNORE}" if path else DVCIGNORE
        if _matches(inherited.groups, name, False):
            return inherited
        try:
            data = self._files.read(name, SIZE_LIMIT)
        except OSError as error:
            raise ConfigInvalid(f"{name!r} cannot be read: {error.strerror}") from None
        if not data:
            return inherited
        patterns = inherited.patterns + _parse_file(data, path, name)
        groups = _combine(patterns)
        # The file's own `**`, rewritten, matches its directory: then nothing below comes back.
        return _Directory(bool(path) and _matches(groups, path, True), patterns, groups)


def _parse_file(data: bytes, directory: str, name: str) -> tuple[_Pattern, ...]:
    """The patterns of the file `name` in `directory`, rewritten to be relative to the root."""
    if len(data) > SIZE_LIMIT:
        raise ConfigInvalid(f"{name!r} has more than {SIZE_LIMIT} bytes; name directories, not files, in it")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        number = data.count(b"\n", 0, error.start) + 1
        raise ConfigInvalid(f"{name!r} line {number} is not UTF-8; save the file as UTF-8") from None
    patterns = []
    for number, line in enumerate(_LINE_END.split(text), 1):
        rule = line.strip()
        if not rule or rule.startswith("#"):
            continue
        where = f"{name!r} line {number}"
        # As written first: DVC drops or refuses a rule before it rewrites it.
        pattern = _parse(rule, where)
        if pattern and directory:
            pattern = _parse(_rebase(rule, directory), where)
        if pattern:
            patterns.append(pattern)
    return tuple(patterns)


def _parse(rule: str, where: str) -> _Pattern | None:
    """One rule; None for those that never match anything."""
    try:
        regex, ignore = GitIgnoreSpecPattern.pattern_to_regex(rule)
    except GitIgnorePatternError:
        raise ConfigInvalid(f"{where} is not a pattern: {rule!r}") from None
    if regex is None or ignore is None:
        return None
    # What stands between two stars may as well match as early as it can and stay there. Without
    # that, a rule of a dozen stars would try a name's every division, for hours.
    regex = _INNER_STAR.sub(r"(?>[^/]*?\1)", _GROUP_NAME.sub("(?:", regex))
    if len(_BACKTRACKING.findall(regex)) > _BACKTRACKING_LIMIT:
        raise ConfigInvalid(f"{where} has too many stars to be matched in reasonable time: {rule[:200]!r}")
    return _Pattern(regex, ignore, rule.endswith("/"))


def _rebase(rule: str, directory: str) -> str:
    """A rule of the file in `directory`, so that it means the same in the root's file."""
    sign = "!" if rule.startswith("!") else ""
    rule = rule.removeprefix("!")
    if "/" in rule[:-1] and not rule.startswith("**/"):
        rule = rule.removeprefix("/").removeprefix("\\")
    else:
        rule = "**/" + rule.removeprefix("**/").removeprefix("\\")
    # After a `!` DVC leaves a slash in front, else it does not, which matters to odd names alone.
    return f"!/{directory}/{rule}" if sign else f"{directory}/{rule}"


def _combine(patterns: tuple[_Pattern, ...]) -> tuple[_Group, ...]:
    groups = []
    for (ignore, dirs_only), members in itertools.groupby(patterns, lambda p: (p.ignore, p.dirs_only)):
        regex = re.compile("|".join(f"(?:{member.regex})" for member in members))
        groups.append(_Group(regex, ignore, dirs_only))
    return tuple(reversed(groups))


def _matches(groups: tuple[_Group, ...], path: str, is_dir: bool) -> bool:
    """What the last rule that matches says. A directory is matched with a slash behind its name."""
    if is_dir:
        path += "/"
    for group in groups:
        if (is_dir or not group.dirs_only) and group.regex.match(path):
            return group.ignore
    return False
