"""Every algorithm that ships: a serial run that was stopped and resumed leaves the same bytes as one that was not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from kit.devices import algorithm_configs
from kit.runs import digest, play

from actors.environments import EnvironmentConfig
from actors.evaluator import EvaluationConfig
from distributed.config import ActorsConfig, ExperimentConfig, LearnerConfig, ReplayConfig, RunConfig
from distributed.run_directory import RunDirectory

CONFIGS = algorithm_configs()
SMALL: dict[str, Any] = {"hidden_sizes": (8,), "batch_size": 16, "diagnose_every_updates": 1}
EPSILONS = {"target_update_tau": 0.1, "epsilon_anneal_env_steps": 300}
NOISE = {"noise": "ou", "random_env_steps": 100}
RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    "behaviour_cloning": ("CartPole-v1", {"reward_quantile": 0.3, "n_step": None}),
    "bcq": ("Pendulum-v1", {"vae_hidden_sizes": (8,), "acting_candidates": 5}),
    "c51": ("CartPole-v1", {"target_update_tau": 0.1, "exploration": "boltzmann"}),
    "ddpg": ("Pendulum-v1", NOISE),
    "discrete_bcq": ("CartPole-v1", {}),
    "dqn": ("CartPole-v1", EPSILONS),
    "qr_dqn": ("CartPole-v1", EPSILONS),
    "reinforce": ("CartPole-v1", {"correction": "behaviour_head", "softmax": "sampled", "negatives": 1}),
    "slateq": ("kit.worlds:Sweets", {**EPSILONS, "target": "sarsa"}),
    "td3": ("Pendulum-v1", {**NOISE, "actor_period_updates": 3}),
    "wolpertinger": ("headrace/MoviePick10-v0", {**NOISE, "neighbours": 4}),
}


def test_every_algorithm_has_a_run() -> None:
    assert RUNS.keys() == CONFIGS.keys()


@pytest.mark.parametrize("name", RUNS)
def test_stop_and_resume_give_the_same_bytes(tmp_path: Path, name: str) -> None:
    environment, settings = RUNS[name]
    config = ExperimentConfig(
        runtime="serial",
        environment=EnvironmentConfig(id=environment, num_envs=4, max_episode_steps=50),
        algorithm=CONFIGS[name](**SMALL, **settings),
        replay=ReplayConfig(shards=2, capacity=2_000, min_size=100),
        actors=ActorsConfig(count=2, records_per_insert=16),
        learner=LearnerConfig(samples_per_insert=1.0, publish_every_updates=10),
        evaluation=EvaluationConfig(episodes=1, every_env_steps=500, final_episodes=1),
        run=RunConfig(total_env_steps=1_000, checkpoint_every_env_steps=400, metrics_every_env_steps=100),
    )
    whole = play(config, tmp_path / "whole")
    assert whole["updates"] > 50
    play(config, tmp_path / "halves", looks=16)
    newest = next(d for d in RunDirectory(tmp_path / "halves").complete_checkpoints() if 400 <= int(d.name) < 450)
    resumed = play(config, tmp_path / "halves", checkpoint=newest)
    assert digest(tmp_path / "halves") == digest(tmp_path / "whole")
    assert resumed["evaluation"] == whole["evaluation"]
