"""Logs are read as they were written, or not at all."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.oid import MD5_DOS2UNIX, Oid
from store.oplog.logs import Log, LogName, Record, format_oid, parse_oid, read_log, seal, write_log

NAME = LogName("end", "1" * 32, "2" * 16, "3" * 32)
RECORDS = (
    Record("PUT", "files/md5/ab/c", "md5:" + "ab" * 16, 20_000),
    Record("DELETE", "x y\u00e9\udc80"[:4], "md5:" + "cd" * 16),
    Record("GET", "files/md5/ab/c"),
)

paths = st.text(min_size=1, max_size=20).filter(
    lambda path: not path.startswith("/") and "\0" not in path and path.isprintable()
)
records = st.builds(
    Record,
    st.sampled_from(["GET", "PUT", "DELETE", "HAS"]),
    paths,
    st.just("") | st.just("md5:" + "0f" * 16),
    st.integers(-1, 1 << 60),
)


@given(st.lists(records, max_size=20), st.lists(st.integers(0, 1 << 127).map("{:032x}".format), max_size=5))
def test_what_was_written_is_read(listed: list[Record], after: list[str]) -> None:
    log = Log(NAME, tuple(after), listed)
    again = read_log(NAME, write_log(log))
    assert (again.after, list(again.records), again.fault) == (tuple(after), listed, "")


@pytest.mark.parametrize("kind", ["begin", "end", "base"])
def test_names(kind: str) -> None:
    name = LogName(kind, "a" * 32, "b" * 16, "c" * 32)  # type: ignore[arg-type]
    assert LogName.parse(str(name)) == name
    for wrong in (f"x{name}", f"{name}x", str(name).replace("==", "="), str(name).upper(), "", "begin==.log"):
        assert LogName.parse(wrong) is None


def test_a_torn_log_is_not_believed() -> None:
    data = write_log(Log(NAME, (), RECORDS))
    for length in range(len(data)):
        log = read_log(NAME, data[:length])
        assert log.fault
        assert not log.records


def test_a_log_that_was_changed_is_not_believed() -> None:
    data = write_log(Log(NAME, ("4" * 32,), RECORDS))
    order = random.Random(1)
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] ^= 1 << order.randrange(8)
        log = read_log(NAME, bytes(changed))
        assert log.fault, place
        assert not log.records


def test_lines_that_are_missing_or_come_twice_are_noticed() -> None:
    lines = write_log(Log(NAME, (), RECORDS)).splitlines(keepends=True)
    for place in range(len(lines)):
        assert read_log(NAME, b"".join(lines[:place] + lines[place + 1 :])).fault
        assert read_log(NAME, b"".join(lines[: place + 1] + lines[place:])).fault


def test_a_newer_format_is_said_to_be() -> None:
    data = write_log(Log(NAME))
    head = data.splitlines()[0]
    newer = seal(head[: -len(b',"xxh3":"0123456789abcdef"}')].replace(b'"log":1', b'"log":2') + b"}")
    assert "newer fusefs" in read_log(NAME, data.replace(head, newer)).fault


def test_another_log_of_the_same_remote_does_not_pass_for_this_one() -> None:
    other = LogName("end", "1" * 32, "2" * 16, "4" * 32)
    assert "says that it is" in read_log(other, write_log(Log(NAME))).fault


def test_paths_stay_in_the_remote() -> None:
    assert "no path" in read_log(NAME, write_log(Log(NAME, (), (Record("PUT", "/etc/passwd"),)))).fault


def test_oids() -> None:
    for oid in (Oid("ab" * 16), Oid("ab" * 16, is_tree=True), Oid("ab" * 16, algorithm=MD5_DOS2UNIX)):
        assert parse_oid(format_oid(oid)) == oid
    for wrong in ("", "md5", "md5:xyz", "sha1:" + "ab" * 20, "ab" * 16):
        assert parse_oid(wrong) is None
