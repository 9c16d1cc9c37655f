"""`Remote`: a storage asked by oid. It knows where its layout has an object. Blocking; any thread."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from store.errors import InputError, RemoteMissing
from store.layouts import object_path
from store.oid import DVC_ALGORITHMS, Oid
from store.remotes.spec import DVC_LAYOUT
from store.remotes.storage import Address, Body, WritableStorage


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

    def address(self, oid: Oid) -> Address | None:
        """Where the object would be; None where this remote cannot have it."""
        if oid.algorithm not in DVC_ALGORITHMS:
            return None
        if self.layout == DVC_LAYOUT:
            return Address(object_path(oid))
        found = self.addresses.get(str(oid))
        return Address(*found) if found else None

    def size(self, oid: Oid) -> int:
        """Length in bytes. Raises `RemoteError`."""
        return self.storage.size(self._address(oid))

    def read(
        self, oid: Oid, offset: int = 0, length: int | None = None, validator: str = ""
    ) -> AbstractContextManager[Body]:
        """As `Storage.read`."""
        return self.storage.read(self._address(oid), offset, length, validator)

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
