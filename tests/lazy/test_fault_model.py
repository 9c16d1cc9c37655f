"""Random reads while remote, cache and daemon fail: right bytes or a documented errno, and all well after."""

from __future__ import annotations

import os
import random
import secrets

import pytest

from tests.lazy.fault_model import FaultModel, FaultyAnswers, random_files
from tests.lazy.faulty import QUICK, new_project
from tests.mount.mounts import Mounter
from tests.servers.raw_answers import raw_server, reset

pytestmark = [pytest.mark.fuse, pytest.mark.modes("fuse", "native")]

STEPS = int(os.environ.get("FUSEFS_FAULT_STEPS", "5"))
CHOSEN = os.environ.get("FUSEFS_FAULT_SEED")
SEED = int(CHOSEN) if CHOSEN else secrets.randbits(32)


@pytest.mark.timeout(max(400, 30 * STEPS))
@pytest.mark.parametrize("verify", ["whole", "blocks"])
def test_random_faults(mounter: Mounter, verify: str) -> None:
    print(f"FUSEFS_FAULT_SEED={SEED} repeats this run")
    order = random.Random(f"{SEED} {verify}")
    files = random_files(order)
    # Ranges of a large object that is not whole cannot be held against its hash, unless they wait for it.
    answers = FaultyAnswers(files, order.getrandbits(32), corrupts_large=verify == "whole")
    with raw_server(reset) as server:
        server.choose = answers
        project = new_project(mounter.home / "project", files, server.url, QUICK)
        model = FaultModel(mounter, project, files, answers, order, ("--verify", verify))
        model.fail()
        model.start()
        for _ in range(STEPS):
            model.step()
        model.finish()
    print(dict(model.got), dict(answers.made))
    assert model.got["right"] > STEPS
