"""Whole runs in one thread, by a clock that ticks a second a look, and what tells two of them apart."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import h5py
import msgspec
import numpy as np
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


def experiment(environment_id: str, num_envs: int, **environment: Any) -> ExperimentConfig:
    """A small DQN of two actors over two shards: 6,000 environment steps, a checkpoint every 1,500."""
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
        run=RunConfig(total_env_steps=6_000, checkpoint_every_env_steps=1_500, metrics_every_env_steps=1_000, seed=3),
    )


def changed(config: ExperimentConfig, **parts: dict[str, Any]) -> ExperimentConfig:
    """A config with other values: part -> {field: value}."""
    return msgspec.structs.replace(
        config, **{part: msgspec.structs.replace(getattr(config, part), **values) for part, values in parts.items()}
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
    """Run an experiment in a directory, or go on from a checkpoint there; stopped after `looks`. Returns the result."""
    run = RunDirectory(path) if checkpoint is not None else RunDirectory.create(path, "")
    ticks = iter(range(10**9))
    clock = Clock(lambda: float(next(ticks)), lambda: float(next(ticks)))
    view = LiveView("test", 1, None, clock.monotonic, Console(quiet=True))
    return Driver(config, SerialRuntime(config), run, view, clock).train(_Countdown(looks), checkpoint)


def metric_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a run's metrics, without `time`."""
    rows: list[dict[str, Any]] = [json.loads(line) for line in RunDirectory(path).metrics.read_text().splitlines()]
    for row in rows:
        del row["time"]
    return rows


def digest(path: Path) -> dict[str, str]:
    """SHA-256 of the last checkpoint's weights, replay records and priorities, and of the metrics without `time`."""
    newest = RunDirectory(path).complete_checkpoints()[-1]
    weights = ("learner.safetensors", "best.safetensors", "policy.safetensors")
    sums = {"step": newest.name} | {name: weights_digest(newest / name) for name in weights}
    sums["metrics"] = hashlib.sha256(json.dumps(metric_rows(path)).encode()).hexdigest()
    return sums | {f.name: replay_digest(f) for f in sorted(newest.glob("replay-*.h5"))}


def weights_digest(path: Path) -> str:
    """SHA-256 of a safetensors file's arrays."""
    content = hashlib.sha256()
    for name, array in sorted(load_file(path).items()):
        content.update(name.encode() + array.tobytes())
    return content.hexdigest()


def replay_digest(path: Path, within: str = "/") -> str:
    """SHA-256 of the arrays of a shard's snapshot, or of those under one name."""
    content = hashlib.sha256()

    def visit(name: str, node: Any) -> None:
        if isinstance(node, h5py.Dataset):
            content.update(name.encode() + np.ascontiguousarray(node[()]).tobytes())

    with h5py.File(path) as file:
        found = file[within]
        visit(within, found) if isinstance(found, h5py.Dataset) else found.visititems(visit)
    return content.hexdigest()
