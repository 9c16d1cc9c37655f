"""HTTP connections whose every phase has a deadline: name, handshakes, the head of an answer, each part.

urllib3 bounds single calls on a socket, which a server that sends a byte a second outlives, and the look-up
of a name not at all. Here the thread that makes a request says how long the next phase may take (`phase`),
and the sockets hold themselves to what is left of it.

Any thread; a connection is used by one at a time.
"""

from __future__ import annotations

import http.client
import ipaddress
import logging
import socket
import ssl
import threading
import time
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError

from store.errors import InputError
from store.remotes.storage import Limits

CONNECTIONS: Final = 96
"""Kept open, at most, to one server: as many as there are threads that may ask it."""
SENT_BYTES: Final = 256 << 10
ORIGINS: Final = 16
"""Servers to which connections are kept, where redirects lead to many."""
LOOK_UPS: Final = threading.BoundedSemaphore(32)
"""Names looked up at a time: the system's call cannot be ended."""

logging.getLogger("urllib3").setLevel(logging.ERROR)  # it warns with tracebacks of what servers send

_phase: Final = threading.local()


@contextmanager
def phase(seconds: float) -> Iterator[None]:
    """What this thread reads from a socket until the end of the context must come within `seconds`."""
    _phase.end = time.monotonic() + seconds
    try:
        yield
    finally:
        _phase.end = None


@contextmanager
def asking(limits: Limits) -> Iterator[None]:
    """This thread makes a request: its phases begin where connections begin them."""
    _phase.limits = limits
    try:
        yield
    finally:
        _phase.limits = _phase.end = None


def _begin(phase: str) -> None:
    limits = getattr(_phase, "limits", None)
    if limits is not None:
        _phase.end = time.monotonic() + getattr(limits, phase)


def _hurry(sock: socket.socket) -> None:
    end = getattr(_phase, "end", None)
    if end is not None:
        sock.settimeout(_left(end))


def _left(end: float) -> float:
    left: float = end - time.monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    return left


def sending(parts: Iterable[bytes], seconds: float, answer: float) -> Iterator[bytes]:
    """`parts` for a request's body: every `SENT_BYTES` must be taken within `seconds`, and the answer's head
    come within `answer` after the last of them."""
    for part in parts:
        for start in range(0, len(part), SENT_BYTES):
            _phase.end = time.monotonic() + seconds
            yield part[start : start + SENT_BYTES]
    _phase.end = time.monotonic() + answer


class _Socket(socket.socket):
    def sendall(self, *arguments: Any) -> None:
        _hurry(self)
        super().sendall(*arguments)

    def recv_into(self, *arguments: Any) -> int:
        _hurry(self)
        return super().recv_into(*arguments)


class _TlsSocket(ssl.SSLSocket):
    def send(self, *arguments: Any) -> int:
        _hurry(self)
        return super().send(*arguments)

    def recv_into(self, *arguments: Any) -> int:
        _hurry(self)
        return super().recv_into(*arguments)

    def do_handshake(self, block: bool = False) -> None:
        _hurry(self)
        super().do_handshake(block)


def _addresses(host: str, port: int, seconds: float) -> list[Any]:
    """Look up a name. Raises `OSError`, `UnicodeError` and `TimeoutError`."""
    host = host.strip("[]")
    try:
        ipaddress.ip_address(host.partition("%")[0])
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except ValueError:
        pass
    end = time.monotonic() + seconds
    return look_up(host, port, seconds, type=socket.SOCK_STREAM).result(_left(end))


def look_up(host: Any, port: Any, seconds: float, **hints: int) -> Future[list[Any]]:
    """What `socket.getaddrinfo` says, in a thread that no end of the process waits for. Raises `TimeoutError`
    where there are too many of them for so many seconds."""
    if not LOOK_UPS.acquire(timeout=seconds):
        raise TimeoutError("timed out")
    found: Future[list[Any]] = Future()
    found.set_running_or_notify_cancel()  # from now on nobody takes it back

    def ask() -> None:
        try:
            addresses = socket.getaddrinfo(host, port, **hints)
        except (OSError, UnicodeError) as error:
            found.set_exception(error)
        else:
            found.set_result(addresses)
        finally:
            LOOK_UPS.release()

    threading.Thread(target=ask, name="look-up", daemon=True).start()
    return found


def _connect(addresses: list[Any], end: float) -> socket.socket:
    """To the first address that answers. Raises `OSError`, `TimeoutError` among them."""
    failure: OSError = OSError("the name has no address")
    for family, kind, protocol, _, address in addresses:
        made = _Socket(family, kind, protocol)
        try:
            made.settimeout(_left(end))
            made.connect(address)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            made.close()
            failure = error
        else:
            return made
    raise failure


