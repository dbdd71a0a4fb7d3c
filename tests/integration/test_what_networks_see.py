"""Whole runs on everything that can be observed: histories, candidates and masks; images; names; slates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from kit.runs import metric_rows, play

from actors.environments import EnvironmentConfig
from actors.evaluator import EvaluationConfig
from distributed.config import ActorsConfig, ExperimentConfig, LearnerConfig, ReplayConfig, RunConfig
from learners.algorithms.dqn import DQNConfig
from learners.algorithms.slateq import SlateQConfig


def final_return(path: Path, environment: EnvironmentConfig, algorithm: Any, steps: int, ratio: float) -> float:
    """Mean return of the final evaluation of a run in one thread."""
    config = ExperimentConfig(
        runtime="serial",
        environment=environment,
        algorithm=algorithm,
        replay=ReplayConfig(capacity=10_000, min_size=200),
        actors=ActorsConfig(count=1, records_per_insert=32),
        learner=LearnerConfig(samples_per_insert=ratio, publish_every_updates=10),
        evaluation=EvaluationConfig(every_env_steps=0, final_episodes=40),
        run=RunConfig(total_env_steps=steps, seed=100),
    )
    result = play(config, path / "run")
    assert any(row.get("learner") for row in metric_rows(path / "run"))
    return float(result["evaluation"]["mean"])


def dqn(**settings: Any) -> DQNConfig:
    common = {
        "gamma": 0.1, "n_step": 1, "hidden_sizes": (32,), "batch_size": 64, "learning_rate": 5e-3,
        "target_update_tau": 0.05, "epsilon_anneal_env_steps": 1500,
    }  # fmt: skip
    return DQNConfig(**(common | settings))


@pytest.mark.parametrize("torso", ["gru", "attention"])
def test_a_history_with_candidates_and_a_mask(torso: str, tmp_path: Path) -> None:
    """Who does not look at the history gets 8 / 3."""
    algorithm = dqn(
        torso=torso, action_values="embedding_mlp", item_embedding="learnt", embedding_size=8, encoder_size=16
    )
    assert final_return(tmp_path, EnvironmentConfig(id="kit.worlds:Corridor", num_envs=8), algorithm, 4_000, 8.0) > 7.0


def test_images(tmp_path: Path) -> None:
    """Who does not look gets 2."""
    assert (
        final_return(tmp_path, EnvironmentConfig(id="kit.worlds:Spot", num_envs=8), dqn(learning_rate=1e-3), 2_000, 8.0)
        > 7.0
    )


def test_frozen_lake(tmp_path: Path) -> None:
    """Sixteen places without a measure between them: one-hot."""
    environment = EnvironmentConfig(id="FrozenLake-v1", num_envs=8, kwargs={"is_slippery": False})
    algorithm = dqn(gamma=0.9, n_step=3, epsilon_anneal_env_steps=4_000)
    assert final_return(tmp_path, environment, algorithm, 6_000, 4.0) == 1.0


def test_slates(tmp_path: Path) -> None:
    """The best get 6.3; random slates 3.0; who always shows what pays most now makes users sick and gets 1.9."""
    environment = EnvironmentConfig(id="kit.worlds:Sweets", num_envs=8)
    algorithm = SlateQConfig(
        gamma=0.9, hidden_sizes=(32,), embedding_size=8, batch_size=64, learning_rate=5e-3, choice_learning_rate=5e-3,
        final_learning_rate=5e-4, learning_rate_decay_env_steps=6_000, target_update_tau=0.1,
        epsilon_anneal_env_steps=3_000,
    )  # fmt: skip
    assert final_return(tmp_path, environment, algorithm, 6_000, 6.0) > 5.0
