"""SIGSTOP of a run's processes, seen from outside: replaced or waited for, and harmless when they continue."""

import contextlib
import os
import signal
import time

import pytest

from fault.run_from_outside import RunFromOutside, parent

pytestmark = pytest.mark.integration

_SECONDS = 30.0
_HANG_S = 10.0
_HOST_SECONDS = 40.0  # it is given up when it has been silent for 30 s
_PATIENCE_S = 120.0


def test_stopped_processes_are_replaced_or_waited_for(headrace, soak, figures, tmp_path, monkeypatch):
    """Silent actor, learner, store and host are replaced, a shard is waited for; nothing is there twice afterwards."""
    if not soak.full:
        pytest.skip("takes minutes; who hangs is replaced in tests/unit/test_*_supervisor.py")
    monkeypatch.setenv("HEADRACE_TOKEN", "a-token-of-this-test-alone")
    hang = ["--actors.hang-seconds", str(_HANG_S), "--learner.hang-seconds", str(_HANG_S)]
    run = RunFromOutside(headrace, tmp_path, *hang)
    run.wait_until_whole()
    figures.note(actor_replaced_s=stop_worker(run, "actor", lambda old: run.acts_anew("actor", old)))
    figures.note(learner_replaced_s=stop_worker(run, "learner", lambda old: run.newcomer("learner", old) is not None))
    run.wait_for(run.rising("updates"), "updates", _PATIENCE_S)
    run.wait_for(lambda: run.row()["restarts"] == 2, "two restarts", _PATIENCE_S)
    figures.note(store_replaced_s=stop_worker(run, "store", lambda old: run.newcomer("store", old) is not None))
    run.wait_for(lambda: run.row()["restarts"] == 3, "three restarts", _PATIENCE_S)
    published = run.row()["weights_version"]
    run.wait_for(lambda: run.row()["weights_version"] > published, "new weights", _PATIENCE_S)
    shard, had = run.shard(1), run.inserted(1)
    stop(run, shard, _SECONDS)
    begin = time.monotonic()
    run.wait_for(lambda: (run.inserted(1) or 0) > had + 100, "the shard takes records again", _PATIENCE_S)
    figures.note(shard_back_s=round(time.monotonic() - begin, 2))
    assert run.shard(1) == shard and run.row()["restarts"] == 3
    stop(run, parent(shard), _HOST_SECONDS)
    run.wait_for(lambda: run.shard(1) not in (None, shard) and run.inserted(1), "another shard", _PATIENCE_S)
    # Ray takes five seconds to kill a stopped process; until then its shard keeps the journal from the next one.
    run.wait_for(lambda: 4 <= run.row()["restarts"] <= 7, "the host's restart", _PATIENCE_S)
    run.wait_until_whole()
    run.finish()


def stop_worker(run, kind, replaced):
    """Stop one process of a kind for so long; seconds until another had taken its place."""
    old = run.pids(kind)
    begin = time.monotonic()
    os.kill(old[0], signal.SIGSTOP)
    run.wait_for(lambda: replaced(old), f"another {kind}", _PATIENCE_S)
    took = time.monotonic() - begin
    run.pause(max(_SECONDS - took, 0.0))
    go_on(old[0])
    run.wait_for(run.complete, f"the old {kind} ends", _PATIENCE_S)
    return round(took, 2)


def stop(run, pid, seconds):
    """Stop a process for so many seconds; it may be ended meanwhile."""
    os.kill(pid, signal.SIGSTOP)
    run.pause(seconds)
    go_on(pid)


def go_on(pid):
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)
