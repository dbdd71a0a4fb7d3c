"""SIGKILL of a run's driver at random moments: `--resume` goes on where the newest whole checkpoint was."""

import os
import signal
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from kit.logs import metrics

from distributed.manifest import read_manifest
from distributed.run_directory import RunDirectory, replay_snapshots

pytestmark = pytest.mark.integration

_SETTINGS = [
    "--environment.num-envs", "64", "--algorithm.hidden-sizes", "[32]", "--algorithm.batch-size", "128",
    "--replay.capacity", "30000", "--replay.min-size", "1000", "--learner.samples-per-insert", "2",
    "--evaluation.every-env-steps", "5000", "--evaluation.episodes", "64", "--evaluation.final-episodes", "200",
    "--run.metrics-every-env-steps", "1000", "--run.checkpoint-every-env-steps", "4000",
    "--run.total-env-steps", "1e9", "--run.max-seconds", "10000",
]  # fmt: skip
_PATIENCE_S = 300.0
_END_S = 30.0
_AGENTS_END_S = 150.0
_TARGET_S = 60.0


def test_a_driver_killed_at_random_moments(headrace, soak, figures, tmp_path):
    """Every round: the newest checkpoint is whole, its replay comes back, and the policy is no worse than it was."""
    if not soak.full:
        pytest.skip("one such kill is in test_processes_killed.py")
    seed, kills, run = 31, soak.rounds, tmp_path / "run"
    figures.seeds(seed)
    rng = np.random.default_rng(seed)
    checkpoints = RunDirectory(run).complete_checkpoints
    command = headrace("train", "movie_pick_dqn", *_SETTINGS, "--run-dir", str(run))
    command.wait_for(lambda: len(checkpoints()) > 0, _PATIENCE_S)
    killed, recoveries, returns, judged, cut_short = [], [], [], 0, 0
    for kill in range(kills):
        command.wait_for(lambda: evaluations(checkpoints()[-1])[judged:], _PATIENCE_S)
        moment = time.monotonic() + float(rng.uniform(0.0, 5.0))
        command.wait_for(lambda: time.monotonic() > moment, _PATIENCE_S)  # noqa: B023
        os.kill(command.process.pid, signal.SIGKILL)
        command.process.wait()
        command.wait_until_gone(_END_S, but_agents=True)
        killed.append(command)
        cut_short += any(run.glob("checkpoints/*.part"))
        checkpoint = checkpoints()[-1]
        at, (records, inserted) = read_manifest(checkpoint), replay_of(checkpoint)
        before = metrics(run)[at["metrics_rows"] :][:1]  # of the part that is taken back
        begun = time.monotonic()
        shards = str(1 + kill % 2)
        command = headrace("train", "--resume", str(run), "--replay.shards", shards, "--actors.count", "2")
        command.wait_for(lambda: metrics(run)[at["metrics_rows"] :][:1] not in ([], before), _PATIENCE_S)  # noqa: B023
        first = metrics(run)[at["metrics_rows"]]
        assert first["env_steps"] >= at["env_steps"] and first["updates"] >= at["totals"]["updates"]
        assert first["replay"]["size"] >= records and first["replay"]["inserted"] >= inserted
        command.wait_for(lambda: metrics(run)[-1]["updates"] > at["totals"]["updates"], _PATIENCE_S)  # noqa: B023
        recoveries.append(time.monotonic() - begun)
        if old := at["periodic_evaluations"]:
            command.wait_for(lambda: evaluated(run) > old[-1]["env_steps"], _PATIENCE_S)
            new = metrics(run)[-1]["evaluation"]
            returns.append([round(old[-1]["mean"], 2), round(new["mean"], 2)])
            assert new["mean"] > old[-1]["mean"] - 4.0 * (new["sem"] + old[-1]["sem"]), (old[-1], new)
        print(f"kill {kill}: resumed in {recoveries[-1]:.1f} s, return before and after {returns[-1:]}", flush=True)
    os.killpg(command.process.pid, signal.SIGINT)
    assert command.finish(_PATIENCE_S)[0] == 0
    for ended in [*killed, command]:
        ended.wait_until_gone(_AGENTS_END_S)
    figures.add(kills=kills, killed_in_a_checkpoint=cut_short)
    figures.note(recovery_s=[round(seconds, 1) for seconds in recoveries], target_s=_TARGET_S, returns=returns)
    figures.note(met=max(recoveries) <= _TARGET_S)
    print(f"driver: median {np.median(recoveries):.1f} s, worst {max(recoveries):.1f} s, target {_TARGET_S:.0f} s")


def replay_of(checkpoint: Path) -> tuple[int, int]:
    """Records in a checkpoint, and those ever inserted."""
    size = inserted = 0
    for path in replay_snapshots(checkpoint):
        with h5py.File(path) as file:
            size, inserted = size + int(file.attrs["size"]), inserted + int(file.attrs["inserted"])
    return size, inserted


def evaluations(checkpoint: Path) -> list:
    return read_manifest(checkpoint)["periodic_evaluations"]


def evaluated(run: Path) -> int:
    """The moment of the newest evaluation in the metrics."""
    newest = metrics(run)[-1]["evaluation"]
    return 0 if newest is None else newest["env_steps"]
