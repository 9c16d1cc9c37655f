"""`settle_remotes`: DVC's configuration and what the user asked for → remotes in the order to be asked.

Without a choice of the user's: the remotes that the outputs themselves name, the default one of the
revision, the default one of today, then all others as they stand in the files. What cannot be used of
them is a warning; what the user asked for by name or URL and cannot be used is an error. Who may say
what is judged in `store.dvc.trust`.

Callers: `fusefs.dataset_remotes`. Reads nothing but where links of local remotes lead; any thread.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from store.dvc.config import Config, Section, Setting
from store.dvc.remote_url import RemoteUrl, parse_remote_url, show_name
from store.dvc.trust import Candidate, Destination, Standing, destination, judge
from store.dvc.versioned import Wanted, find_versions
from store.errors import ConfigInvalid, InputError
from store.remotes.spec import DVC_LAYOUT, VERSIONED_LAYOUT, RemoteSpec

_CHAIN: Final = 16
"""Remotes that are defined by another one, in a row."""
_UNUSED: Final = frozenset(
    {
        *("jobs", "checksum_jobs", "verify", "no_traverse", "listobjects", "worktree", "version_aware"),
        *("type", "slow_link_warning", "protected", "cache_regions", "ask_password"),
        *("ask_passphrase", "gdrive_trash_only", "gdrive_acknowledge_abuse"),
    }
)
"""Of DVC's options those that say nothing about how to read."""


@dataclass(frozen=True, slots=True)
class RemoteHome:
    """A DVC repository, by what says where its objects are."""

    configs: tuple[Config, ...]
    """The revision's, then today's; or today's alone. Never empty."""
    standing: Standing


@dataclass(frozen=True, slots=True)
class Settled:
    """Remotes in the order to be asked, and a line for each that is left out, wholly or in part."""

    remotes: tuple[RemoteSpec, ...]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Resolved:
    """A remote's options with those of the remotes that it is made from, each with the section it is of."""

    options: Mapping[str, tuple[Setting, str]]

    @property
    def url(self) -> str:
        return str(self.options["url"][0].value)

    @property
    def texts(self) -> dict[str, str]:
        return {name: str(setting.value) for name, (setting, _) in self.options.items()}


def named_destinations(own: Config) -> frozenset[Destination]:
    """Where the remotes lead that the user's own configuration has (`own`: its files alone)."""
    return frozenset(filter(None, (_destination_of(own, name) for name in own.remotes)))


def settle_remotes(
    home: RemoteHome, wanted: Sequence[Wanted], own: Config, chosen: Sequence[str] = ()
) -> Settled:
    """The remotes for the outputs `wanted` of a repository. `own` is the user's own configuration alone.

    `chosen` are names, URLs and absolute paths that the user gave: then those alone, in that order. Raises
    `InputError` for one of these that cannot be used.
    """
    defaults = [default[0] for default in map(_default, home.configs) if default is not None]
    work = _Settling(home, own, find_versions(wanted, defaults))
    if chosen:
        for choice in chosen:
            work.choose(choice)
    else:
        for name, config in _in_order(home, wanted, work):
            work.add(name, config)
    return Settled(tuple(work.remotes), tuple(dict.fromkeys(work.warnings)))


def push_remote(home: RemoteHome, name: str, own: Config) -> RemoteSpec | None:
    """Where goes what is put on the remote of that name, URL or path; of an empty one, on the default remote.

    Today's configuration counts before the revision's. None for a remote that keeps files by their paths, and
    where there is no default one. Raises `InputError` for what cannot be used.
    """
    configs = tuple(reversed(home.configs))
    work = _Settling(replace(home, configs=configs), own, {})
    if not name:
        found = next(filter(None, map(_default, configs)), None)
        if found is None:
            return None
        name = found[0]
    work.choose(name)
    return work.remotes[0] if work.remotes else None


