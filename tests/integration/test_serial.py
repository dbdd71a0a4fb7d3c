"""The serial runtime: same seed, same bytes; stop and resume change nothing."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from rich.console import Console
from safetensors.numpy import load_file

from actors.environments import EnvironmentConfig
from actors.evaluator import EvaluationConfig
from distributed.config import ActorsConfig, ExperimentConfig, LearnerConfig, ReplayConfig, RunConfig
from distributed.driver import Clock, Driver
from distributed.progress import LiveView
from distributed.run_directory import RunDirectory
from distributed.serial_runtime import SerialRuntime
from distributed.stop_signal import StopSignal
from learners.algorithms.dqn import DQNConfig

TOTAL, EVERY = 6_000, 1_500


def experiment(environment_id: str, num_envs: int, **environment: Any) -> ExperimentConfig:
    return ExperimentConfig(
        runtime="serial",
        environment=EnvironmentConfig(id=environment_id, num_envs=num_envs, **environment),
        algorithm=DQNConfig(
            target_update_tau=0.05,
            hidden_sizes=(16,),
            batch_size=32,
            reward_scale=1.0 if environment.get("normalise_rewards") else 0.1,
            epsilon_anneal_env_steps=2_000,
        ),
        replay=ReplayConfig(shards=2, capacity=4_000, min_size=400),
        actors=ActorsConfig(count=2, records_per_insert=16),
        learner=LearnerConfig(samples_per_insert=2.0, publish_every_updates=10),
        evaluation=EvaluationConfig(episodes=2, every_env_steps=2_500, final_episodes=4),
        run=RunConfig(total_env_steps=TOTAL, checkpoint_every_env_steps=EVERY, metrics_every_env_steps=1_000, seed=3),
    )


class _Countdown(StopSignal):
    """A stop request that comes after so many looks at it, in the middle of a run."""

    def __init__(self, looks: int | None) -> None:
        self._looks = looks

    @property
    def requested(self) -> bool:  # type: ignore[override]
        if self._looks is None:
            return False
        self._looks -= 1
        return self._looks < 0


def play(config: ExperimentConfig, path: Path, looks: int | None = None, checkpoint: Path | None = None) -> Any:
    run = RunDirectory(path)
    if checkpoint is None:
        run = RunDirectory.create(path, "")
    ticks = iter(range(10**9))
    clock = Clock(lambda: float(next(ticks)), lambda: float(next(ticks)))
    view = LiveView("test", 1, None, clock.monotonic, Console(quiet=True))
    return Driver(config, SerialRuntime(config), run, view, clock).train(_Countdown(looks), checkpoint)


def digest(path: Path) -> dict[str, str]:
    """SHA-256 of the last checkpoint's weights, replay records and priorities, and of the metrics without `time`."""
    newest = RunDirectory(path).complete_checkpoints()[-1]
    sums = {"step": newest.name}
    for name in ("learner.safetensors", "best.safetensors", "policy.safetensors"):
        content = hashlib.sha256()
        for key, array in sorted(load_file(newest / name).items()):
            content.update(key.encode() + array.tobytes())
        sums[name] = content.hexdigest()
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        del row["time"]
    sums["metrics"] = hashlib.sha256(json.dumps(rows).encode()).hexdigest()
    sums |= {f.name: replay_digest(f) for f in sorted(newest.glob("replay-*.h5"))}
    return sums


def replay_digest(path: Path) -> str:
    import h5py

    content = hashlib.sha256()

    def visit(name: str, node: Any) -> None:
        if isinstance(node, h5py.Dataset):
            content.update(name.encode() + np.ascontiguousarray(node[()]).tobytes())

    with h5py.File(path) as file:
        file.visititems(visit)
    return content.hexdigest()


@pytest.mark.parametrize(
    ("environment_id", "num_envs", "extra"),
    [
        ("headrace/MoviePick10-v0", 16, {}),
        ("LunarLander-v3", 4, {}),
        ("LunarLander-v3", 4, {"normalise_observations": True, "normalise_rewards": True}),
    ],
)
def test_stop_and_resume_give_the_same_bytes(
    tmp_path: Path, environment_id: str, num_envs: int, extra: dict[str, Any]
) -> None:
    config = experiment(environment_id, num_envs, **extra)
    whole = play(config, tmp_path / "whole")
    play(config, tmp_path / "again")
    assert whole["updates"] > 150
    assert digest(tmp_path / "again") == digest(tmp_path / "whole")

    looks = 25 if num_envs == 16 else 95
    interrupted = play(config, tmp_path / "halves", looks=looks)
    assert interrupted["stopped_by"] == "interrupt" and TOTAL / 3 < interrupted["env_steps"] < 2 * TOTAL / 3
    scheduled = [d for d in RunDirectory(tmp_path / "halves").complete_checkpoints() if _scheduled(d)]
    resumed = play(config, tmp_path / "halves", checkpoint=scheduled[-1])
    assert resumed["env_steps"] == whole["env_steps"]
    assert digest(tmp_path / "halves") == digest(tmp_path / "whole")
    assert resumed["evaluation"] == whole["evaluation"]
    assert [evaluation["env_steps"] for evaluation in whole["periodic_evaluations"]][-1] == whole["env_steps"]
    assert without_clock(resumed) == without_clock(whole) and len(without_clock(whole)) >= 3
    seconds = [evaluation["seconds"] for evaluation in whole["periodic_evaluations"]]
    assert seconds == sorted(seconds) and seconds[-1] <= whole["wall_seconds"] + 2.0


def without_clock(result: Any) -> list[tuple[float, ...]]:
    """The curve of a run: steps, mean and standard error of each periodic evaluation."""
    return [(row["env_steps"], row["mean"], row["sem"]) for row in result["periodic_evaluations"]]


def test_another_seed_gives_other_bytes(tmp_path: Path) -> None:
    config = experiment("headrace/MoviePick10-v0", 16)
    play(config, tmp_path / "a")
    play(msgspec.structs.replace(config, run=msgspec.structs.replace(config.run, seed=4)), tmp_path / "b")
    first, second = digest(tmp_path / "a"), digest(tmp_path / "b")
    assert all(first[name] != second[name] for name in first if name != "step")


def _scheduled(directory: Path) -> bool:
    return bool(json.loads((directory / "manifest.json").read_text())["scheduled"])
