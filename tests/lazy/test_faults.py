"""Remotes and networks that fail, one way each, behind real mounts: the errno, the log, and what is served.

Each fault comes twice. First it passes while a reader waits, who then gets the bytes; then it stays, and
readers get the errno that is documented for it. A remote that stays bad is asked again for half a minute, so
all faults are waited for at once, each with a daemon of its own.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.lazy.asked import asked_again
from tests.lazy.faulty import (
    DENIED,
    QUICK,
    SECRET,
    SLOW,
    UNREACHABLE,
    WITH_PASSWORD,
    WRONG,
    Lazy,
    assert_only_right,
    new_project,
    objects,
    read,
    read_piece,
    reading,
)
from tests.mount.datasets import Cache, filler, md5
from tests.mount.mounts import Mount, Mounter
from tests.patience import until
from tests.servers.certificates import make_certificate
from tests.servers.nginx import nginx
from tests.servers.proxy import Proxy
from tests.servers.raw_answers import RawServer, Script, raw_server, reset, say, say_raw

pytestmark = [pytest.mark.fuse, pytest.mark.modes("fuse", "native"), pytest.mark.timeout(400)]

SMALL = {f"small/{number}": filler(20_000 + number, number) for number in range(6)}
LARGE = {f"large/{number}": filler((6 << 20) + number, 100 + number) for number in range(4)}
FILES = {**SMALL, **LARGE}


@pytest.fixture(scope="module")
def remote(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    """All objects, as `dvc push` lays them out. Not to be changed."""
    cache = Cache(tmp_path_factory.mktemp("remote"))
    for data in FILES.values():
        cache.put(data)
    return cache


@dataclass(frozen=True, slots=True)
class Fault:
    """A mount whose remote can be broken and mended."""

    name: str
    errnos: frozenset[int]
    said: str
    """What the log has to tell, a pattern."""
    url: str
    break_it: Callable[[], None]
    mend: Callable[[], None] | None
    """None: it cannot be mended."""
    has_failed: Callable[[], object]
    """Has the remote failed at least once since it was broken?"""
    options: str = ""
    """Of the remote. Those that find a remote slow soon are for one that is: any is on a busy machine."""


def of_a_network(target: tuple[str, int], stack: ExitStack) -> Iterator[Fault]:
    """Faults of the network on the way to a sound server."""
    for name, faults, code, said in (
        ("refuses", {"refuse": True}, UNREACHABLE, "connection refused"),
        ("stalls before the first byte", {"stall_after": 0}, SLOW, "did not answer in time"),
        ("stalls in the middle", {"stall_after": 10_000}, SLOW, "did not answer in time"),
        ("resets at once", {"reset_after": 0}, UNREACHABLE, "broke the connection"),
        ("resets in the middle", {"reset_after": 10_000}, UNREACHABLE, "broke the connection"),
        ("truncates", {"cut_after": 10_000}, WRONG, "too early"),
    ):
        proxy = stack.enter_context(Proxy(target))

        def has_failed(proxy: Proxy = proxy, name: str = name) -> bool:
            # Nobody can tell of a connection that was refused. Else a second one comes after a failure.
            return name == "refuses" or proxy.counts.connections >= 2

        def break_it(proxy: Proxy = proxy, faults: dict[str, float] = faults) -> None:
            proxy.fail(**faults)
            proxy.break_connections()  # those that are kept for the next request

        quick = QUICK if code == SLOW else ""
        yield Fault(name, frozenset({code}), said, proxy.url, break_it, proxy.fail, has_failed, quick)


def of_a_server(stack: ExitStack) -> Iterator[Fault]:
    """Faults of a server that passes from one moment to the next."""
    sound = objects(FILES)

    def circle(head: str) -> Script:
        return say("302 Found", b"", f"Location: {head.split()[1]}\r\n")

    for name, wrong, code, said in (
        ("500", lambda _: say("500 Oh"), UNREACHABLE, "failed with status 500"),
        ("503", lambda _: say("503 Busy"), SLOW, r"asks us to wait \(status 503\)"),
        ("a redirect loop", circle, UNREACHABLE, "sends us in circles"),
        ("no HTTP", lambda _: say_raw("SSH-2.0-OpenSSH_9.2\r\n"), UNREACHABLE, "cannot be understood"),
    ):
        server = stack.enter_context(raw_server(reset))
        yield Fault(
            name,
            frozenset({code}),
            said,
            server.url,
            lambda server=server, wrong=wrong: set_answers(server, wrong),  # type: ignore[misc]
            lambda server=server: set_answers(server, sound),  # type: ignore[misc]
            lambda server=server: server.requests,  # type: ignore[misc]
        )


def set_answers(server: RawServer, choose: Callable[[str], Script]) -> None:
    server.requests.clear()
    server.choose = choose


def nothing() -> None:
    pass


def beyond_mending(remote: Path, directory: Path, stack: ExitStack) -> Iterator[Fault]:
    """What a test cannot have pass."""
    expired = make_certificate(directory / "tls", expired=True)
    server = stack.enter_context(nginx(directory / "nginx", remote, certificate=expired))
    trusted = f"ssl_verify = {expired.path}\n"
    said = "shows a certificate that has expired"
    yield Fault("expired", frozenset({UNREACHABLE}), said, server.url, nothing, None, lambda: True, trusted)
    # Slow is how it looks where no resolver answers at all.
    codes, said = frozenset({UNREACHABLE, SLOW}), "the name of its host is not known|did not answer in time"
    yield Fault("no such name", codes, said, "http://no-such-host.invalid", nothing, None, lambda: True)


def held_against(fault: Fault, mount: Mount) -> None:
    """One fault, passing and staying."""
    if fault.mend is not None:
        fault.break_it()
        with reading(read, mount.path / "small/0") as small, reading(read, mount.path / "large/0") as large:
            until(fault.has_failed, f"{fault.name}: a failure")
            fault.mend()
        assert small == [FILES["small/0"]], fault.name
        assert large == [FILES["large/0"]], fault.name
    fault.break_it()
    with (
        reading(read, mount.path / "small/1") as small,
        reading(read_piece, mount.path / "large/1") as large,
    ):
        # What is here is served meanwhile, and nothing else is kept waiting.
        if fault.mend is not None:
            assert read(mount.path / "small/0") == FILES["small/0"]
        assert len(list((mount.path / "small").iterdir())) == len(SMALL)
        assert (mount.path / "large/2").stat().st_size == len(FILES["large/2"])
    assert set(small) <= fault.errnos, (fault.name, small)
    assert set(large) <= fault.errnos, (fault.name, large)


def test_each_fault_has_its_errno_and_passes(mounter: Mounter, remote: Cache, tmp_path: Path) -> None:
    with ExitStack() as stack:
        target = stack.enter_context(nginx(tmp_path / "nginx", remote.root))
        faults = [
            *of_a_network(("127.0.0.1", target.port), stack),
            *of_a_server(stack),
            *beyond_mending(remote.root, tmp_path / "expired", stack),
        ]

        def hold(numbered: tuple[int, Fault]) -> str:
            number, fault = numbered
            options = WITH_PASSWORD + fault.options
            project = new_project(tmp_path / f"project{number}", FILES, fault.url, options)
            mount = project.mount(mounter)
            held_against(fault, mount)
            assert_only_right(project.cache, FILES)
            return mount.umount()

        with ThreadPoolExecutor(len(faults)) as pool:
            logs = list(pool.map(hold, enumerate(faults)))
    for fault, log in zip(faults, logs, strict=True):
        for path in ("small/1", "large/1"):
            line = rf"ERROR .*'{path}': object {md5(FILES[path])} cannot be had from its remotes: far: .*"
            assert re.search(rf"{line}({fault.said})", log), (fault.name, log)
        assert_says_enough(log)


def assert_says_enough(log: str) -> None:
    """No secret, no traceback, and not a line for every try."""
    assert SECRET not in log
    assert "Traceback" not in log
    assert log.count("\n") < 40, log


Verdict = tuple[str, Callable[[bytes], Script], int, str]

ABOUT_OBJECTS: tuple[Verdict, ...] = (
    *((f"403 {n}", lambda data: say("403 Forbidden"), DENIED, "does not let us read") for n in range(5)),
    ("404", lambda data: say("404 Not Found"), WRONG, "is in none of the remotes far"),
    ("410", lambda data: say("410 Gone"), WRONG, "is in none of the remotes far"),
    ("416", lambda data: say("416 Range Not Satisfiable"), WRONG, "does not have that much"),
    ("wrong bytes", lambda data: say("200 OK", data[::-1]), WRONG, "another hash"),
    ("shorter", lambda data: say("200 OK", data[:-1]), WRONG, "another (hash|length)|has .* bytes"),
    ("longer", lambda data: say("200 OK", data + b"!"), WRONG, "another (hash|length)|has .* bytes"),
    ("empty", lambda data: say("200 OK"), WRONG, "another (hash|length)|has .* bytes"),
)


def wrong_range(head: str, data: bytes) -> Script:
    """Another range than the one that was asked for, of the same length."""
    found = re.search(r"(?mi)^range: bytes=(\d+)-(\d+)", head)
    assert found
    first, last = int(found[1]) + 4096, int(found[2]) + 4096
    said = f"Content-Range: bytes {first}-{last}/{len(data) + 4096}\r\n"
    return say("206 Partial Content", data[: last - first + 1], said)


def test_what_is_wrong_with_one_object_costs_nobody_another(mounter: Mounter, tmp_path: Path) -> None:
    files = {f"{name}": filler(30_000, number) for number, (name, *_) in enumerate(ABOUT_OBJECTS)}
    ranges = {"another range": filler(6 << 20, 60), "no more of it": filler(6 << 20, 61)}
    good = {f"good/{number}": filler(10_000, 900 + number) for number in range(20)}
    everything = {**files, **ranges, **good}
    bad = {md5(files[name]): script(files[name]) for name, script, *_ in ABOUT_OBJECTS}
    sound = objects(everything)
    is_bad = True

    def choose(head: str) -> Script:
        found = re.match(r"GET /files/md5/(..)/(\S+) ", head)
        oid = found[1] + found[2] if found else ""
        if is_bad and oid == md5(ranges["another range"]):
            return wrong_range(head, ranges["another range"])
        if is_bad and oid == md5(ranges["no more of it"]):
            return say("416 Range Not Satisfiable")
        return bad[oid] if is_bad and oid in bad else sound(head)

    with raw_server(reset) as server:
        server.choose = choose
        project = new_project(tmp_path / "project", everything, server.url, WITH_PASSWORD)
        mount = project.mount(mounter)
        with ThreadPoolExecutor(8) as pool:
            half = len(good) // 2
            wanted = [*list(good)[:half], *files, *list(good)[half:], *ranges]
            got = dict(
                zip(
                    wanted,
                    pool.map(lambda path: (read, read_piece)[path in ranges](mount.path / path), wanted),
                    strict=True,
                )
            )
        assert {path: got[path] for path in good} == good
        for name, _, code, _ in ABOUT_OBJECTS:
            assert got[name] == code, name
        assert {got[path] for path in ranges} == {WRONG}
        mount.await_kept()
        assert assert_only_right(project.cache, everything) == len(good)
        is_bad = False
        # A remote is not asked again at once for what it does not have, or has sent wrong.
        until(lambda: all(read(mount.path / path) == files[path] for path in files), "all files come right")
        until(lambda: all(read(mount.path / path) == ranges[path] for path in ranges), "large ones, too")
        # Large ones are hashed after they have been read.
        until(lambda: assert_only_right(project.cache, everything) == len(everything), "all are kept")
        log = mount.umount()
    for name, _, _, said in ABOUT_OBJECTS:
        line = rf"(?m)^\S+ ERROR .*'{name}': object {md5(files[name])} .*({said})"
        assert re.search(line, log), (name, log)
    assert re.search("'another range': .*another range of .* than was asked for", log), log
    assert SECRET not in log and "Traceback" not in log


def test_a_remote_that_asks_to_wait_is_heeded(mounter: Mounter, tmp_path: Path) -> None:
    """A second is waited for; longer than a reader may wait is said at once."""
    sound = objects(SMALL)
    with raw_server(say("429 Too Many", b"", "Retry-After: 1\r\n")) as server:
        mount = new_project(tmp_path / "project", SMALL, server.url).mount(mounter)
        with reading(read, mount.path / "small/0") as got:
            until(lambda: server.requests, "a request")
            server.choose = sound
        assert got == [SMALL["small/0"]]
        for number, status in ((1, "429 Too Many"), (2, "503 Busy")):
            server.script, server.choose = say(status, b"", "Retry-After: 100000\r\n"), None
            server.requests.clear()
            before = asked_again(mount)
            assert read(mount.path / f"small/{number}") == SLOW
            assert read(mount.path / f"small/{number + 2}") == SLOW
            assert len(server.requests) <= 1 + asked_again(mount) - before, "it is left alone"
        assert read(mount.path / "small/0") == SMALL["small/0"]
        log = mount.umount()
    assert re.search(r"'small/1': .*far: remote far asks us to wait \(status 429\)", log)


def test_a_denial_is_told_and_not_remembered_for_long(mounter: Mounter, tmp_path: Path) -> None:
    with raw_server(say("403 Forbidden")) as server:
        project = new_project(tmp_path / "project", SMALL, server.url, WITH_PASSWORD)
        mount = project.mount(mounter)
        assert read(mount.path / "small/0") == DENIED
        assert read(mount.path / "small/1") == DENIED
        # Credentials may have been put right: each time, and in native mode the kernel asks twice.
        most = 2 * 2 * (2 if mounter.mode == "native" else 1)
        assert 0 < len(server.requests) <= most + asked_again(mount)
        server.choose = objects(SMALL)
        until(lambda: read(mount.path / "small/0") == SMALL["small/0"], "the remote is asked again")
        log = mount.umount()
    assert re.search("'small/0': .*far: remote far does not let us read .* status 403", log)
    assert_says_enough(log)


def test_a_large_object_of_wrong_bytes_is_found_out_when_it_is_whole(
    mounter: Mounter, tmp_path: Path
) -> None:
    """Ranges can be held against length and state only. What was served meanwhile leaves the kernel's pages
    when the whole turns out to be wrong, and nothing more is served that has not been hashed."""
    name, data = "large/0", LARGE["large/0"]
    files = {name: data}
    liar = dict.fromkeys(files, data[::-1])
    contents = objects(liar)

    def choose(head: str) -> Script:
        return contents(head.replace(f"/{md5(data)[:2]}/{md5(data)[2:]} ", path_of(data[::-1])))

    def path_of(other: bytes) -> str:
        return f"/{md5(other)[:2]}/{md5(other)[2:]} "

    with raw_server(reset) as server:
        server.choose = choose
        whole = new_project(tmp_path / "whole", files, server.url)
        mount = whole.mount(mounter, "--verify", "whole")
        assert read_piece(mount.path / name) == WRONG
        server.choose = objects(files)
        until(lambda: read(mount.path / name) == data, "it is fetched anew")
        mount.umount()
        server.choose = choose
        blocks: Lazy = new_project(tmp_path / "blocks", files, server.url)
        mount = blocks.mount(mounter)
        read(mount.path / name)
        until(lambda: read(mount.path / name) == WRONG, "it is found out")
        assert assert_only_right(blocks.cache, files) == 0
        server.choose = objects(files)
        until(lambda: read(mount.path / name) == data, "it is fetched anew")
        until(blocks.cache.place(md5(data)).exists, "it is the cache's")
        log = mount.umount()
        assert assert_only_right(blocks.cache, files) == 1
    assert re.search(f"ERROR .*object {md5(data)} came with bytes that are not its own", log), log


def test_a_server_that_is_nobody_is_one_line(mounter: Mounter, tmp_path: Path) -> None:
    """A port where nobody listens, with the remote's name, in a log without a traceback."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        project = new_project(tmp_path / "project", SMALL, url, QUICK)
        project.cache.remove(project.oid)
        refused = mounter.refuse("data.dvc", cwd=project.root)
    assert "remote far cannot be reached: connection refused" in refused
