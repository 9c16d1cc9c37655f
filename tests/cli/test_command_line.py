"""The command line itself: help, version, usage, option tables; no mount is made here."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fusefs.cli import COMMANDS, parse_arguments
from fusefs.mount_options import (
    FLAGS,
    MountOptions,
    parse_option_strings,
    parse_size,
    read_options,
    split_options,
)
from store.errors import InputError
from tests.conftest import SECONDS, Fusefs


def test_help_names_every_command(fusefs: Fusefs) -> None:
    shown = fusefs("--help", check=True).stdout
    listed = [line.split()[0] for line in shown.splitlines() if line.startswith("    ") and line[4:5].strip()]
    assert listed == list(COMMANDS)
    assert "examples:" in shown


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_has_help_with_examples(fusefs: Fusefs, name: str) -> None:
    shown = fusefs(name, "--help", check=True).stdout
    assert f"fusefs {name}" in shown


def test_version(fusefs: Fusefs) -> None:
    assert fusefs("--version", check=True).stdout.startswith("fusefs ")


@pytest.mark.parametrize(
    "words", [[], ["bogus"], ["mount", "one"], ["umount"], ["mount", "--umask=9", "a", "b"]]
)
def test_wrong_usage_is_2(fusefs: Fusefs, words: list[str]) -> None:
    done = fusefs(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert "usage: fusefs" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "words", [["-l", "one", "two"], ["one", "-l", "two"], ["one", "two", "-l"]], ids=" ".join
)
def test_flags_may_stand_anywhere(words: list[str]) -> None:
    options = parse_arguments(["ls", *words])
    assert (options.command, options.target, options.path, options.long) == ("ls", "one", "two", True)


def test_nothing_behind_two_dashes_is_a_flag() -> None:
    options = parse_arguments(["switch", "--json", "--", "-place", "-rev"])
    assert (options.mountpoint, options.rev, options.json) == ("-place", "-rev", True)


def test_a_reader_that_has_enough_is_no_error(fusefs: Fusefs) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        fusefs.command("list", "--json"),
        env=fusefs.environment,
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    os.close(writer)
    assert done.stderr == ""


EARLY = """
import signal, sys
from fusefs import cli
cli._load = lambda name: signal.raise_signal(signal.SIGINT)
sys.exit(cli.main(["list"]))
"""


def test_an_interrupt_at_the_very_beginning_says_nothing(fusefs: Fusefs) -> None:
    done = subprocess.run(
        [sys.executable, "-c", EARLY],
        env=fusefs.environment,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (128 + signal.SIGINT, "", "")


def test_native_mode_is_refused(fusefs: Fusefs) -> None:
    done = fusefs("mount", "--mode=native", "a.dvc", "b")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "native" in done.stderr


def test_nothing_is_mounted(fusefs: Fusefs) -> None:
    # In a mount namespace of its own, without the mounts that this machine may have.
    forget = (
        "import subprocess; from fusefs.mountinfo import read_mounts\n"
        "for mount in reversed([mount for mount in read_mounts() if mount.is_ours]):\n"
        "    subprocess.run(['umount', '--lazy', mount.mountpoint])"
    )
    script = 'forget=$1; shift; "$0" -c "$forget"; "$@" status; "$@" list --json'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-ec", script, sys.executable, forget, *fusefs.command()],
        env=fusefs.environment,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=True,
    )
    assert done.stdout == "nothing is mounted\n[]\n"


def test_every_flag_is_an_option() -> None:
    values = {
        "mode": "fuse",
        "uid": "1",
        "gid": "2",
        "umask": "077",
        "read_ahead": "4M",
        "cache": "/c",
        "rev": "v1",
        "repo": "/r",
        "revs": "v*",
        "view": "shards:1000",
        "remote": "near",
        "verify": "whole",
        "cache_size": "1G",
        "cache_free": "1G",
        "metrics": "9000",
        "order": "/o",
        "prefetch": "no",
        "pin": "no",
        "log": "/l",
    }
    for flag in FLAGS:
        for name in (flag.field, flag.name):
            given = name if flag.parse is None else f"{name}={values[flag.field]}"
            assert flag.field in parse_option_strings([given])
    options = MountOptions(**parse_option_strings(["uid=1,gid=2,umask=077", "read-ahead=4M,allow_other"]))
    assert (options.uid, options.gid, options.umask) == (1, 2, 0o077)
    assert (options.read_ahead, options.allow_other) == (4 << 20, True)


def test_remotes_may_be_repeated_and_paths_are_made_absolute(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    found = parse_option_strings([r"remote=near,remote=./far", r"remote=s3://a\,b/c"])
    assert found == {"remote": ("near", str(tmp_path / "far"), "s3://a,b/c")}
    parsed = parse_arguments(["mount", "--remote", "a", "--remote=../b", "-o", "remote=c", "data", "/mnt"])
    assert read_options(vars(parsed)).remote == ("a", str(tmp_path / "../b"))
    for wrong in ("remote=", "verify=always", "offline=yes"):
        with pytest.raises(InputError):
            parse_option_strings([wrong])


def test_generic_options_are_accepted() -> None:
    generic = "rw,ro,nofail,_netdev,auto,noauto,owner,group,dev,nodev,suid,nosuid,exec,atime,noatime,relatime"
    assert parse_option_strings([generic + ",defaults,x-systemd.automount,X-mount.mkdir,comment=any"]) == {
        "noexec": False
    }
    assert parse_option_strings(["users"]) == {"noexec": True}
    assert parse_option_strings(["users,exec"]) == {"noexec": False}


def test_options_are_split_at_commas_that_are_not_escaped() -> None:
    assert split_options(r"a=1,,b=x\,y\\,c") == ["a=1", "b=x,y\\", "c"]
    assert split_options("") == []


@pytest.mark.parametrize(
    "given", ["nonsense", "uid=nobody-of-that-name", "read_ahead=x", "mode=fast", "uid=-1", "cache="]
)
def test_bad_options_are_input_errors(given: str) -> None:
    with pytest.raises(InputError, match=given.split("=")[0]):
        parse_option_strings([given])


@pytest.mark.parametrize(
    ("text", "size"), [("0", 0), ("512k", 512 << 10), ("1M", 1 << 20), ("1GiB", 1 << 30)]
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "-1", "1T", "2G", "1.5M", "٣"])
def test_what_is_not_a_size(text: str) -> None:
    with pytest.raises(ValueError, match=r"size|more than"):
        parse_size(text)
