"""`Remote`: a storage asked by oid. It knows where its layout has an object. Blocking; any thread."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from store.errors import InputError, RemoteCorrupt, RemoteMissing
from store.layouts import object_path
from store.oid import DVC_ALGORITHMS, Oid
from store.remotes.spec import DVC_LAYOUT
from store.remotes.storage import Address, Body, WritableStorage

if TYPE_CHECKING:
    from store.contents.finding import Location
    from store.contents.reading import Contents


@dataclass(frozen=True, slots=True)
class SizeQuestion:
    """How long is an object? To be called with a remote, or put to it by whoever can do so better."""

    oid: Oid

    def __call__(self, remote: Remote) -> int:
        return remote.size(self.oid)


@dataclass(frozen=True, slots=True, eq=False)
class Remote:
    """One remote of a version."""

    name: str
    """Fit to be shown."""
    storage: WritableStorage
    layout: str = DVC_LAYOUT
    addresses: Mapping[str, tuple[str, str]] = field(default_factory=dict, repr=False)
    identity: str = ""
    """`RemoteSpec.identity`."""
    key: str = ""
    """What its logs are kept by (`store.oplog.identities.remote_key`)."""
    contents: Contents | None = field(default=None, repr=False)
    """Its content directories, for who reads: what is not in its place in the layout is read from there."""
    manifests: tuple[Oid, ...] = field(default=(), repr=False)
    """Of the version: their catalogues tell where its contents are."""

    def address(self, oid: Oid) -> Address | None:
        """Where the object would be; None where this remote cannot have it."""
        if oid.algorithm not in DVC_ALGORITHMS:
            return None
        if self.layout == DVC_LAYOUT:
            return Address(object_path(oid))
        found = self.addresses.get(str(oid))
        return Address(*found) if found else None

    def goes_aside(self, oid: Oid) -> bool:
        """Is the object to be read from content directories, as far as is known? Waits for nothing."""
        return self.contents is not None and self.contents.goes_aside(oid)

    def set_aside(self, oid: Oid) -> bool:
        """An object is not in its place in the layout: may it be elsewhere? Waits for nothing."""
        if self.contents is None or not self.contents.may_have_any:
            return False
        self.contents.set_aside(oid)
        return True

    def size(self, oid: Oid) -> int:
        """Length in bytes; of a content as its index told it. Raises `RemoteError`."""
        return self._size(oid, as_told=True)

    def told_sizes(self, oids: Sequence[Oid]) -> dict[Oid, int]:
        """The lengths of those that lie in content directories, as the version's catalogues and indexes tell
        them. Raises `RemoteError`."""
        contents = self.contents
        if contents is None:
            return {}
        contents.learn(self.manifests)
        found = ((oid, contents.known(oid)) for oid in oids)
        return {oid: place.size for oid, place in found if place is not None and place.size >= 0}

    def confirm(self, oid: Oid) -> int:
        """Length in bytes of what is there at this moment. Raises `RemoteError`."""
        return self._size(oid, as_told=False)

    def _size(self, oid: Oid, *, as_told: bool) -> int:
        address, contents = self._address(oid), self.contents
        if contents is None:
            return self.storage.size(address)
        location = contents.known(oid)
        if location is None:
            with contents.first_turn():
                location = contents.known(oid)  # the first one may have learnt it
                try:
                    if location is None:
                        self._check_place(contents, oid)
                        return self.storage.size(address)
                except RemoteMissing:
                    location = contents.find(oid, self.manifests)
                    if location is None:
                        raise
        return contents.size(oid, location) if as_told else contents.confirm(oid, location)

    def read(
        self, oid: Oid, offset: int = 0, length: int | None = None, validator: str = ""
    ) -> AbstractContextManager[Body]:
        """As `Storage.read`."""
        if self.contents is None:
            return self.storage.read(self._address(oid), offset, length, validator)
        return self._read(self.contents, oid, offset, length, validator)

    @contextmanager
    def _read(
        self, contents: Contents, oid: Oid, offset: int, length: int | None, validator: str
    ) -> Iterator[Body]:
        """From wherever it is known to be, then from its place in the layout, then from wherever it is."""
        with ExitStack() as stack:
            location = contents.known(oid)
            if location is None:
                with contents.first_turn():
                    location = contents.known(oid)  # the first one may have learnt it
                    if location is None:
                        body = self._enter_unknown(stack, contents, oid, offset, length, validator)
            if location is not None:
                try:
                    body = stack.enter_context(contents.read(oid, location, offset, length, validator))
                except (RemoteMissing, RemoteCorrupt) as failure:
                    try:
                        body = self._enter_unknown(stack, contents, oid, offset, length, validator, location)
                    except RemoteMissing:
                        raise failure from None
            yield body

    def _enter_unknown(
        self,
        stack: ExitStack,
        contents: Contents,
        oid: Oid,
        offset: int,
        length: int | None,
        validator: str,
        *tried: Location,
    ) -> Body:
        """Read an object from its place in the layout; else from wherever contents are, but those `tried`."""
        try:
            self._check_place(contents, oid)
            return stack.enter_context(self.storage.read(self._address(oid), offset, length, validator))
        except RemoteMissing as error:
            failure = error
        while (place := contents.find(oid, self.manifests)) is not None and place not in tried:
            try:
                return stack.enter_context(contents.read(oid, place, offset, length))
            except RemoteMissing as error:  # what told of it was wrong or out of date
                failure = error
                tried = (*tried, place)
        raise failure

    def _check_place(self, contents: Contents, oid: Oid) -> None:
        """Raises `RemoteMissing` for what somebody has just looked for in vain."""
        if contents.was_set_aside(oid):
            raise RemoteMissing(f"{self.name} has no object {oid}")

    def list_sizes(self, algorithm: str, prefix: str) -> Iterator[tuple[Oid, int]]:
        """The objects whose digests begin with `prefix` (two digits) and their lengths, in no order.

        Keys that are no objects are passed over. Only for remotes that can list. Raises `RemoteError`.
        """
        sample = object_path(Oid(prefix + "0" * 30, algorithm=algorithm))
        directory = sample.rpartition("/")[0] + "/"
        for key, size, _ in self.storage.list(directory):
            name = key.removeprefix(directory)
            try:
                oid = Oid.parse(prefix + name, algorithm)
            except InputError:
                continue
            if object_path(oid) == key:
                yield oid, size

    @property
    def can_list(self) -> bool:
        return self.layout == DVC_LAYOUT and self.storage.can_list

    def _address(self, oid: Oid) -> Address:
        address = self.address(oid)
        if address is None:
            raise RemoteMissing(f"{self.name} has no object {oid}")
        return address
