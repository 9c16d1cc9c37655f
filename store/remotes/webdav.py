"""WebDAV remotes: HTTP, and listings by PROPFIND, a collection at a time. Any thread; a call asks once.

What is written comes under another name into a collection of its own (`fusefs/uploads`), and is moved to its
place when it is whole. Collections are made where they are missing (MKCOL).
"""

from __future__ import annotations

import os
import re
import secrets
import shlex
import signal
import subprocess
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, unquote, urlsplit

from store.errors import InputError, RemoteAbsent, RemoteCorrupt, RemoteError, RemoteUnreachable
from store.remotes import webdav_listing
from store.remotes.http import HttpBody, HttpStorage
from store.remotes.http_answers import error_of_status, is_transformed
from store.remotes.http_credentials import basic, custom, from_netrc, required_password
from store.remotes.object_options import narrowed, switch
from store.remotes.spec import RemoteSpec
from store.remotes.storage import UPLOADS, Address, Limits, Listed

COMMAND_SECONDS: Final = 30.0
LONGEST_TOKEN: Final = 1 << 16
DEEPEST: Final = 32
"""Collections below each other that a listing follows."""
MOST_KNOWN: Final = 10_000
"""Collections that are remembered to be there."""
_SCHEMES: Final = {"webdav": "http", "webdavs": "https"}


class WebdavStorage(HttpStorage):
    """A collection on a WebDAV server."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """As `HttpStorage`."""
        super().__init__(*arguments, **options)
        self._known: set[str] = set()

    @property
    def can_list(self) -> bool:
        return True

    def list(self, prefix: str) -> Iterator[Listed]:
        """As `Storage.list`."""
        pending = [(prefix.rstrip("/"), 0)]
        while pending:
            collection, depth = pending.pop()
            for entry, key in self._entries(collection):
                if entry.is_collection and depth < DEEPEST:
                    pending.append((key, depth + 1))
                elif not entry.is_collection:
                    size = entry.size if entry.size >= 0 else self.size(Address(key))
                    yield Listed(key, size, entry.modified)

    def put(self, key: str, parts: Iterable[bytes], size: int, *, if_absent: bool = False) -> bool:
        """As `WritableStorage.put`."""
        if if_absent and self.has(Address(key)):
            return False
        upload = f"{UPLOADS}{secrets.token_hex(16)}"
        self._make(UPLOADS.rstrip("/"))
        try:
            self.send("PUT", upload, {}, parts, size)
            self.check_length(Address(upload), size)
            done = self._move(upload, key, if_absent=if_absent)
        except BaseException:
            with suppress(RemoteError):
                self.delete([upload])
            raise
        if not done:
            self.delete([upload])
        return done

    def _move(self, upload: str, key: str, *, if_absent: bool) -> bool:
        """Give an object its name; False where `if_absent` and something has it."""
        collection = key.rpartition("/")[0]
        for _ in range(2):
            self._make(collection)
            headers = {"Destination": self._url(Address(key)), "Overwrite": "F" if if_absent else "T"}
            with self.asked("MOVE", self._url(Address(upload)), headers, key) as answer:
                if answer.status == 412 and if_absent:
                    return False
                if answer.status in (200, 201, 204):
                    return True
                if answer.status != 409:
                    raise self._refusal(answer, key, "write")
            self._known.clear()  # somebody has removed a collection
        raise RemoteUnreachable(f"{self.who} does not let {key} be moved to its place")

    def _make(self, collection: str) -> None:
        """Make a collection and those above it, where they are missing."""
        if collection in self._known:
            return
        with self.asked("MKCOL", self._collection_url(collection), {}, collection or "directory") as answer:
            status = answer.status
            if status not in (200, 201, 405, 409):  # 405: it is there
                raise self._refusal(answer, collection or "its directory", "write")
        if status == 409:
            if not collection:
                raise RemoteUnreachable(f"{self.who}: the directory that its own lies in is not there")
            self._make(collection.rpartition("/")[0])
            with self.asked("MKCOL", self._collection_url(collection), {}, collection) as answer:
                if answer.status not in (200, 201, 405):
                    raise self._refusal(answer, collection, "write")
        if len(self._known) >= MOST_KNOWN:
            self._known.clear()
        self._known.add(collection)

    def _entries(self, collection: str) -> Sequence[tuple[webdav_listing.Entry, str]]:
        """What lies in a collection, by keys; nothing where it is not there."""
        url = self._collection_url(collection)
        headers = {"Depth": "1", "Content-Type": "application/xml; charset=utf-8"}
        what = collection or "its listing"
        with self.asked("PROPFIND", url, headers, what, webdav_listing.BODY) as answer:
            if answer.status in (404, 410) and collection:
                self._check_base()
                return []
            if answer.status in (405, 501):
                raise RemoteUnreachable(f"{self.who} cannot be listed: its server does no WebDAV")
            if answer.status != 207 or is_transformed(answer.headers):
                raise error_of_status(answer.status, answer.headers, self.who, what)
            base = unquote(urlsplit(self.base).path, errors="surrogateescape").rstrip("/")
            here = f"{base}/{collection}" if collection else base
            try:
                body = HttpBody(answer, -1, -1, self.limits.stall, self.who, what)
                named = webdav_listing.parse(body)
                keys = [(entry, webdav_listing.below(entry, here)) for entry in named]
            except webdav_listing.ListingInvalid as error:
                raise RemoteCorrupt(f"{self.who} gives a listing that cannot be used: {error}") from None
        above = f"{collection}/" if collection else ""
        # What lies deeper was not asked for, and comes with its own collection.
        return [(entry, above + key) for entry, key in keys if key is not None and "/" not in key]

    def _check_base(self) -> None:
        """No such prefix is an empty listing, and no such remote an error."""
        headers = {"Depth": "0"}
        with self.asked("PROPFIND", f"{self.base}/", headers, "its directory") as answer:
            if answer.status in (404, 410):
                raise RemoteAbsent(f"{self.who}: its directory is not there")

    def _collection_url(self, collection: str) -> str:
        return f"{self.base}/{quote(collection)}/" if collection else f"{self.base}/"


def open_webdav(spec: RemoteSpec, limits: Limits) -> WebdavStorage:
    """Raises `InputError`. Where the user's own configuration has a `bearer_token_command`, it is run now."""
    scheme, separator, rest = spec.url.partition("://")
    url = f"{_SCHEMES[scheme.lower()]}{separator}{rest}"
    limits = narrowed(spec, limits, "timeout", "timeout")
    certificate = None
    if spec.options.get("cert_path"):
        paths = [spec.options["cert_path"], spec.options.get("key_path", "")]
        found = [str(Path(path).expanduser()) for path in paths if path]
        certificate = (found[0], found[1] if len(found) > 1 else None)
    return WebdavStorage(spec, url, limits, headers=_credentials(spec, url), client_certificate=certificate)


