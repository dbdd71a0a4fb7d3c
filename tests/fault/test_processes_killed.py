"""SIGKILL of every kind of process of a run at random moments, seen from outside: it works again, and lost nothing.

A round kills one process of each kind, in a random order, and then the driver, which `--resume` follows. The time of
each until that kind demonstrably works again is taken; the targets are only reported.
"""

import os
import signal
import statistics
import time

import numpy as np
import pytest

from fault.run_from_outside import TITLES, RunFromOutside, parent

pytestmark = pytest.mark.integration

_TARGET_S = {
    "actor": 5.0, "shard": 10.0, "host": 10.0, "learner": 30.0, "store": 10.0, "evaluator": 30.0, "driver": 60.0,
}  # fmt: skip
_START_S = 120.0
_GONE_S = 30.0
_AGENTS_GONE_S = 150.0


def test_every_kind_of_process_killed_at_random_moments(headrace, soak, figures, tmp_path, monkeypatch):
    """After every round nothing is left of the old processes, and the checkpoint holds every step once."""
    monkeypatch.setenv("HEADRACE_TOKEN", "a-token-of-this-test-alone")
    seed, rounds = 107, soak.count(1, soak.rounds)
    figures.seeds(seed)
    rng = np.random.default_rng(seed)
    shared_before = set(os.listdir("/dev/shm"))
    run = RunFromOutside(headrace, tmp_path)
    recovery, gone = {kind: [] for kind in [*TITLES, "driver"]}, []
    ended = []
    run.wait_until_whole()
    for number in range(rounds):
        restarts = run.row()["restarts"] + len(TITLES)
        for kind in rng.permutation(list(TITLES)):
            run.pause(float(rng.uniform(0.0, 2.0)))
            recovery[kind].append(RECOVER[kind](run, rng))
            run.wait_for(run.complete, f"orphans after the {kind} was killed", _GONE_S)
            print(f"round {number}: {kind} {recovery[kind][-1]:.1f} s", flush=True)
        run.wait_for(lambda: run.row()["restarts"] >= restarts, "restarts are counted", _START_S)  # noqa: B023
        run.pause(float(rng.uniform(0.0, 3.0)))
        assert run.row()["restarts"] == restarts, "others were replaced too"
        ended.append(run.command)
        took, left = kill_driver(run, shared_before)
        recovery["driver"].append(took)
        gone.append(left)
        print(f"round {number}: driver {took:.1f} s, all gone after {left:.1f} s", flush=True)
    run.finish()
    for command in ended if soak.full else ():
        command.wait_until_gone(_AGENTS_GONE_S)
    nothing_shared(shared_before)
    print(table(recovery))
    figures.add(rounds=rounds)
    figures.note(recovery_s=summary(recovery), everything_gone_s=[round(seconds, 1) for seconds in gone])


def killed(run, kind, rng):
    """Kill one process of a kind; the moment, and the others of this kind."""
    pids = run.pids(kind)
    victim = int(rng.choice(pids))
    os.kill(victim, signal.SIGKILL)
    return time.monotonic(), set(pids)


def recover_actor(run, rng):
    """Until the environments of its successor have been stepped."""
    begin, before = killed(run, "actor", rng)
    run.wait_for(lambda: run.acts_anew("actor", before), "an actor acts", 5 * _TARGET_S["actor"])
    return time.monotonic() - begin


def recover_evaluator(run, rng):
    """Until an evaluation that was asked for later, made by its successor, is in the metrics."""
    at = run.row()["env_steps"]
    begin, before = killed(run, "evaluator", rng)
    patience = 5 * _TARGET_S["evaluator"]
    run.wait_for(lambda: run.acts_anew("evaluator", before), "the evaluator evaluates", patience)
    run.wait_for(lambda: run.row()["evaluation"]["env_steps"] > at, "an evaluation", patience)
    return time.monotonic() - begin


