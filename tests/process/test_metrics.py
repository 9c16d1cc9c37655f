"""The metrics of real mounts: in `.fusefs/metrics` and on `--metrics ADDRESS`, also to hostile clients."""

from __future__ import annotations

import json
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from fusefs.metrics_endpoint import CONNECTIONS, HEAD_BYTES
from tests.conftest import SECONDS, Fusefs, SmallDataset, kill_for_good
from tests.process.conftest import await_end, list_daemons

pytestmark = [pytest.mark.fuse, pytest.mark.root]
BOTH_MODES = pytest.mark.modes("fuse", "native")

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def parse(text: str) -> Samples:
    """The samples by name and labels, as Prometheus' own parser reads them."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples[name, tuple(sorted(labels.items()))]


Address = tuple[str, int] | str


def connect(address: Address) -> socket.socket:
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    client = socket.socket(family, socket.SOCK_STREAM)
    client.settimeout(SECONDS)
    client.connect(address)
    return client


def receive(client: socket.socket) -> tuple[bytes, bytes]:
    """Head and body of what comes until the other side closes."""
    answer = b""
    while more := client.recv(1 << 16):
        answer += more
    head, _, body = answer.partition(b"\r\n\r\n")
    return head, body


def ask(address: Address, request: bytes) -> tuple[bytes, bytes]:
    with connect(address) as client:
        client.sendall(request)
        return receive(client)


def scrape(address: Address) -> Samples:
    head, body = ask(address, b"GET /metrics HTTP/1.1\r\nHost: here\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n"), head
    return parse(body.decode())


@pytest.fixture
def mount(fusefs: Fusefs, dataset: SmallDataset, mountpoint: Path) -> Callable[..., Path]:
    """Mounts the dataset with these flags."""

    def mount_it(*flags: str | Path) -> Path:
        fusefs("mount", "--cache", dataset.cache, *flags, dataset.oid, mountpoint, check=True)
        return mountpoint

    return mount_it


def status_of(place: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((place / ".fusefs" / "status").read_bytes())
    return found


@pytest.fixture
def endpoint(mount: Callable[..., Path]) -> Iterator[tuple[Path, Address]]:
    """A mount, and the port of this machine on which it tells its metrics."""
    place = mount("--metrics", "0")
    address = status_of(place)["metrics"]
    assert isinstance(address, str)
    host, _, port = address.rpartition(":")
    assert host == "127.0.0.1"
    yield place, (host, int(port))


@BOTH_MODES
def test_figures_move_with_what_is_read(
    endpoint: tuple[Path, Address], dataset: SmallDataset, fusefs: Fusefs, mode: str
) -> None:
    """In native mode the kernel reads what is cached, and there are no figures for what we do not know."""
    place, address = endpoint
    before = scrape(address)
    for path in dataset.files:
        (place / path).read_bytes()
    after = parse((place / ".fusefs" / "metrics").read_text())
    size = sum(map(len, dataset.files.values()))

    def grown(name: str, **labels: str) -> float:
        return value(after, name, **labels) - before.get((name, tuple(sorted(labels.items()))), 0.0)

    if mode == "fuse":
        assert grown("fusefs_cache_hits_total") == len(dataset.files)
        assert grown("fusefs_cache_read_bytes_total") == size
        assert grown("fusefs_requests_total", kind="read") >= len(dataset.files)
    else:
        unknown = {"fusefs_cache_hits_total", "fusefs_cache_read_bytes_total"}
        assert unknown.isdisjoint(name for name, _ in (*before, *after))
    # The metrics file itself is opened, too.
    opened = len(dataset.files) if mode == "fuse" else 0
    assert grown("fusefs_requests_total", kind="open") == opened + 1
    assert grown("fusefs_cache_misses_total") == grown("fusefs_request_errors_total") == 0
    assert value(after, "fusefs_version_bytes") == size
    assert value(after, "fusefs_threads_limit", kind="remote") > 0
    (info,) = [dict(labels) for name, labels in after if name == "fusefs_mount_info"]
    assert info == {"mountpoint": str(place), "oid": dataset.oid, "rev": "", "mode": mode}
    assert f"metrics        127.0.0.1:{address[1]}" in fusefs("status", place, check=True).stdout


@BOTH_MODES
def test_errors_and_misses_are_counted(mount: Callable[..., Path], dataset: SmallDataset) -> None:
    place = mount()
    for path in (dataset.cache / "files").rglob("*"):
        if path.is_file() and path.suffix != ".dir":
            path.unlink()
    for pinned in (dataset.cache / "fusefs").rglob("*"):
        if pinned.is_file():
            pinned.unlink(missing_ok=True)
    with pytest.raises(OSError):
        (place / next(iter(dataset.files))).read_bytes()
    samples = parse((place / ".fusefs" / "metrics").read_text())
    assert value(samples, "fusefs_cache_misses_total") > 0
    assert value(samples, "fusefs_request_errors_total") > 0
    assert status_of(place)["metrics"] is None


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 404),
        (b"GET /metrics/../status HTTP/1.1\r\n\r\n", 404),
        (b"POST /metrics HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", 405),
        (b"GET /metrics\r\n\r\n", 400),
        (b"\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)) + b"\n\n", 400),
        (b"GET /metrics HTTP/1.1\r\nX: " + b"y" * 4 * HEAD_BYTES, 431),
        (b"GET /" + b"a" * 2 * HEAD_BYTES + b" HTTP/1.1\r\n\r\n", 431),
    ],
)
def test_other_requests_are_refused(endpoint: tuple[Path, Address], request_: bytes, status: int) -> None:
    _, address = endpoint
    head, body = ask(address, request_)
    assert head.split()[:2] == [b"HTTP/1.1", b"%d" % status]
    assert body == b""
    assert scrape(address)


def test_a_head_has_no_body_and_queries_are_passed_over(endpoint: tuple[Path, Address]) -> None:
    _, address = endpoint
    head, body = ask(address, b"HEAD /metrics?name=x HTTP/1.0\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK")
    assert int(head.partition(b"Content-Length: ")[2].split()[0]) > 1000
    assert body == b""


def test_clients_that_do_nothing_keep_nobody_out(endpoint: tuple[Path, Address]) -> None:
    place, address = endpoint
    with ExitStack() as stack:
        idle = [stack.enter_context(connect(address)) for _ in range(3 * CONNECTIONS)]
        for client in idle:
            try:
                client.sendall(b"GET /metrics HTTP/1.1\r\n")
            except OSError:
                pass  # it was dropped for a later one
        assert value(scrape(address), "fusefs_requests_total", kind="getattr") >= 0
        assert any(place.iterdir())
        # The first ones were dropped for those after them, without an answer.
        assert dropped(idle[0])
    assert scrape(address)


def dropped(client: socket.socket) -> bool:
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        return True


def test_an_answer_that_nobody_takes_is_given_up(endpoint: tuple[Path, Address]) -> None:
    _, address = endpoint
    with connect(address) as rude:
        rude.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        rude.sendall(b"GET /metrics HTTP/1.1\r\n\r\n" * 50)
        assert scrape(address)


def test_an_address_in_use_is_said_by_the_mount(
    endpoint: tuple[Path, Address],
    fusefs: Fusefs,
    dataset: SmallDataset,
    new_mountpoint: Callable[[str], Path],
) -> None:
    _, address = endpoint
    other = new_mountpoint("other")
    done = fusefs("mount", "--cache", dataset.cache, "--metrics", str(address[1]), dataset.oid, other)
    assert done.returncode == 1
    assert done.stderr == (
        f"fusefs: --metrics 127.0.0.1:{address[1]}: Address already in use; choose another address\n"
    )
    assert not other.is_mount()
    assert list_daemons(other) == []
    assert scrape(address)


def test_a_unix_socket_is_the_owners_and_ends_with_the_mount(
    mount: Callable[..., Path], fusefs: Fusefs, tmp_path: Path
) -> None:
    path = tmp_path / "metrics.sock"
    place = mount("--metrics", f"unix:{path}")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert status_of(place)["metrics"] == f"unix:{path}"
    assert scrape(str(path))
    (pid,) = list_daemons(place)
    fusefs("umount", place, check=True)
    assert await_end(pid)
    assert not path.exists()


def test_the_socket_of_a_killed_daemon_is_taken_over(
    mount: Callable[..., Path], fusefs: Fusefs, tmp_path: Path
) -> None:
    path = tmp_path / "metrics.sock"
    place = mount("--metrics", f"unix:{path}")
    (pid,) = list_daemons(place)
    kill_for_good(pid)
    assert await_end(pid)
    fusefs("umount", place, check=True)
    assert path.is_socket()
    mount("--metrics", f"unix:{path}")
    assert scrape(str(path))


def test_a_file_in_the_sockets_place_is_left_alone(
    fusefs: Fusefs, dataset: SmallDataset, mountpoint: Path, tmp_path: Path
) -> None:
    path = tmp_path / "notes"
    path.write_text("mine")
    done = fusefs("mount", "--cache", dataset.cache, "--metrics", f"unix:{path}", dataset.oid, mountpoint)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "Address already in use" in done.stderr
    assert path.read_text() == "mine"
