"""`fusefs config [PATH]`: what DVC's configuration says, and which file says it. Secrets are masked."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fusefs.cli import print_error
from fusefs.cli.json_array import print_array
from fusefs.logs import escape
from fusefs.place import current_directory, open_place
from fusefs.remote_homes import RemoteHomes
from store.dvc.config import Config, Level, Setting, load_config_at
from store.dvc.masking import Masker
from store.dvc.project import find_project
from store.dvc.remote_url import show_name
from store.dvc.remotes import RemoteHome, settle_remotes
from store.git.files import GitFiles
from store.revision import dvc_root

EPILOG = """\
Of several files that set an option the strongest counts: local, repo, global, system. At a revision the
repo's file is the one that is committed there; what it says of the cache's place is not followed and not
listed. Passwords, keys, tokens and connection strings are shown as ***.

Then come the remotes in the order in which they are asked. The repository of another user and a clone are
not trusted: their remotes get your credentials (environment, profiles, agents) only where your own files,
global and system, have a remote on the same host, too. `fusefs mount --trust` trusts them.

examples:
  fusefs config
  fusefs config --rev v1.0
  fusefs config --json /srv/project | jq -r '.[] | select(.option == "url") | .value'
"""

_WIDEST: Final = 72
"""Columns to which options are padded; what is longer stands out."""


@dataclass(frozen=True, slots=True)
class Option:
    """An option that is set."""

    section: str
    remote: str
    """Of a remote's options its name, else empty."""
    option: str
    setting: Setting

    @property
    def name(self) -> str:
        return ".".join(filter(None, (self.section, self.remote, self.option)))


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "config",
        help="print DVC's configuration and where it comes from",
        description="Print every option that is set for a project, and the file that sets it.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("path", metavar="PATH", nargs="?", default="", help="a path in the project")
    parser.add_argument("--rev", metavar="REV", default="", help="as it is committed at a revision")
    parser.add_argument("--repo", metavar="REPO", default="", help="a repository's directory or URL")
    parser.add_argument("--json", action="store_true", help="an array of objects")


def run(options: argparse.Namespace) -> int:
    homes = RemoteHomes()
    if options.rev or options.repo:
        config, home = _load_committed(options.path or ".", options.rev or "HEAD", options.repo, homes)
    else:
        project = find_project(Path(options.path) if options.path else current_directory())
        config, home = project.config, homes.of_project(project)
    found = [option for option in list_options(config) if _is_heeded(option)]
    masker = Masker.of((one.option, value) for one in found for value in _values(one.setting))
    settled = settle_remotes(home, (), homes.own)
    standing = {spec.name: spec.ambient for spec in settled.remotes}
    if options.json:
        print_array(describe(option, masker, home, standing) for option in found)
        return 0
    for warning in dict.fromkeys((*homes.warnings, *settled.warnings)):
        print_error(f"warning: {warning}")
    rows = [(f"{option.name} = {show_value(option, masker)}", option.setting) for option in found]
    width = min(max((len(text) for text, _ in rows), default=0), _WIDEST)
    for text, setting in rows:
        print(escape(f"{text:<{width}}  {setting.level.value}: {setting.file}"))
    if settled.remotes:
        print("\nremotes in the order in which they are asked:")
    for spec in settled.remotes:
        credentials = "your credentials" if spec.ambient else "no credentials but its own"
        trust = "trusted" if _is_trusted(home) else "not trusted"
        print(escape(f"  {spec.name}  {masker.mask('url', spec.url)}  {trust}, with {credentials}"))
    if not rows:
        print_error("no option is set")
    return 0


def _is_trusted(home: RemoteHome) -> bool:
    return home.standing.own or home.standing.trusted


def _load_committed(path: str, rev: str, repo: str, homes: RemoteHomes) -> tuple[Config, RemoteHome]:
    with open_place(path, repo) as place:
        commit, notice = place.resolve(rev)
        if notice is not None:
            print_error(f"warning: {notice}")
        files = GitFiles(place.repository, commit)
        root = dvc_root(files, place.path)
        work_tree = None if place.clone else place.repository.work_tree
        dvc_dir = work_tree / root / ".dvc" if work_tree else None
        here = dvc_dir if dvc_dir and dvc_dir.is_dir() else None
        config = load_config_at(files, rev, here, os.environ, root=root)
        return config, homes.of_place(place, files, rev, root)


def list_options(config: Config) -> Iterator[Option]:
    """Every option that is set, sorted: sections first, then remotes."""
    for section, options in sorted(config.sections.items()):
        yield from (Option(section, "", name, setting) for name, setting in sorted(options.items()))
    for remote, options in sorted(config.remotes.items()):
        yield from (Option("remote", remote, name, setting) for name, setting in sorted(options.items()))


def _is_heeded(option: Option) -> bool:
    """Whether the setting counts: a revision has no say in where the cache is."""
    place = option.section == "cache" and option.option in ("dir", "local")
    return not (place and option.setting.level is Level.REVISION)


def describe(
    option: Option, masker: Masker, home: RemoteHome, standing: Mapping[str, bool]
) -> dict[str, Any]:
    """What `--json` prints; `value` is text, or a list where unquoted commas made one.

    Of a remote's options `trusted` says whether its repository is, `ambient` whether the remote gets the
    user's own credentials (null where it is not asked at all): `standing` has that by name.
    """
    value = option.setting.value
    shown = [masker.mask(option.option, part) for part in _values(option.setting)]
    return {
        "name": option.name,
        "section": option.section,
        "remote": option.remote or None,
        "option": option.option,
        "value": shown if isinstance(value, tuple) else shown[0],
        "level": option.setting.level.value,
        "file": str(option.setting.file),
        "trusted": _is_trusted(home) if option.remote else None,
        "ambient": standing.get(show_name(option.remote)) if option.remote else None,
    }


def show_value(option: Option, masker: Masker) -> str:
    """The value on one line."""
    return ", ".join(masker.mask(option.option, part) for part in _values(option.setting))


def _values(setting: Setting) -> tuple[str, ...]:
    return setting.value if isinstance(setting.value, tuple) else (setting.value,)
