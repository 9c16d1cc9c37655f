"""What obstore raises → `RemoteError`, with lines of our own.

obstore's own messages hold the request's URL, which may be signed, and the server's answer, which may echo
what it was sent. So nothing of them is passed on; they are only looked at for the status, the kind of failure
and the error code, and a code is shown only when it is one of those below. (A `Retry-After` is not in them:
what asks us to wait says 0.) Pure functions, any thread.
"""

from __future__ import annotations

import re
from typing import Final

from store.errors import (
    RangeRefused,
    RemoteCorrupt,
    RemoteCut,
    RemoteDenied,
    RemoteError,
    RemoteFull,
    RemoteMissing,
    RemoteSlow,
    RemoteUnreachable,
)

_DEBUG: Final = "\n\nDebug source:\n"
_STATUS: Final = re.compile(r"\n\s+status: (\d{3}),\n")
_CODE: Final = re.compile(r"<Code>(\w{3,64})</Code>")

_DENIED_CODES: Final = {
    "AccessDenied": "access denied",
    "AuthenticationFailed": "the signature is not accepted",
    "AuthorizationFailure": "access denied",
    "AuthorizationHeaderMalformed": "the signature is not accepted; is `region` right?",
    "AuthorizationPermissionMismatch": "access denied",
    "ExpiredToken": "the session token has expired",
    "InvalidAccessKeyId": "the access key is not known there",
    "InvalidAuthenticationInfo": "the credentials are not accepted",
    "InvalidObjectState": "the object is archived and must be restored first",
    "InvalidToken": "the session token is not valid",
    "NoAuthenticationInformation": "it wants credentials",
    "PublicAccessNotPermitted": "it wants credentials",
    "RequestTimeTooSkewed": "this machine's clock is wrong",
    "SignatureDoesNotMatch": "the secret key is wrong",
    "TokenRefreshRequired": "the session token must be renewed",
}
_FULL_CODES: Final = frozenset({"EntityTooLarge", "QuotaExceeded", "StorageFull", "XMinioStorageFull"})
_SLOW_CODES: Final = frozenset({"RequestTimeout", "ServerBusy", "SlowDown", "Throttling"})
_SLOW_STATUSES: Final = frozenset({408, 429, 503, 504})


def translated(
    error: Exception, who: str, what: str, *, hint: str = "", version: str = "", verb: str = "read"
) -> RemoteError:
    """The error for a failed call: `who` was asked for `what`; `hint` is added to a denial."""
    text = str(error)
    debug = text.rpartition(_DEBUG)[2]
    found = _STATUS.search(debug)
    if "TokenRequest" in debug and (not found or int(found[1]) < 429):
        return RemoteDenied(f"{who} cannot be asked, since no credentials were to be had for it{hint}")
    if found:
        code = _CODE.search(debug)
        return _of_status(int(found[1]), code[1] if code else "", who, what, hint, version, verb)
    return _of_failure(error, debug, who, what)


def _of_status(
    status: int, code: str, who: str, what: str, hint: str, version: str, verb: str
) -> RemoteError:
    if status == 404:
        if code in ("NoSuchBucket", "ContainerNotFound"):
            return RemoteMissing(f"{who} names a bucket or container that does not exist")
        return RemoteMissing(f"{who} has no {what}")
    if code in _DENIED_CODES or status in (401, 403):
        reason = _DENIED_CODES.get(code, f"status {status}")
        return RemoteDenied(f"{who} does not let us {verb} {what}: {reason}{hint}")
    if code in _FULL_CODES or status in (413, 507):
        return RemoteFull(f"{who} has no room for {what}")
    if status in _SLOW_STATUSES or code in _SLOW_CODES:
        return RemoteSlow(f"{who} asks us to wait (status {status})")
    if status == 412:
        return RemoteCorrupt(f"{who}: {what} has changed since it was first read")
    if status == 416:
        return RemoteCorrupt(f"{who} does not have that much of {what}")
    if version and status in (400, 405):
        return RemoteMissing(f"{who} has no such version of {what}")
    return RemoteUnreachable(f"{who} failed with status {status} for {what}")


def _of_failure(error: Exception, debug: str, who: str, what: str) -> RemoteError:
    """No status was given: the connection or the answer's form."""
    if isinstance(error, FileNotFoundError):
        return RemoteMissing(f"{who} has no {what}")
    if type(error).__name__ == "InvalidPathError":
        return RemoteUnreachable(f"{who} lists a key that cannot be understood")
    if "InvalidCertificate" in debug:
        if "Expired" in debug:
            return RemoteUnreachable(f"{who} shows a certificate that has expired")
        if "CaUsedAsEndEntity" in debug:
            return RemoteUnreachable(
                f"{who} shows an authority's own certificate; its server needs one that is signed by it"
            )
        return RemoteUnreachable(
            f"{who} shows a certificate that is not trusted (`ssl_verify` may name a CA)"
        )
    if "NotPartial" in debug:
        return RangeRefused(f"{who} gives objects only whole")
    if re.search(
        r"UnexpectedRange|InvalidRangeRequest|NoContentRange|ParseContentRange|MissingContentLength", debug
    ):
        return RemoteCorrupt(f"{who} answered with another range of {what} than was asked for")
    if "IncompleteBody" in debug or ("UnexpectedEof" in debug and "kind: Body" in debug):
        return RemoteCut(f"{who} ended its answer for {what} too early")
    if "kind: Timeout" in debug or "TimedOut" in debug:
        return RemoteSlow(f"{who} did not answer in time for {what}")
    if "BareRedirect" in debug:
        return RemoteUnreachable(f"{who} lies in another region: set `region`")
    if "TooManyRedirects" in debug:
        return RemoteUnreachable(f"{who} sends us in circles for {what}")
    if "kind: Connect" in debug:
        return RemoteUnreachable(f"{who} cannot be reached: no connection")
    return RemoteUnreachable(f"{who} broke the connection, or answered what cannot be understood")
