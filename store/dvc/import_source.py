"""Where an imported output came from: `dvc import`, `dvc import-url`, `dvc import-db`.

An import is a `.dvc` file of one dependency and one output without a command:

    deps:
    - path: out
      repo:
        url: https://example.org/repo.git
        rev_lock: d7feaeca7581d3aa66062a686b2073d0ea1ba872

Callers: `store.dvc.metafile`, which puts it on the output; `store.dvc.imports` follows it. Pure
functions, any thread. What is read is hostile: whoever opens a URL judges it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from store.dvc.document import Mapping
from store.dvc.fields import read_mapping, read_mappings, read_text


@dataclass(frozen=True, slots=True)
class RepositoryImport:
    """A path in another repository, at one commit of it."""

    url: str
    """As written: a URL, or a path of this machine."""
    path: str
    """`/`-separated, from that repository's root; unchecked."""
    rev: str
    """The name that `dvc update` follows; empty for the default branch."""
    commit: str
    """`rev_lock`, the commit that was imported; unchecked, empty where it is missing."""
    remote: str
    """The remote of that repository to take the content from; empty for its default one."""


@dataclass(frozen=True, slots=True)
class UrlImport:
    """A URL, a path outside of the repository, or `remote://name/path`. Fields not known are empty."""

    url: str
    etag: str
    version_id: str


@dataclass(frozen=True, slots=True)
class DatabaseImport:
    """The result of a query."""

    connection: str
    """The name of a connection in the configuration."""
    query: str
    table: str


ImportSource: TypeAlias = RepositoryImport | UrlImport | DatabaseImport


def parse_import_source(document: Mapping, where: str) -> ImportSource | None:
    """The source of the import that a `.dvc` file is; None for any other. Raises `MetafileInvalid`."""
    deps = document.get("deps")
    outs = document.get("outs")
    single = isinstance(deps, list) and isinstance(outs, list) and len(deps) == len(outs) == 1
    if not single or document.get("cmd"):
        return None
    [dep] = read_mappings(document, "deps", where)
    if "db" in dep:
        database = read_mapping(dep, "db", where)
        connection, query, table = (
            read_text(database, key, where) for key in ("connection", "query", "table")
        )
        return DatabaseImport(connection, query, table)
    path = read_text(dep, "path", where)
    if "repo" not in dep:
        return UrlImport(path, read_text(dep, "etag", where), read_text(dep, "version_id", where))
    repo = read_mapping(dep, "repo", where)
    remote = repo.get("remote")
    return RepositoryImport(
        url=read_text(repo, "url", where),
        path=path,
        rev=read_text(repo, "rev", where),
        commit=read_text(repo, "rev_lock", where),
        remote=remote if isinstance(remote, str) else "",  # else a remote's options, which are not ours
    )
