"""Random operations on a mount give what a plain directory gives, or the errno that they must."""

from __future__ import annotations

import os
import random
import secrets

import pytest

from tests.model.reading_model import Model, random_dataset
from tests.mount.datasets import Cache, md5, write_folder
from tests.mount.mounts import Mounter

pytestmark = [pytest.mark.fuse, pytest.mark.modes("fuse", "native")]

STEPS = int(os.environ.get("FUSEFS_MODEL_STEPS", "2500"))
FIXED = (1, 2)
CHOSEN = os.environ.get("FUSEFS_MODEL_SEED")
SEEDS = [int(CHOSEN)] if CHOSEN else [*FIXED, secrets.randbits(32)]
"""Two that never change, and one that is new every time. A failure names its seed."""


@pytest.mark.parametrize("number", range(len(SEEDS)))
def test_random_operations(mounter: Mounter, number: int) -> None:
    seed = SEEDS[number]
    order = random.Random(seed)
    files = random_dataset(order)
    cache = Cache(mounter.home / "objects")
    oid = cache.put_dataset(files)
    write_folder(mounter.home / "plain", files)
    oids = sorted({md5(data) for data in files.values()})
    away = set(order.sample(oids, len(oids) // 3))
    for missing in sorted(away):
        cache.remove(missing)
    mount = mounter.mount(oid, "--cache", cache.root, "--no-pin")
    model = Model(mount.path, mounter.home / "plain", cache, files, order, set(oids) - away)
    model.native = mounter.mode == "native"
    print(f"seed {seed}: FUSEFS_MODEL_SEED={seed} repeats this run")
    try:
        for _ in range(STEPS):
            model.step()
        model.finish()
    except BaseException:
        print("the latest operations:", *model.told, sep="\n  ")
        raise
    finally:
        for handle in model.handles:
            os.close(handle.descriptor)
        for _, mapping in model.mappings:
            mapping.close()
    log = mount.umount()
    assert "Traceback" not in log
