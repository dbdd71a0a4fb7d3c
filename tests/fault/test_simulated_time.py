"""The scheduler of the simulation: one at a time, in simulated time, the same for the same seed."""

from __future__ import annotations

import time

import numpy as np
import pytest

from fault.simulated_time import Scheduler


def _trace(seed):
    scheduler = Scheduler(np.random.default_rng(seed))
    trace = []

    def work(name):
        for turn in range(5):
            trace.append((round(scheduler.now(), 3), name, turn))
            scheduler.sleep(0.5)

    for name in range(4):
        scheduler.start(lambda name=name: work(name))
    scheduler.run()
    return trace


def test_a_seed_decides_the_order_and_time_jumps():
    begin = time.monotonic()
    assert _trace(3) == _trace(3)
    assert len({tuple(_trace(seed)) for seed in range(5)}) > 1
    assert [t for t, _, _ in _trace(3)] == [1000.0 + 0.5 * turn for turn in range(5) for _ in range(4)]
    assert time.monotonic() - begin < 5.0


def test_a_wait_ends_with_its_event_or_its_deadline():
    scheduler = Scheduler(np.random.default_rng(0))
    seen = []

    def work():
        scheduler.wait(lambda wake: scheduler.at(0.2, wake), scheduler.now() + 1.0)
        seen.append(scheduler.now())
        scheduler.wait(lambda wake: scheduler.at(3.0, wake), scheduler.now() + 1.0)
        seen.append(scheduler.now())
        scheduler.sleep(5.0)  # the late wake-up of the wait before does not end it
        seen.append(scheduler.now())

    scheduler.start(work)
    scheduler.run()
    assert seen == pytest.approx([1000.2, 1001.2, 1006.2])


def test_an_error_in_a_task_ends_the_run_and_every_other_task():
    scheduler = Scheduler(np.random.default_rng(0))
    ended = []

    def fails():
        scheduler.sleep(1.0)
        raise ValueError("broken")

    def waits():
        try:
            scheduler.sleep(10.0)
        finally:
            ended.append(True)

    scheduler.start(waits)
    scheduler.start(fails)
    with pytest.raises(ValueError, match="broken"):
        scheduler.run()
    assert ended == [True]
