"""What a worker may do, and what becomes of one that crashes, hangs, or eats all memory."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgpack
import pytest
import trio

from store.errors import MediaFailed, MediaInvalid, RemoteUnreachable
from store.making import failures, wire, workers
from store.making.started_worker import FRAME_MAKERS, StartedWorkers
from tests.store.conftest import LONG
from tests.store.making.bad_makers import word
from tests.store.making.origins import FarOrigin, FileOrigin, Task, maker_at, settled, task_of


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "source.bin"
    path.write_bytes(os.urandom(90_000))
    return path


def children() -> set[int]:
    """Processes that this one has started, zombies among them."""
    return {int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()}


@pytest.mark.parametrize("maker", ["crash", "hang", "devour", "raise_bug"])
def test_what_was_made_before_a_worker_fails_is_there_and_the_rest_is_an_error(
    tmp_path: Path, file: Path, maker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    note = workers.WorkerProcess._note

    def be_hasty(self: workers.WorkerProcess, flight: Any, kind: int, *said: Any) -> bool:
        if maker == "hang" and flight.task.maker == maker:
            self._deadline = 0.5  # not before its first piece: to begin takes as long as the machine likes
        return note(self, flight, kind, *said)

    monkeypatch.setattr(workers.WorkerProcess, "_note", be_hasty)

    async def main() -> None:
        async with maker_at(tmp_path / "cache") as made:
            broken = task_of(maker, file)
            assert await made.piece(broken, 0) == word(0)
            with pytest.raises(MediaFailed, match=r"source\.bin"):
                await made.piece(broken, 2)
            # Nobody else suffers, and the piece that is there stays.
            assert await made.piece(task_of("words", file), 2) == word(2)
            assert await made.piece(broken, 0) == word(0)

    before = children()
    trio.run(main)
    assert children() <= before


def test_a_failure_is_remembered_but_not_for_long(
    tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        monkeypatch.setattr(failures, "SECONDS", LONG)
        async with maker_at(tmp_path / "cache") as made:
            for _ in range(200):
                with pytest.raises(MediaFailed):
                    await made.piece(task_of("crash", file), 1)
            tried = len(started)
            monkeypatch.setattr(failures, "SECONDS", 0.0)
            made._failures = failures.Failures()  # what was noted has its time already
            with pytest.raises(MediaFailed):
                await made.piece(task_of("crash", file), 1)
            assert len(started) > tried

    started: list[int] = []
    begin = workers.WorkerProcess.__init__

    def count(self: workers.WorkerProcess, *arguments: Any) -> None:
        started.append(1)
        begin(self, *arguments)

    monkeypatch.setattr(workers.WorkerProcess, "__init__", count)
    trio.run(main)
    assert len(started) == 2


def test_workers_that_die_of_one_origin_again_and_again_are_not_tried_with_all_of_it(
    tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failures, "STRUCK_SECONDS", LONG)
    other = file.with_name("other.bin")
    other.write_bytes(b"other")

    async def main() -> None:
        async with maker_at(tmp_path / "cache") as made:
            for chunk in range(failures.STRIKES):
                with pytest.raises(MediaFailed):
                    await made.piece(task_of("crash", file, chunk=chunk), 1)
            with pytest.raises(MediaFailed, match="crash"):
                await made.piece(task_of("words", file, chunk=9), 0)
            assert await made.piece(task_of("words", other), 0) == word(0)

    trio.run(main)


def test_a_worker_can_do_nothing_but_its_work(tmp_path: Path, file: Path) -> None:
    target = tmp_path / "target"

    async def main() -> None:
        async with maker_at(tmp_path / "cache") as made:
            os.environ["FUSEFS_TEST_SECRET"] = "a password"
            told = await made.piece(task_of("escape", file, pieces=1, target=str(target)), 0)
            done, environment, files, _ = msgpack.unpackb(told)
            assert done == []
            assert "FUSEFS_TEST_SECRET" not in environment
            assert files < 10

    try:
        trio.run(main)
    finally:
        os.environ.pop("FUSEFS_TEST_SECRET", None)
    assert not target.exists()


def test_a_worker_ends_with_the_process_that_started_it() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    # The parent dies and leaves the socket open: only the kernel's word is left.
    code = (
        "import os, subprocess, sys\n"
        "command = [sys.executable, '-P', '-m', 'store.making.worker', str(os.getpid()), '1']\n"
        "worker = subprocess.Popen(command, stdin=int(sys.argv[1]), stdout=subprocess.DEVNULL)\n"
        "print(worker.pid, flush=True)\n"
        "sys.stdin.read()\n"
    )
    with ours, theirs:
        parent = subprocess.Popen(
            [sys.executable, "-c", code, str(theirs.fileno())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=[theirs.fileno()],
        )
        with parent:
            assert parent.stdout is not None
            worker = int(parent.stdout.readline())
            watched = os.pidfd_open(worker)
            parent.kill()
        poll = select.poll()
        poll.register(watched)
        assert poll.poll(60_000)
        os.close(watched)


def test_workers_that_were_started_before_are_taken_first_and_the_rest_end(
    tmp_path: Path, file: Path
) -> None:
    async def main() -> None:
        with StartedWorkers(2, FRAME_MAKERS) as started:
            there = children() - before
            assert len(there) == 2
            async with maker_at(tmp_path / "cache", started=started) as made:
                await made.product(task_of("words", file))
                assert children() - before == there
        assert children() <= before

    before = children()
    trio.run(main)


def test_one_that_died_before_its_first_task_costs_no_product(tmp_path: Path, file: Path) -> None:
    async def main() -> None:
        with StartedWorkers(1, ["there.is.no.such.module"]) as started:
            async with maker_at(tmp_path / "cache", started=started) as made:
                product = await made.product(task_of("words", file))
                assert product.is_whole
                assert started.take() is None

    trio.run(main)


def test_who_waits_for_all_is_told_of_many_pieces_at_once(
    tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[int] = []
    note = workers.WorkerProcess._note

    def count(self: workers.WorkerProcess, flight: Any, kind: int, *said: Any) -> bool:
        if kind == wire.PIECES:
            told.append(len(said))
        return note(self, flight, kind, *said)

    async def main() -> None:
        async with maker_at(tmp_path / "cache") as made:
            many = task_of("words", file, pieces=500)
            assert await made.piece(many, 499) == word(499)
            await settled(made)
            assert told == [1] * 500
            told.clear()
            product = await made.product(task_of("words", file, pieces=500, chunk=1))
            assert product.is_whole
            assert sum(told) == 500 and len(told) < 250

    monkeypatch.setattr(workers.WorkerProcess, "_note", count)
    trio.run(main)


def test_what_was_made_before_an_error_is_told_of_with_it(tmp_path: Path, file: Path) -> None:
    async def main() -> None:
        async with maker_at(tmp_path / "cache") as made:
            broken = task_of("raise_bug", file)
            with pytest.raises(MediaFailed, match="a bug"):
                await made.product(broken)
            assert await made.piece(broken, 0) == word(0)

    trio.run(main)


def test_idle_workers_end(tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "IDLE_SECONDS", 0.2)

    async def main() -> None:
        before = children()
        async with maker_at(tmp_path / "cache") as made:
            await made.piece(task_of("words", file), 0)
            while children() - before:
                await trio.sleep(0.02)
            assert await made.piece(task_of("words", file, chunk=1), 0) == word(0)

    trio.run(main)


def test_no_process_to_be_had_is_an_error(
    tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")

    async def main() -> None:
        async with maker_at(tmp_path / "cache") as made:
            with pytest.raises(MediaFailed, match="no process can be started"):
                await made.piece(task_of("words", file), 0)

    trio.run(main)


def test_a_worker_that_says_more_than_it_should_is_ended(tmp_path: Path, file: Path) -> None:
    async def main() -> None:
        async with maker_at(tmp_path / "cache") as made:
            task = task_of("flood", file, pieces=2)
            assert (await made.product(task)).sizes == [len(word(0)), len(word(1))]
            with pytest.raises(MediaInvalid, match="no number 2"):
                await made.piece(task, 2)
            assert await made.piece(task_of("words", file), 0) == word(0)

    trio.run(main)


def test_a_worker_may_say_more_than_anybody_listens_to(tmp_path: Path, file: Path) -> None:
    async def main() -> None:
        async with maker_at(tmp_path / "cache") as made:
            assert await made.piece(task_of("chatter", file, pieces=1), 0) == word(0)

    trio.run(main)


def test_local_files_and_far_ones_give_the_same(tmp_path: Path, file: Path) -> None:
    async def main() -> None:
        async with maker_at(tmp_path / "cache") as made:
            far = FarOrigin(os.urandom(2 * wire.LARGEST_READ + 1))
            for origin, content in ((FileOrigin(file), file.read_bytes()), (far, far.data)):
                task = Task("copy", "1", "", (origin,), 0, {"pieces": 1}, 1)
                assert await made.piece(task, 0) == content
            assert far.read_bytes == [len(far.data)]

    trio.run(main)


def test_what_a_source_fails_of_is_told_and_not_kept(
    tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failures, "SECONDS", 0.0)

    async def main() -> None:
        async with maker_at(tmp_path / "cache") as made:
            far = FarOrigin(file.read_bytes(), fails_after=[40_000])
            task = Task("copy", "1", "", (far,), 0, {"pieces": 3}, 3)
            assert await made.piece(task, 0) == far.data[:30_000]
            with pytest.raises(RemoteUnreachable, match="out of reach"):
                await made.piece(task, 2)
            assert far.closed
            far.fails_after[0] = 1 << 40
            assert await made.piece(task, 2) == far.data[60_000:]

    trio.run(main)


def test_a_damaged_piece_is_refused_and_its_neighbours_are_good(tmp_path: Path, file: Path) -> None:
    async def main() -> None:
        task = task_of("refuse", file)
        for _ in range(2):  # made, then as it is kept
            async with maker_at(tmp_path / "cache") as made:
                product = await made.product(task)
                assert product.sizes == [len(word(0)), -1, len(word(2))]
                assert await made.piece(task, 2) == word(2)
                with pytest.raises(MediaInvalid, match="piece 1 is damaged"):
                    await made.piece(task, 1)

    trio.run(main)


def test_a_worker_that_died_while_it_was_idle_costs_no_product(tmp_path: Path, file: Path) -> None:
    """Killed for want of memory, say. Nobody who asks next is to blame."""

    async def main() -> None:
        async with maker_at(tmp_path / "cache") as made:
            for chunk in range(3):
                task = task_of("words", file, chunk=chunk)
                assert await made.piece(task, 1) == word(1)
                await settled(made)
                (worker,) = made._workers._idle
                os.kill(worker._process.pid, signal.SIGKILL)

    trio.run(main)


def test_no_worker_is_started_when_all_is_over(tmp_path: Path, file: Path) -> None:
    """The one that is ended with the maker has not answered yet, and looks as if it had died before."""

    async def main() -> None:
        before = children()
        async with maker_at(tmp_path / "cache") as made:
            await made.product(task_of("words", file))
            await settled(made)

            async def fail() -> None:
                with pytest.raises(MediaFailed):
                    await made.product(task_of("slow", file, chunk=1, seconds=5.0))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(fail)
                while not made._workers._busy:
                    await trio.sleep(0.01)
                made.close()
            assert not made._workers._busy
            assert not made._workers._idle
        assert children() <= before

    trio.run(main)


def test_a_worker_that_is_closed_before_it_begins_touches_no_descriptor_of_others(
    tmp_path: Path, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A mount may end between the moment when a worker is chosen and the one when it is given its task."""

    async def main() -> None:
        async with maker_at(tmp_path / "cache") as made:
            outcomes: list[BaseException] = []

            async def ask() -> None:
                try:
                    await made.piece(task_of("words", file), 0)
                except MediaFailed as error:
                    outcomes.append(error)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask)
                while not made._workers._busy:
                    await trio.lowlevel.cancel_shielded_checkpoint()
                (worker,) = made._workers._busy
                made._workers.close()
                others = os.eventfd(0)  # takes the lowest number, which may be one that was let go of
                worker.stop()
            assert len(outcomes) == 1
            assert select.select([others], [], [], 0)[0] == []
            os.close(others)

    trio.run(main)
    assert "Traceback" not in caplog.text
