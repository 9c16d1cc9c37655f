"""The options of `fusefs.open` and of `fusefs://` URLs, made to mean the same wherever they are used. Pure,
but for the working directory and whether a path is there."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from fusefs.dataset_model import Request
from fusefs.mount_options import parse_cache_size, parse_path, parse_remote, parse_verify
from fusefs.session import Opening
from store.budget import Limits

_DEFAULTS: Final[dict[str, Any]] = {
    "target": "",
    "rev": "",
    "repo": "",
    "cache": "",
    "remote": (),
    "trust": False,
    "offline": False,
    "verify": "blocks",
    "cache_size": 0,
    "cache_free": 0,
    "directory": "",
}
_GENERIC: Final = frozenset(
    (
        *("asynchronous", "batch_size", "listings_expiry_time", "loop", "max_paths"),
        *("skip_instance_cache", "use_listings_cache"),
    )
)
"""What fsspec gives to every file system."""
_OID: Final = re.compile(r"[0-9a-fA-F]{32}(\.dir)?")
_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://|[^/@:]+@[^/:]+:")
"""The beginning of a repository's URL, or of git's short form of one."""


def canonical(target: str | os.PathLike[str], options: Mapping[str, Any]) -> dict[str, Any]:
    """The options without defaults, their paths absolute, so that equal ones mean the same from everywhere.

    Raises TypeError for options that there are not, ValueError for values that cannot be.
    """
    unknown = options.keys() - _DEFAULTS.keys() - _GENERIC
    if unknown:
        known = ", ".join(_DEFAULTS)
        raise TypeError(f"there is no option {sorted(unknown)[0]!r}; there are {known}")
    found = {**options, "target": os.fspath(target)}
    if not found["target"]:
        raise ValueError("a version is needed: fusefs://TARGET!/PATH, or the option target=")
    for name in ("rev", "repo", "cache"):
        found[name] = os.fspath(found.get(name) or "")
    remotes = found.get("remote") or ()
    listed = [remotes] if isinstance(remotes, str | os.PathLike) else remotes
    found["remote"] = tuple(parse_remote(os.fspath(one)) for one in listed)
    found["verify"] = parse_verify(str(found.get("verify") or "blocks"))
    for name in ("cache_size", "cache_free"):
        found[name] = parse_cache_size(str(found.get(name) or 0))
    for name in ("trust", "offline"):
        found[name] = bool(found.get(name))
    if found["cache"]:
        found["cache"] = parse_path(found["cache"])
    if found["repo"] and not _URL.match(found["repo"]):
        found["repo"] = parse_path(found["repo"])
    found.update(_place(found["target"], found["repo"], found.get("directory") or ""))
    return {name: value for name, value in sorted(found.items()) if value != _DEFAULTS.get(name, _GENERIC)}


def _place(target: str, repo: str, directory: str) -> dict[str, str]:
    """The target as a name that holds everywhere, or with the directory in which it does."""
    here = os.path.abspath(directory or ".")  # noqa: PTH100  # `..` of a name that is no path stays a name
    if repo:
        return {"target": target, "directory": ""}
    if Path(target).is_absolute():
        return {"target": target, "directory": ""}
    is_name = target.startswith("run:") or _OID.fullmatch(target)
    if is_name and not os.path.lexists(os.path.join(here, target)):  # noqa: PTH118
        return {"target": target, "directory": here}
    return {"target": os.path.join(here, target), "directory": ""}  # noqa: PTH118


def make_opening(options: Mapping[str, Any]) -> Opening:
    """What canonical options ask for."""
    given = {**_DEFAULTS, **options}
    request = Request(
        given["target"],
        cache=given["cache"],
        rev=given["rev"],
        repo=given["repo"],
        remotes=tuple(given["remote"]),
        trust=given["trust"],
        offline=given["offline"],
        speaks=False,
    )
    limits = Limits(given["cache_size"], given["cache_free"])
    return Opening(request, given["directory"] or "/", given["verify"], limits)