def _credentials(spec: RemoteSpec, url: str) -> dict[str, str]:
    """As DVC chooses among them: a header of one's own, a token, a command for one, a name and password."""
    options = spec.options
    if options.get("custom_auth_header"):
        return custom(spec, options["custom_auth_header"], required_password(spec))
    if options.get("token"):
        return _bearer(spec, options["token"])
    if options.get("bearer_token_command"):
        return _bearer(spec, _token_of_command(spec))
    if options.get("user"):
        return basic(options["user"], required_password(spec))
    if switch(spec, "ask_password"):
        required_password(spec)
    return from_netrc(spec, url)


def _bearer(spec: RemoteSpec, token: str) -> dict[str, str]:
    if not re.fullmatch(r"[\x21-\x7e]+", token):
        raise InputError(f"remote {spec.name}: its token holds what no token may")
    return {"Authorization": f"Bearer {token}"}


def _token_of_command(spec: RemoteSpec) -> str:
    """What the command prints. Run without a shell, within `COMMAND_SECONDS`; nothing of it is shown."""
    failed = f"remote {spec.name}: its `bearer_token_command`"
    try:
        process = subprocess.Popen(
            shlex.split(spec.options["bearer_token_command"]),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # so that its own children end with it
        )
    except (OSError, ValueError, IndexError):
        raise InputError(f"{failed} cannot be run") from None
    late = threading.Event()

    def end() -> None:
        late.set()
        _kill(process)

    timer = threading.Timer(COMMAND_SECONDS, end)
    timer.start()
    try:
        with process:
            assert process.stdout is not None
            output = process.stdout.read(LONGEST_TOKEN + 1)
            if len(output) > LONGEST_TOKEN:
                _kill(process)
    finally:
        timer.cancel()
        timer.join()
    if late.is_set():
        raise InputError(f"{failed} did not end within {COMMAND_SECONDS:g} s")
    if len(output) > LONGEST_TOKEN or not output.strip():
        raise InputError(f"{failed} printed no token")
    if process.returncode != 0:
        raise InputError(f"{failed} ended with status {process.returncode}")
    return output.decode("ascii", "replace").strip()


def _kill(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
