"""Random operations on a mount give what a plain directory gives, or the errno that they must."""

from __future__ import annotations

import os
import random
import secrets

import pytest

from fusefs.native.images import FEWEST_FILES
from tests.model.reading_model import Model, random_dataset
from tests.mount.datasets import Cache, md5, write_folder
from tests.mount.mounts import Mounter, has_image

pytestmark = [pytest.mark.fuse, pytest.mark.modes("fuse", "native")]

STEPS = int(os.environ.get("FUSEFS_MODEL_STEPS", "1500"))
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
    run(model, STEPS)
    log = mount.umount()
    assert "Traceback" not in log


@pytest.mark.root
@pytest.mark.modes("native")
def test_random_operations_on_an_image(mounter: Mounter) -> None:
    """The same where the kernel has the names from an image: of many files whose sizes are told."""
    seed = SEEDS[-1]
    order = random.Random(seed)
    files = random_dataset(order)
    many = {f"many/{number}": b"%d" % (number % 7) for number in range(FEWEST_FILES)}
    cache = Cache(mounter.home / "objects")
    oid = cache.put_dataset({**files, **many}, sizes=True)
    write_folder(mounter.home / "plain", {**files, **many})
    oids = sorted({md5(data) for data in files.values()})
    away = set(order.sample(oids, len(oids) // 3))
    for missing in sorted(away):
        cache.remove(missing)
    mount = mounter.mount(oid, "--cache", cache.root, "--no-pin")
    assert has_image(mount)
    there = set(oids) - away
    model = Model(mount.path, mounter.home / "plain", cache, files, order, there, native=True, image=True)
    print(f"seed {seed}: FUSEFS_MODEL_SEED={seed} repeats this run")
    run(model, STEPS // 2)
    assert "Traceback" not in mount.umount()


def run(model: Model, steps: int) -> None:
    try:
        for _ in range(steps):
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
