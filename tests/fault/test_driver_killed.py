"""SIGKILL of a run's driver at random moments: `--resume` goes on where the newest whole checkpoint was."""

import json
import os
import signal
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

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
_PATIENCE_S = 600.0
_END_S = 120.0


def rows(run: Path) -> list:
    path = run / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]] if path.exists() else []


def test_a_driver_killed_at_random_moments(headrace, soak, figures, tmp_path):
    """Every round: the newest checkpoint is whole, its replay comes back, and the policy is no worse than it was."""
    if not soak.full:
        pytest.skip("one such kill is in tests/integration/test_ray_run.py")
    seed, kills, run = 31, 20, tmp_path / "run"
    figures.seeds(seed)
    rng = np.random.default_rng(seed)
    checkpoints = RunDirectory(run).complete_checkpoints
    command = headrace("train", "movie_pick_dqn", *_SETTINGS, "--run-dir", str(run))
    command.wait_for(lambda: len(checkpoints()) > 0, _PATIENCE_S)
    recoveries, cut_short = [], 0
    for kill in range(kills):
        newest = int(checkpoints()[-1].name)
        command.wait_for(lambda: int(checkpoints()[-1].name) > newest, _PATIENCE_S)  # noqa: B023
        moment = time.monotonic() + float(rng.uniform(0.0, 5.0))
        command.wait_for(lambda: time.monotonic() > moment, _PATIENCE_S)  # noqa: B023
        os.kill(command.process.pid, signal.SIGKILL)
        command.process.wait()
        gone_by = time.monotonic() + _END_S
        while command.descendants() and time.monotonic() < gone_by:
            time.sleep(0.2)
        assert command.descendants() == []
        cut_short += any(run.glob("checkpoints/*.part"))
        checkpoint = max((d for d in checkpoints()), key=lambda d: int(d.name))
        at, (records, inserted) = read_manifest(checkpoint), replay_of(checkpoint)
        before = len(rows(run)[: at["metrics_rows"]])
        begun = time.monotonic()
        shards = str(1 + kill % 2)
        command = headrace("train", "--resume", str(run), "--replay.shards", shards, "--actors.count", "2")
        command.wait_for(lambda: len(rows(run)) > before, _PATIENCE_S)  # noqa: B023
        recoveries.append(time.monotonic() - begun)
        first = rows(run)[before]
        assert first["env_steps"] >= at["env_steps"] and first["updates"] >= at["totals"]["updates"]
        assert first["replay"]["size"] >= records and first["replay"]["inserted"] >= inserted
        old = at["periodic_evaluations"]
        if old:
            command.wait_for(lambda: evaluated(run) > old[-1]["env_steps"], _PATIENCE_S)  # noqa: B023
            new = rows(run)[-1]["evaluation"]
            assert new["mean"] > old[-1]["mean"] - 4.0 * (new["sem"] + old[-1]["sem"]), (old[-1], new)
    os.killpg(command.process.pid, signal.SIGINT)
    assert command.finish(_PATIENCE_S)[0] == 0
    figures.add(kills=kills, killed_in_a_checkpoint=cut_short)
    figures.note(recovery_s=[round(seconds, 1) for seconds in recoveries], goal_s=60)


def replay_of(checkpoint: Path) -> tuple[int, int]:
    """Records in a checkpoint, and those ever inserted."""
    size = inserted = 0
    for path in replay_snapshots(checkpoint):
        with h5py.File(path) as file:
            size, inserted = size + int(file.attrs["size"]), inserted + int(file.attrs["inserted"])
    return size, inserted


def evaluated(run: Path) -> int:
    """The moment of the newest evaluation in the metrics."""
    newest = rows(run)[-1]["evaluation"]
    return 0 if newest is None else newest["env_steps"]