def _in_order(home: RemoteHome, wanted: Sequence[Wanted], work: _Settling) -> Iterator[tuple[str, Config]]:
    """Every configured remote, some of them more than once."""
    named = dict.fromkeys(one.output.remote.lower() for one in wanted if one.output.remote)
    for name in named:
        found = [config for config in home.configs if name in config.remotes]
        if not found:
            work.warnings.append(f"an output names the remote {show_name(name)!r}, which is not configured")
        yield from ((name, config) for config in found)
    for name in work.versions:
        yield from ((name, config) for config in home.configs if name in config.remotes)
    for config in home.configs:
        default = _default(config)
        if default is not None and default[0] in config.remotes:
            yield default[0], config
        elif default is not None:
            work.warnings.append(
                f"{default[1]}: core.remote names {show_name(default[0])!r}, which is not configured"
            )
    for config in home.configs:
        yield from ((name, config) for name in config.remotes)


def _default(config: Config) -> tuple[str, Path] | None:
    """The default remote's name, and the file that says so."""
    setting = config.get("core", "remote")
    if setting is None or not setting.value:
        return None
    return str(setting.value).lower(), setting.file


@dataclass(slots=True)
class _Settling:
    """Remotes as they come together."""

    home: RemoteHome
    own: Config
    versions: Mapping[str, Mapping[str, tuple[str, str]]]
    remotes: list[RemoteSpec] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def add(self, name: str, config: Config) -> None:
        """A configured remote; a warning where it cannot be used."""
        try:
            self._settle(name, config)
        except ConfigInvalid as error:
            self.warnings.append(f"{error}; this remote is left out")

    def choose(self, choice: str) -> None:
        """What the user asked for. Raises `InputError`."""
        base, separator, below = choice.partition("://")
        if choice.startswith("/") or (separator and base.lower() != "remote"):
            place = parse_remote_url(choice, with_query=True)
            add_remote(self.remotes, RemoteSpec(place.shown, place.url, place.options, ambient=True))
            return
        name, _, below = below.partition("/") if separator else (choice, "", "")
        for config in self.home.configs:
            if name.lower() in config.remotes:
                self._settle(name.lower(), config, below)
                return
        known = ", ".join(dict.fromkeys(show_name(one) for c in self.home.configs for one in c.remotes))
        raise InputError(
            f"there is no remote {show_name(name)!r}; "
            + (f"configured are {known}" if known else "none is configured")
            + "; a URL, or a path that begins with / or ./, names one, too"
        )

    def _settle(self, name: str, config: Config, below: str = "") -> None:
        """Raises `ConfigInvalid`, which names file and remote."""
        resolved = _resolve(config, name)
        file = resolved.options["url"][0].file
        for option, (setting, section) in resolved.options.items():
            if option not in _UNUSED and not isinstance(setting.value, str):
                raise ConfigInvalid(
                    f"{setting.file}: {option} of the remote {show_name(section)!r} is a list; "
                    "quote it if the comma belongs to it"
                )
        shown = show_name(name)
        url = f"{resolved.url.rstrip('/')}/{below}" if below else resolved.url
        try:
            place = parse_remote_url(url)
        except InputError as error:
            raise ConfigInvalid(f"{file}: the remote {shown!r}: {error}") from None
        place = self._beneath_links(place)
        options = {name: setting for name, (setting, _) in resolved.options.items() if name not in _UNUSED}
        options["url"] = replace(options["url"], value=place.url)
        for option, value in place.options.items():  # what the url held; an option of its own wins
            options.setdefault(option, replace(options["url"], value=value))
        judgement = judge(Candidate(options, self._meant_for(resolved, place)), self.home.standing)
        if judgement.refusal:
            raise ConfigInvalid(
                f"{file}: the remote {shown!r}: {judgement.refusal}; --trust says that it may be followed"
            )
        for option, reason in judgement.ignored.items():
            self.warnings.append(
                f"{options[option].file}: {option} of the remote {shown!r} is not followed: {reason}"
            )
        spec = RemoteSpec(shown, place.url, judgement.options, judgement.ambient, may_run=judgement.may_run)
        addresses = self.versions.get(name)
        is_versioned = _is_on(resolved, "version_aware") or _is_on(resolved, "worktree")
        if addresses:
            add_remote(self.remotes, replace(spec, layout=VERSIONED_LAYOUT, addresses=dict(addresses)))
        if not is_versioned:
            add_remote(self.remotes, spec)

    def _beneath_links(self, place: RemoteUrl) -> RemoteUrl:
        """Of a repository that is not trusted a local path is judged by where it leads."""
        standing = self.home.standing
        if place.scheme or standing.own or standing.trusted:
            return place
        return replace(place, url=os.path.realpath(place.url))

    def _meant_for(self, resolved: _Resolved, place: RemoteUrl) -> dict[str, Destination | None]:
        sections = {section for _, section in resolved.options.values()}
        sent = {section: _destination_of(self.own, section) for section in sections}
        meant = {name: sent[section] for name, (_, section) in resolved.options.items()}
        return {**dict.fromkeys(place.options, sent[resolved.options["url"][1]]), **meant}


