"""From a remote's URL to what reads it: the one table of schemes. Blocking (files, commands); any thread."""

from __future__ import annotations

import importlib
from dataclasses import replace
from typing import Final, cast

from store.errors import InputError
from store.remotes.remote import Remote
from store.remotes.spec import DVC_LAYOUT, RemoteSpec
from store.remotes.storage import Limits, WritableStorage

_FAMILIES: Final = {
    "": "local.open_local",
    "azure": "azure.open_azure",
    "file": "local.open_local",
    "gs": "gcs.open_gcs",
    "http": "http.open_http",
    "https": "http.open_http",
    "s3": "s3.open_s3",
    "ssh": "ssh.open_ssh",
    "webdav": "webdav.open_webdav",
    "webdavs": "webdav.open_webdav",
}
"""Scheme → module of this package and function; imported when such a remote is opened."""

OBJECT_STORES: Final = frozenset(["azure", "gs", "s3"])
"""Those that obstore reads."""

_LIMITS: Final = Limits()


def open_remote(spec: RemoteSpec, limits: Limits = _LIMITS) -> Remote:
    """The remote, ready to be asked; nothing is asked yet.

    Options and credentials are read now: opening it again reads them again. Raises `InputError` for a URL or
    options that cannot be used.
    """
    scheme = scheme_of(spec.url)
    family = _FAMILIES.get(scheme)
    if family is None:
        raise InputError(
            f"remote {spec.name}: {scheme}:// remotes are not supported; local paths, "
            "s3, gs, azure, ssh, http(s) and webdav(s) are"
        )
    module, _, function = family.partition(".")
    opener = getattr(importlib.import_module(f"store.remotes.{module}"), function)
    return Remote(spec.name, cast(WritableStorage, opener(spec, limits)), spec.layout, spec.addresses)


def open_for_reading(spec: RemoteSpec) -> Remote:
    """As `open_remote`, for who wants to know what is there in either layout, and to read it."""
    remote = open_remote(spec)
    if spec.layout != DVC_LAYOUT:
        return remote
    from store.contents.reading import Contents  # writers do without

    return replace(remote, contents=Contents(spec.name, remote.storage), manifests=spec.manifests)


def scheme_of(url: str) -> str:
    """In lower case; empty for a path."""
    scheme, separator, _ = url.partition("://")
    return scheme.lower() if separator and "/" not in scheme else ""
