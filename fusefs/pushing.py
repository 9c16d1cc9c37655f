"""What a push is made of: the outputs of what the user named, by the remotes that they go to.

Caller: `fusefs push`. Pure functions, but for a look into the cache.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fusefs.dataset import Dataset
from store.dvc.import_source import RepositoryImport
from store.dvc.remote_url import show_name
from store.dvc.versioned import Wanted
from store.errors import InputError
from store.local_cache import LocalCache
from store.oid import DVC_ALGORITHMS, Oid
from store.remotes.spec import RemoteSpec
from store.revision import told_manifests


@dataclass(frozen=True, slots=True)
class Errand:
    """What goes to one remote."""

    remote: RemoteSpec
    oids: tuple[Oid, ...]
    """Of files, and of directories by their manifests."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A push, before anything is asked."""

    errands: tuple[Errand, ...]
    told: Mapping[Oid, bytes]
    """Manifests that the metafiles themselves tell."""
    notes: tuple[str, ...]
    """A line for each output that is left out."""


def plan_push(dataset: Dataset, chosen: str) -> Plan:
    """Who gets what: the remote that the user has `chosen`, that an output names, or the default one.

    Of an output that a part was named of, all goes. Raises `InputError` where there is nothing to push, or
    no remote to push it to.
    """
    if not dataset.wanted and not dataset.oid:
        raise InputError(f"{dataset.target} is no output; name a tracked path, a revision or an oid")
    if not chosen and len({wanted.root for wanted in dataset.wanted}) > 1:
        raise InputError(
            f"{dataset.target} has outputs of several DVC repositories; push each, or name one --remote"
        )
    notes: list[str] = []
    if dataset.wanted:
        named = [(wanted.output.remote, wanted.output.oid) for wanted in _pushable(dataset.wanted, notes)]
    else:
        named = [("", _oid(dataset))]
    if not named:
        raise InputError("; ".join([f"{dataset.target} has nothing to be pushed", *notes]))
    found: dict[str, list[Oid]] = {}
    for name, oid in named:
        assert oid is not None  # the others were left out
        found.setdefault(chosen or name, []).append(oid)
    errands = tuple(Errand(_remote(dataset, name), tuple(oids)) for name, oids in found.items())
    return Plan(errands, told_manifests(wanted.output for wanted in dataset.wanted), tuple(notes))


def _pushable(wanted: Sequence[Wanted], notes: list[str]) -> list[Wanted]:
    """Those that DVC would push, too."""
    kept = []
    for one in wanted:
        if isinstance(one.output.source, RepositoryImport):
            notes.append(f"{one.path} is imported: it is pushed where it comes from")
        elif not one.output.push:
            notes.append(f"{one.path} is not to be pushed (`push: false`)")
        elif one.output.oid is None or one.output.oid.algorithm not in DVC_ALGORITHMS:
            notes.append(f"{one.path} has no content that is kept by its hash")
        else:
            kept.append(one)
    return kept


def _remote(dataset: Dataset, name: str) -> RemoteSpec:
    """The remote that an output goes to that names `name`, or none. Raises `InputError`."""
    spec = dataset.push_remotes.get(name)
    if spec is not None:
        return spec
    if not name:
        raise InputError(
            f"{dataset.target}: there is no default remote that could be pushed to; name one with --remote, "
            "or with `dvc remote default`"
        )
    raise InputError(
        f"{dataset.target}: the remote {show_name(name)!r} cannot be pushed to: it is not configured, or "
        "keeps files by their paths, where only `dvc push` writes"
    )


def _oid(dataset: Dataset) -> Oid:
    """What an oid names that the user gave."""
    local = LocalCache(dataset.cache)
    try:
        candidates = [Oid.parse(dataset.oid, algorithm) for algorithm in DVC_ALGORITHMS]
        return next(filter(local.has, candidates), candidates[0])
    finally:
        local.close()
