"""Opens against eviction, removal and the kernel's forgetting, all at once: no error, and no wrong byte.

`FUSEFS_STORM_OPENS` makes it longer, `FUSEFS_STORM_SEED` another one (`scripts/soak`).
"""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from fusefs.native.mount_api import forget_unused
from tests.mount.datasets import Cache, entries_of, filler, md5
from tests.mount.mounts import Mounter

pytestmark = [pytest.mark.fuse, pytest.mark.root, pytest.mark.modes("native")]

OPENS = int(os.environ.get("FUSEFS_STORM_OPENS", "2000"))
SEED = int(os.environ.get("FUSEFS_STORM_SEED", "1"))
READERS = 3
FILES = {f"{number % 4}/{number}": filler(500 + 97 * number, number) for number in range(200)}
AT_ONCE = 20
"""Objects that are removed together."""
PAUSE = 0.003
SECONDS = 3000.0

READ = """
import hashlib, random, sys
root, names, opens, seed = sys.argv[1], sys.argv[2].split(), int(sys.argv[3]), int(sys.argv[4])
chosen = random.Random(seed)
faults = []
for _ in range(opens):
    path, digest = chosen.choice(names).split("=")
    try:
        with open(f"{root}/{path}", "rb", buffering=0) as file:
            data = file.readall()
        if hashlib.md5(data, usedforsecurity=False).hexdigest() != digest:
            faults.append(f"{path}: {len(data)} wrong bytes")
    except OSError as error:
        faults.append(f"{path}: {error}")
print("\\n".join(faults[:20]))
"""


def test_a_storm_of_opens(mounter: Mounter) -> None:
    remote, cache = Cache(mounter.home / "remote"), Cache(mounter.home / "cache")
    for data in FILES.values():
        remote.put(data)
    oid = cache.put_manifest(entries_of(FILES, sizes=True))
    half = sum(map(len, FILES.values())) // 2
    where = ("--cache", cache.root, "--cache-size", str(half), "--remote", remote.root, "--no-pin")
    mount = mounter.mount(oid, *where)
    names = {path: md5(data) for path, data in FILES.items()}
    words: list[str | Path] = [sys.executable, "-c", READ, mount.path, " ".join(map("=".join, names.items()))]
    readers = [
        subprocess.Popen(
            [*words, str(OPENS // READERS), str(SEED + number)], stdout=subprocess.PIPE, text=True
        )
        for number in range(READERS)
    ]
    ended = threading.Event()

    def remove() -> None:
        """As `dvc gc` may, without regard to what has just come."""
        chosen = random.Random(SEED)
        while not ended.wait(PAUSE):
            for digest in chosen.sample(list(names.values()), AT_ONCE):
                with contextlib.suppress(FileNotFoundError):
                    cache.place(digest).unlink()
            forget_unused(str(mount.path))

    remover = threading.Thread(target=remove)
    remover.start()
    try:
        said = [reader.communicate(timeout=SECONDS)[0] for reader in readers]
    finally:
        ended.set()
        remover.join()
        for reader in readers:
            reader.kill()
    assert said == ["\n"] * READERS
    status = mount.status()
    assert (status["mode"], status["errors"]) == ("native", 0)
    assert min(status["hits"], status["misses"]) > AT_ONCE
    assert "Traceback" not in mount.umount()