class _Answer(http.client.HTTPResponse):
    def begin(self) -> None:
        super().begin()
        told = ",".join(self.headers.get_all("Content-Length", ()))
        if len({length.strip() for length in told.split(",")}) > 1:
            # urllib3 finds this, too, but when nobody closes the answer any more.
            raise http.client.HTTPException("more than one length")


class _Bounded(HTTPConnection):
    """A connection that begins its own phases."""

    response_class = _Answer

    def connect(self) -> None:
        _begin("connect")
        super().connect()
        _begin("first_byte")

    def request(self, *arguments: Any, **options: Any) -> None:
        _begin("first_byte")
        super().request(*arguments, **options)

    def _new_conn(self) -> socket.socket:
        end = getattr(_phase, "end", None) or time.monotonic() + Limits().connect
        try:
            return _connect(_addresses(self._dns_host, self.port or 0, _left(end)), end)
        except socket.gaierror as error:
            raise NameResolutionError(self.host, self, error) from None
        except UnicodeError:
            raise NameResolutionError(self.host, self, socket.gaierror("no host name")) from None
        except TimeoutError:
            raise ConnectTimeoutError(self, "timed out") from None
        except OSError as error:
            raise NewConnectionError(self, "no connection") from error


class _BoundedTls(_Bounded, HTTPSConnection):
    pass


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Bounded


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _BoundedTls

    def _validate_conn(self, conn: Any) -> None:
        if conn.is_closed:  # as there, without its warning: who turned verification off knows
            conn.connect()


def tls_context(verify: bool, authorities: bytes) -> ssl.SSLContext:
    """`authorities`: PEM, trusted beside the system's own. Raises `ssl.SSLError` where it is none."""
    context = ssl.create_default_context()
    if authorities:
        context.load_verify_locations(cadata=authorities.decode("ascii", "replace"))
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    context.sslsocket_class = _TlsSocket
    return context


class Connections:
    """The pools of connections of a remote, direct and by way of the environment's proxies."""

    def __init__(self, context: ssl.SSLContext, limits: Limits, *, ambient: bool) -> None:
        """`ambient`: use the proxies that the environment names, but for hosts that it excepts."""
        self._context = context
        self._limits = limits
        self._proxies: Mapping[str, str] = urllib.request.getproxies_environment() if ambient else {}
        self._lock = threading.Lock()
        self._managers: dict[str, urllib3.PoolManager] = {}

    def ask(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | Iterable[bytes] | None = None
    ) -> urllib3.BaseHTTPResponse:
        """One request, without redirects; gives the answer when its head has come.

        Raises what urllib3 raises, and `InputError` for a proxy that cannot be used.
        """
        manager = self._manager(self._proxy_for(url))
        with asking(self._limits):
            return manager.urlopen(
                method,
                url,
                headers=dict(headers),
                body=body,
                redirect=False,
                retries=False,
                preload_content=False,
                decode_content=False,
            )

    def close(self) -> None:
        with self._lock:
            managers, self._managers = list(self._managers.values()), {}
        for manager in managers:
            for key in manager.pools.keys():  # noqa: SIM118 (the container does not iterate)
                pool = manager.pools.get(key)
                if pool is not None:
                    pool.close()
            manager.clear()

    def _proxy_for(self, url: str) -> str:
        parts = urlsplit(url)
        proxy = self._proxies.get(parts.scheme) or self._proxies.get("all", "")
        if not proxy or urllib.request.proxy_bypass_environment(parts.netloc, dict(self._proxies)):  # type: ignore[attr-defined]
            return ""
        return proxy if "://" in proxy else f"http://{proxy}"

    def _manager(self, proxy: str) -> urllib3.PoolManager:
        with self._lock:
            manager = self._managers.get(proxy)
            if manager is None:
                manager = self._managers[proxy] = self._open(proxy)
            return manager

    def _open(self, proxy: str) -> urllib3.PoolManager:
        options: dict[str, Any] = {
            "num_pools": ORIGINS,
            "maxsize": CONNECTIONS,
            "ssl_context": self._context,
            "timeout": urllib3.Timeout(connect=self._limits.connect, read=self._limits.first_byte),
        }
        if not proxy:
            manager = urllib3.PoolManager(**options)
        else:
            parts = urlsplit(proxy)
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise InputError("the environment names a proxy that is neither http:// nor https://")
            headers = None
            if parts.username is not None:
                login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
                headers = urllib3.make_headers(proxy_basic_auth=login)
            where = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
            manager = urllib3.ProxyManager(where, proxy_headers=headers, **options)
        manager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}
        return manager
