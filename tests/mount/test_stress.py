"""Thirty-two processes at once, while objects are taken away and put back: bytes or EIO, never wrong."""

from __future__ import annotations

import contextlib
import json
import os
import random
import secrets
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.mount.datasets import Cache, filler, md5, write_folder
from tests.mount.mounts import Mount, Mounter
from tests.patience import until

pytestmark = [pytest.mark.fuse, pytest.mark.modes("fuse", "native")]

READERS = 32
STEPS = int(os.environ.get("FUSEFS_STRESS_STEPS", "60"))
SECONDS = float(os.environ.get("FUSEFS_STRESS_SECONDS", "80"))
PAUSE = 0.002
"""Seconds between two changes of the cache, so that the readers get the processors."""

FILES = {
    **{f"always/{number % 5}/{number}": filler(1 + number * 2503, number) for number in range(60)},
    **{f"sometimes/{number % 5}/{number}": filler(1 + number * 2503, 100 + number) for number in range(60)},
    **{f"never/{number}": filler(1 + number, 200 + number) for number in range(10)},
}


def test_many_readers_while_objects_come_and_go(mounter: Mounter) -> None:
    seed = int(os.environ.get("FUSEFS_STRESS_SEED", secrets.randbits(32)))
    print(f"seed {seed}: FUSEFS_STRESS_SEED={seed} repeats what the readers do")
    order = random.Random(seed)
    cache, plain = Cache(mounter.home / "objects"), mounter.home / "plain"
    oid = cache.put_dataset(FILES)
    write_folder(plain, FILES)
    for path, data in FILES.items():
        if path.startswith("never"):
            cache.remove(md5(data))
    mount = mounter.mount(oid, "--cache", cache.root, "--no-pin")

    changing = [data for path, data in FILES.items() if path.startswith("sometimes")]
    readers = [start_reader(mount.path, plain, f"{seed}-{number}") for number in range(READERS)]
    try:
        change_until_ended(cache, changing, readers, order)
        answered = [finish(reader) for reader in readers]
    finally:
        for reader in readers:
            reader.kill()
            reader.wait()
    assert sum(a["bytes"] for a in answered) > READERS
    assert sum(a["EIO"] for a in answered) > 0

    for data in changing:
        cache.put(data)
    for path, data in FILES.items():
        if not path.startswith("never"):
            assert (mount.path / path).read_bytes() == data
    status = mount.status()
    assert status["errors"] == status["misses"] > 0
    until(lambda: not open_objects(mount, cache))  # the kernel closes in its own time
    assert "Traceback" not in mount.umount()


def open_objects(mount: Mount, cache: Cache) -> list[str]:
    """The objects that the daemon holds open."""
    held = []
    for entry in Path(f"/proc/{mount.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # it was closed meanwhile
            held.append(os.readlink(entry))
    return [path for path in held if path.startswith(f"{cache.root}/")]


def start_reader(mount: Path, plain: Path, seed: str) -> subprocess.Popen[str]:
    program = Path(__file__).with_name("reader.py")
    return subprocess.Popen(
        [sys.executable, "-I", "-S", program, mount, plain, seed, str(STEPS)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def change_until_ended(
    cache: Cache, changing: list[bytes], readers: list[subprocess.Popen[str]], order: random.Random
) -> None:
    """Take objects away and put them back until the last reader has ended."""
    deadline = time.monotonic() + SECONDS
    ends = {reader.pid: os.pidfd_open(reader.pid) for reader in readers}
    waiting = set(ends.values())
    try:
        while waiting:
            assert time.monotonic() < deadline, f"{len(waiting)} readers go on"
            waiting -= set(select.select(list(waiting), [], [], PAUSE)[0])
            data = order.choice(changing)
            if cache.place(md5(data)).exists():
                cache.remove(md5(data))
            else:
                cache.put(data)
    finally:
        for end in ends.values():
            os.close(end)


def finish(reader: subprocess.Popen[str]) -> dict[str, int]:
    output, errors = reader.communicate(timeout=SECONDS)
    assert reader.returncode == 0, errors
    answered: dict[str, int] = json.loads(output)
    return answered