def add_remote(remotes: list[RemoteSpec], spec: RemoteSpec) -> None:
    """Add a remote that is not there yet; two of one name are told apart by what they are."""
    if any(replace(spec, name=known.name) == known for known in remotes):
        return
    if any(known.name == spec.name and known.layout == spec.layout for known in remotes):
        spec = replace(spec, name=f"{spec.name} ({spec.url})")
    elif any(known.name == spec.name for known in remotes):
        kind = "objects" if spec.layout == DVC_LAYOUT else "versions"
        spec = replace(spec, name=f"{spec.name} ({kind})")
    remotes.append(spec)


def _resolve(config: Config, name: str) -> _Resolved:
    """A remote with what it inherits from others (`url = remote://NAME/PATH`). Raises `ConfigInvalid`."""
    options: dict[str, tuple[Setting, str]] = {}
    section, below, shown = name, "", show_name(name)
    for _ in range(_CHAIN):
        found: Section = config.remotes.get(section, {})
        for option, setting in found.items():
            options.setdefault(option, (setting, section))
        url = found.get("url")
        if url is None or not url.value:
            where = next(iter(found.values())).file if found else options["url"][0].file
            what = f"has no url: {show_name(section)!r}" if section != name else "has no url"
            raise ConfigInvalid(f"{where}: the remote {shown!r} {what}")
        if not isinstance(url.value, str):
            raise ConfigInvalid(f"{url.file}: url of the remote {shown!r} is a list; quote it")
        if not url.value.lower().startswith("remote://"):
            # Of a URL that several files have a hand in, the section is the one that names the host.
            whole = f"{url.value.rstrip('/')}/{below}" if below else url.value
            options["url"] = (replace(url, value=whole), section)
            return _Resolved(options)
        base, _, path = url.value[len("remote://") :].partition("/")
        section, below = base.lower(), "/".join(part for part in (path.strip("/"), below) if part)
        if section not in config.remotes:
            fault = f"is made from {show_name(section)!r}, which is not configured"
            raise ConfigInvalid(f"{url.file}: the remote {shown!r} {fault}")
    raise ConfigInvalid(f"{options['url'][0].file}: the remote {shown!r} is made from itself")


def _destination_of(config: Config, name: str) -> Destination | None:
    """Where a remote of a configuration leads; None for one that is not there or cannot be used."""
    if name not in config.remotes:
        return None
    try:
        resolved = _resolve(config, name)
        place = parse_remote_url(resolved.url)
    except InputError:
        return None
    return destination(place.url, {**place.options, **resolved.texts})


def _is_on(resolved: _Resolved, option: str) -> bool:
    found = resolved.options.get(option)
    return found is not None and str(found[0].value).lower() == "true"
