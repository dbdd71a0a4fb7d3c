"""A learner of two processes, one of which is killed at random moments, or stopped: both are replaced, once."""

import os
import signal
import statistics
import time

import numpy as np
import pytest

from distributed.failures import HEALTHY_S
from fault.run_from_outside import RunFromOutside

pytestmark = pytest.mark.integration

_HANG_S = 10.0
_PATIENCE_S = 120.0


def test_one_of_two_killed_or_stopped_at_random_moments(headrace, soak, figures, tmp_path, monkeypatch):
    """Never half a learner, no process of the one before, and it learns again; every step is there once."""
    if not soak.full:
        pytest.skip("takes minutes; one death is in tests/integration/test_ray_run.py")
    monkeypatch.setenv("HEADRACE_TOKEN", "a-token-of-this-test-alone")
    seed = 109
    figures.seeds(seed)
    rng = np.random.default_rng(seed)
    run = RunFromOutside(headrace, tmp_path, "--learner.hang-seconds", str(_HANG_S), learners=2)
    run.wait_until_whole()
    took = []
    for number in range(soak.rounds):
        run.pause(HEALTHY_S + float(rng.uniform(0.0, 3.0)))  # else the failures are in a row, and too many of them
        took.append(end_one(run, int(rng.integers(2)), signal.SIGKILL))
        print(f"round {number}: {took[-1]:.1f} s", flush=True)
    figures.note(killed=len(took), learner_back_s=round(statistics.median(took), 2), longest_s=round(max(took), 2))
    figures.note(stopped_back_s=[round(end_one(run, rank, signal.SIGSTOP), 2) for rank in range(2)])
    run.finish()


def end_one(run, rank, how):
    """Seconds from a signal to one of the two until two others have made updates and nothing is left of both."""
    old, restarts = run.pids("learner"), run.row()["restarts"]
    assert len(old) == 2
    begin = time.monotonic()
    os.kill(old[rank], how)
    run.wait_for(lambda: not set(run.pids("learner")) & set(old), "both end", _PATIENCE_S)
    run.wait_for(lambda: len(run.pids("learner")) == 2, "two others", _PATIENCE_S)
    run.wait_for(lambda: run.row()["restarts"] > restarts, "the restart is counted", _PATIENCE_S)
    run.wait_for(run.rising("updates"), "updates", _PATIENCE_S)
    took = time.monotonic() - begin
    run.wait_for(run.complete, "no process too many", _PATIENCE_S)
    assert run.row()["restarts"] == restarts + 1
    return took
