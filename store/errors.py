"""What can go wrong on the bytes side. Store code raises these and nothing else on purpose.

    StoreError
    ├── InputError            what the user gave cannot be used: one line, exit status 1
    │   ├── ManifestInvalid     a `.dir` that is not one, or that names hostile paths
    │   ├── MetafileInvalid     a `.dvc` file (or its kin) that cannot be read
    │   ├── ConfigInvalid       a DVC configuration file that cannot be read
    │   ├── NotTracked          a target that no metafile names
    │   ├── NotStored           a tracked output that DVC keeps no object for
    │   ├── MediaInvalid        a video or an image that cannot be read, or that has no such frame
    │   ├── RevisionUnknown     a name that git knows no commit by, or more than one
    │   └── RepositoryUnusable  a git repository that cannot be read, found or reached
    ├── MediaFailed           a process that makes something of a video or an image hung, crashed or gave up
    ├── ObjectMissing         no storage has the object
    ├── ObjectCorrupt         bytes are there and are not the object's (length, hash, file type)
    ├── CacheUnusable         the cache directory cannot be read or written (full, denied, gone)
    ├── ChangedMeanwhile      a file changed while it was being read to be committed
    ├── StoreTimeout          storage did not answer by the deadline
    ├── RemoteError           a remote did not give what it was asked for
    │   ├── RemoteMissing       it has no such object
    │   ├── RemoteDenied        it does not let us: no or wrong credentials
    │   ├── RemoteSlow          it did not answer in time, or asks us to wait
    │   ├── RemoteCorrupt       what it gave is not the object: length, hash or range
    │   │   └── RemoteCut           its answer ended before all of it had come
    │   ├── RemoteUnreachable   no connection, or one that broke; an error of the server's own
    │   │   └── RemoteAbsent      its own directory is not there
    │   ├── RemoteFull          it has no room for what it was given
    │   └── RangeRefused        it gives objects only whole
    ├── Offline               the network would be needed and must not be used
    └── LockTimeout           another process holds a lock for longer than we wait

A message is one line for a tired person: it names the thing and, where there is one, the
remedy. Nothing here knows an errno; `fusefs/error_codes.py` has the one table that does.
"""

from __future__ import annotations


class StoreError(Exception):
    """Root of all errors that the store raises on purpose."""


class InputError(StoreError):
    """What the user gave cannot be used."""


class ManifestInvalid(InputError):
    """A `.dir` manifest that is not one, or that names paths it must not."""


class MetafileInvalid(InputError):
    """A `.dvc` file (or its kin) that cannot be read."""


class ConfigInvalid(InputError):
    """A DVC configuration file that cannot be read."""


class NotTracked(InputError):
    """A target that no metafile names."""


class NotStored(InputError):
    """A tracked output that DVC keeps no object for: it is in git, elsewhere, or was never made."""


class MediaInvalid(InputError):
    """A video or an image that is not one, that nothing here can decode, or that has no such frame."""


class MediaFailed(StoreError):
    """A process that was to make something of a video or an image hung, crashed or gave up. Trying again may
    help."""


class RevisionUnknown(InputError):
    """A name that git knows no commit by, or more than one."""


class RepositoryUnusable(InputError):
    """A git repository that cannot be read, found or reached."""


class ObjectMissing(StoreError):
    """No storage has the object."""


class ObjectCorrupt(StoreError):
    """Bytes are there, but they are not the object's: wrong length, hash or file type."""


class CacheUnusable(StoreError):
    """The cache directory cannot be read or written: full, denied or gone."""


class ChangedMeanwhile(StoreError):
    """A file changed while it was being read to be committed."""


class RemoteError(StoreError):
    """A remote did not give what it was asked for. What a reader gets when all have failed is one of these,
    `ObjectMissing` or `ObjectCorrupt`."""


class RemoteMissing(RemoteError):
    """The remote answered that it has no such object."""


class RemoteDenied(RemoteError):
    """The remote does not let us: credentials are missing, wrong or out of date."""


class RemoteSlow(RemoteError):
    """The remote did not answer in time, or asks us to wait.

    `retry_after` is how many seconds it wants to be left alone, 0 where it does not say.
    """

    def __init__(self, message: str, retry_after: float = 0.0) -> None:
        super().__init__(message, retry_after)
        self.retry_after = retry_after

    def __str__(self) -> str:
        return str(self.args[0])


class RemoteCorrupt(RemoteError):
    """What the remote gave is not the object: it has another length or hash, or is another range."""


class RemoteCut(RemoteCorrupt):
    """The remote's answer ended in good order before all had come that it promised. The next may be whole: a
    remote that has less than the object says so."""


class RemoteUnreachable(RemoteError):
    """No connection to the remote, or one that broke; or an error of the server's own."""


class RemoteAbsent(RemoteUnreachable):
    """The remote's own directory is not there: it is not mounted, or nothing was ever written to it."""


class RemoteFull(RemoteError):
    """The remote has no room for what it was given: its disk is full, a quota, or a bound on one object."""


class RangeRefused(RemoteError):
    """The remote gives objects only whole."""


class Offline(StoreError):
    """The network would be needed, and the user said that it must not be used."""


class LockTimeout(StoreError):
    """Another process holds a lock for longer than we wait."""


class StoreTimeout(StoreError):
    """Storage did not answer by the deadline."""
