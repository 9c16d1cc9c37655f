"""`fusefs run`: the command is as it would be without us, and nothing is left behind."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.conftest import SECONDS, Fusefs, SmallDataset
from tests.process.conftest import LEAVE_OTHERS, NOBODY, User, list_daemons

pytestmark = [pytest.mark.fuse, pytest.mark.root]
BOTH_MODES = pytest.mark.modes("fuse", "native")

# As root; as a user; as a user who gets no user namespace (the kernel refuses one in a chroot).
REFUSE = ["unshare", "--mount", "sh", "-ec", f'{LEAVE_OTHERS}; mount --rbind / "$0"; exec chroot "$0" "$@"']
Runner = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(params=["root", "user", "refused"])
def who(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def command(user: User, who: str, mode: str) -> Callable[..., list[str]]:
    """The command line of `fusefs run [OPTIONS] DATASET -- COMMAND` for `who`."""
    if mode == "native" and who == "refused":
        pytest.skip("there is no native mode without a namespace")

    def build(*words: str, options: Sequence[str] = ()) -> list[str]:
        target = ["--mode", mode, *options, "--cache", str(user.dataset.cache), user.dataset.oid]
        line = list(user.fusefs.command("run", *target, "--", *words))
        if who == "root":
            return line
        line = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--groups=65534,44", *line]
        if who == "refused":
            new_root = user.mountpoint.with_name("root")
            new_root.mkdir(exist_ok=True)
            line = [*REFUSE, str(new_root), *line]
        return line

    return build


@pytest.fixture
def run(user: User, command: Callable[..., list[str]]) -> Runner:
    def run_it(*words: str, options: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command(*words, options=options),
            env=user.fusefs.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )

    return run_it


@pytest.fixture(autouse=True)
def nothing_left(user: User) -> Iterator[None]:
    """No daemon and no directory is left, whatever a test does to a run."""
    yield
    temporary = Path(user.fusefs.environment["TMPDIR"])
    assert list_daemons(temporary) == []
    assert list(temporary.iterdir()) == []
    assert str(temporary) not in Path("/proc/self/mountinfo").read_text(errors="surrogateescape")


@BOTH_MODES
def test_the_command_finds_the_mount(run: Runner, user: User, who: str) -> None:
    done = run("sh", "-c", 'echo "$FUSEFS_MOUNT"; echo "<{}>"; cd "$FUSEFS_MOUNT" && cat a/0.txt')
    mountpoint, inserted, content = done.stdout.split("\n", 2)
    assert inserted == f"<{mountpoint}>"
    assert content == user.dataset.files["a/0.txt"].decode()
    if who == "refused":
        assert re.fullmatch(
            rf"fusefs: no private mount namespace \(.*\): mounted on {mountpoint}.*\n", done.stderr
        )
    else:
        assert done.stderr == ""


@BOTH_MODES
def test_ids_and_capabilities_are_kept(run: Runner, who: str) -> None:
    show = ["sh", "-c", "id -u; id -g; id -G; grep -E '^Cap(Prm|Eff|Amb)' /proc/self/status"]
    done = run(*show)
    assert done.stderr == "" or who == "refused"
    uid, gid, groups, *capabilities = done.stdout.splitlines()
    expected = 0 if who == "root" else NOBODY
    assert (int(uid), int(gid)) == (expected, expected)
    if who == "refused":
        assert groups == f"{NOBODY} 44"
    if who != "root":
        assert {int(line.split()[1], 16) for line in capabilities} == {0}


@BOTH_MODES
def test_supplementary_groups_still_open_doors(run: Runner, user: User) -> None:
    door = user.mountpoint.with_name("door")
    door.write_text("open")
    os.chown(door, 0, 44)
    door.chmod(0o040)
    assert run("cat", str(door)).stdout == "open"


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["true"], 0),
        (["sh", "-c", "exit 7"], 7),
        (["sh", "-c", "kill -KILL $$"], 137),
        (["sh", "-c", "kill -TERM $$"], 143),
        (["/nowhere/to/be/found"], 127),
        (["/etc/passwd"], 126),
        (["no-such-command-at-all"], 127),
    ],
)
@pytest.mark.parametrize("who", ["user"], indirect=True)
def test_exit_status(run: Runner, words: list[str], status: int) -> None:
    assert run(*words).returncode == status


def test_signal_dispositions_are_as_a_shell_has_them(run: Runner) -> None:
    shown = run("grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status").stdout
    plain = subprocess.run(
        ["grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"],
        capture_output=True,
        text=True,
        check=True,
        timeout=SECONDS,
    ).stdout
    assert shown == plain


def test_our_own_failure_is_125(fusefs: Fusefs, tmp_path: Path) -> None:
    done = fusefs("run", tmp_path / "nothing.dvc", "--", "true")
    assert (done.returncode, done.stderr.count("\n")) == (125, 1)
    assert fusefs("run", "some.dvc").returncode == 2


@BOTH_MODES
def test_a_daemon_that_fails_fails_the_run(user: User, mode: str) -> None:
    broken = user.mountpoint.with_name("broken") / "trio"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise RuntimeError('trio is broken')")
    environment = dict(user.fusefs.environment)
    environment["PYTHONPATH"] += f":{broken.parent}"
    done = Fusefs(environment, user.mountpoint, mode)(
        "run", "--cache", user.dataset.cache, user.dataset.oid, "--", "true"
    )
    assert (done.returncode, done.stderr.count("\n")) == (125, 1)
    assert "trio is broken" in done.stderr


@contextlib.contextmanager
def started(line: Sequence[str], user: User) -> Iterator[subprocess.Popen[str]]:
    """A run whose command has printed its first line."""
    with subprocess.Popen(
        line, env=user.fusefs.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        yield process


@BOTH_MODES
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGINT])
@pytest.mark.parametrize("who", ["root", "user"], indirect=True)
def test_signals_are_passed_on(command: Callable[..., list[str]], user: User, number: signal.Signals) -> None:
    script = "import signal, sys\nprint('started', flush=True)\nsys.exit(signal.sigwait([int(sys.argv[1])]))"
    block = "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, [int(__import__('sys').argv[1])])\n"
    line = command(sys.executable, "-c", block + script, str(int(number)))
    with started(line, user) as process:
        process.send_signal(number)
        assert process.wait(SECONDS) == number


@BOTH_MODES
def test_killing_the_runner_ends_everything(command: Callable[..., list[str]], user: User) -> None:
    with started(command("sh", "-c", "echo started; exec sleep 1000"), user) as process:
        assert process.stdout is not None
        temporary = Path(user.fusefs.environment["TMPDIR"])
        (daemon,) = list_daemons(temporary)
        fd = os.pidfd_open(daemon)
        process.kill()
        assert process.stdout.read() == ""  # the command held the pipe, and is gone
        assert select.select([fd], [], [], SECONDS)[0]
        os.close(fd)


OUTLIVE = """
set -e
cat "$FUSEFS_MOUNT/a/0.txt" > /dev/null
kill -KILL "$(sed -n 's/.*"pid": \\([0-9]*\\).*/\\1/p' "$FUSEFS_MOUNT/.fusefs/status")"
cat "$FUSEFS_MOUNT/b/1.txt"
sed -n 's/ *"restarts": //p' "$FUSEFS_MOUNT/.fusefs/status"
"""


@BOTH_MODES
@pytest.mark.parametrize("who", ["user"])
def test_a_mount_for_one_command_outlives_its_daemon(run: Runner, user: User) -> None:
    done = run("sh", "-c", OUTLIVE)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == user.dataset.files["b/1.txt"].decode() + "1,\n"


@BOTH_MODES
def test_a_command_that_leaves_a_child_in_the_mount(run: Runner) -> None:
    script = 'cd "$FUSEFS_MOUNT"; sleep 1000 >/dev/null 2>&1 & echo $!'
    done = run("sh", "-c", script)
    os.kill(int(done.stdout), signal.SIGKILL)
    assert done.returncode == 0


@BOTH_MODES
def test_the_mount_is_not_seen_by_others(command: Callable[..., list[str]], user: User, who: str) -> None:
    with started(command("sh", "-c", "echo started; cat"), user) as process:
        temporary = str(user.fusefs.environment["TMPDIR"])
        assert temporary not in Path("/proc/self/mountinfo").read_text(errors="surrogateescape")
        (directory,) = Path(temporary).iterdir()
        assert list(directory.iterdir()) == []
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(SECONDS) == 0


@BOTH_MODES
def test_the_terminal_interrupts_the_command_once(fusefs: Fusefs, dataset: SmallDataset) -> None:
    script = """
import signal, sys, os
seen = 0
def count(number, frame):
    global seen
    seen += 1
signal.signal(signal.SIGINT, count)
print("started", os.tcgetpgrp(0) == os.getpgrp(), flush=True)
sys.stdin.readline()
print("seen", seen, flush=True)
"""
    line = fusefs.command("run", "--cache", dataset.cache, dataset.oid, "--", sys.executable, "-c", script)
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(line[0], list(line), dict(fusefs.environment))
    output = b""

    def read_until(word: bytes) -> None:
        nonlocal output
        while word not in output:
            assert select.select([terminal], [], [], SECONDS)[0], output
            output += os.read(terminal, 4096)

    read_until(b"started True")
    os.write(terminal, b"\x03")
    read_until(b"^C")
    os.write(terminal, b"\n")
    read_until(b"seen 1")
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 0