def recover_learner(run, rng):
    """Until its successor has made updates that are in the metrics."""
    begin, before = killed(run, "learner", rng)
    patience = 5 * _TARGET_S["learner"]
    run.wait_for(lambda: run.newcomer("learner", before) is not None, "a learner", patience)
    run.wait_for(run.rising("updates"), "updates", patience)
    return time.monotonic() - begin


def recover_store(run, rng):
    """Until actors use a version that was published after it was back."""
    begin, before = killed(run, "store", rng)
    patience = 5 * _TARGET_S["store"]
    run.wait_for(lambda: run.newcomer("store", before) is not None, "a weight store", patience)
    row = run.row()
    published = row["weights_version"]

    def used():
        row = run.row()
        return row["staleness"] is not None and row["weights_version"] - row["staleness"] > published

    run.wait_for(used, "a new version reaches actors", patience)
    return time.monotonic() - begin


def recover_shard(run, rng):
    """Until it counts new records, on top of all that it had counted."""
    return _shard_is_back(run, rng, lambda pid: pid)


def recover_host(run, rng):
    """The same for the process that looks after it, with which it ends."""
    return _shard_is_back(run, rng, parent)


def _shard_is_back(run, rng, victim):
    index = int(rng.integers(2))
    run.wait_for(lambda: run.inserted(index), "a shard that answers", _START_S)
    before, had = run.shard(index), run.inserted(index)
    os.kill(victim(before), signal.SIGKILL)
    begin, patience = time.monotonic(), 5 * _TARGET_S["shard"]
    run.wait_for(lambda: run.shard(index) not in (None, before), "a shard", patience)
    run.wait_for(lambda: run.inserted(index) is not None, "a shard serves", patience)
    back = run.inserted(index)
    assert back >= had, f"shard {index} had counted {had} records and now {back}"
    run.wait_for(lambda: (run.inserted(index) or 0) > back, "a shard takes records", patience)
    return time.monotonic() - begin


RECOVER = {
    "actor": recover_actor,
    "shard": recover_shard,
    "host": recover_host,
    "learner": recover_learner,
    "store": recover_store,
    "evaluator": recover_evaluator,
}


def nothing_shared(before):
    """See that nothing stays in /dev/shm that was not there before; other runs of this machine may use some now."""
    deadline = time.monotonic() + _GONE_S
    while left := set(os.listdir("/dev/shm")) - before:
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


def kill_driver(run, shared_before):
    """Seconds until the resumed run acts and learns, and until nothing but Ray's agents was left of the killed one."""
    command = run.command
    os.kill(command.process.pid, signal.SIGKILL)
    begin = time.monotonic()
    command.process.wait()
    command.wait_until_gone(_GONE_S, but_agents=True)
    left = time.monotonic() - begin
    nothing_shared(shared_before)
    assert "had acknowledged are lost" not in command.finish(_GONE_S)[2]
    records = run.check_history()
    begin = time.monotonic()
    run.resume()
    run.wait_for(lambda: run.acts_anew("actor", ()), "an actor acts", 5 * _TARGET_S["driver"])
    run.wait_for(run.rising("updates"), "updates", 5 * _TARGET_S["driver"])
    took = time.monotonic() - begin
    assert run.row()["replay"]["size"] >= records
    run.wait_until_whole()
    return took, left


def summary(recovery):
    """Median, worst and target of each kind, in seconds."""
    return {
        kind: {
            "median": round(statistics.median(seconds), 2),
            "worst": round(max(seconds), 2),
            "target": _TARGET_S[kind],
            "met": max(seconds) <= _TARGET_S[kind],
            "rounds": len(seconds),
        }
        for kind, seconds in recovery.items()
    }


def table(recovery):
    lines = ["kind        rounds  median   worst  target  met"]
    for kind, row in summary(recovery).items():
        met = "yes" if row["met"] else "no"
        lines.append(
            f"{kind:10} {row['rounds']:7} {row['median']:7.1f} {row['worst']:7.1f} {row['target']:7.0f}  {met}"
        )
    return "\n".join(lines)
