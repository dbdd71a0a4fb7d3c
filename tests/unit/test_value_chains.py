"""DQN, C51 and QR-DQN find the values, and the distributions, that are known of small chains."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from kit.chains import CHAIN, STATES, chain_columns, chain_optimum
from kit.learning import batch_of, spec_of

from learners.algorithms.c51 import C51Config
from learners.algorithms.dqn import DQNConfig
from learners.algorithms.qr_dqn import QRDQNConfig
from learners.task import DiscreteActions, Task

SHARED: dict[str, Any] = {
    "hidden_sizes": (32,), "target_update_tau": 0.1, "learning_rate": 1e-2, "final_learning_rate": 1e-4,
    "max_grad_norm": 100.0,
}  # fmt: skip


def learnt(config: Any, task: Task, columns: dict[str, np.ndarray], updates: int) -> Any:
    """The acting policy after updates from all records at once."""
    config = msgspec.structs.replace(config, learning_rate_decay_env_steps=updates)
    spec = spec_of(config, task)
    learner = config.make_learner(task, spec, seed=0, device="cpu")
    for update in range(updates):
        learner.step(batch_of(spec, columns, inserted=update))
    policy = config.make_policy(task, env_indices=range(STATES), total_envs=STATES)
    policy.load(learner.snapshot())
    return policy


def settings(**changes: Any) -> dict[str, Any]:
    return {**SHARED, "learning_rate_decay_env_steps": 1, **changes}


@pytest.mark.parametrize(
    ("config", "n_step"),
    [
        (DQNConfig(**settings(double=False, dueling=False)), 1),
        (DQNConfig(**settings(double=True, dueling=False, loss="mse")), 3),
        (DQNConfig(**settings(double=False, dueling=True, loss="mse")), 3),
        (DQNConfig(**settings(double=True, dueling=True, target_update_tau=None, target_update_period_updates=20)), 1),
        (C51Config(**settings(double=True, dueling=True, v_min=0.0, v_max=2.5)), 1),
        (C51Config(**settings(double=False, dueling=False, v_min=0.0, v_max=2.5)), 3),
        (QRDQNConfig(**settings(double=True, dueling=True, quantiles=8)), 1),
        (QRDQNConfig(**settings(double=False, dueling=False, quantiles=8, kappa=0.1)), 3),
    ],
    ids=lambda value: f"{value.type}-{value.double}-{value.dueling}" if hasattr(value, "type") else str(value),
)
def test_the_values_of_a_chain_converge_to_the_optimum(config: Any, n_step: int) -> None:
    optimum = chain_optimum()
    policy = learnt(config, CHAIN, chain_columns(n_step, optimum), 700)
    with torch.inference_mode():
        q = policy._network(torch.eye(STATES)).numpy()
    assert np.abs(q - optimum).max() < 0.02
    greedy = policy.act(np.eye(STATES, dtype=np.float32), np.random.default_rng(0), explore=False, env_steps=0)
    assert greedy.action.tolist() == optimum.argmax(axis=1).tolist()


TWO = Task(observation_dtype="float32", observation_shape=(2,), actions=DiscreteActions(1))


def two_states(last_rewards: list[float]) -> dict[str, np.ndarray]:
    """From state 0 half a point and on to state 1, discounted by .5; from there one of equally likely rewards."""
    size = len(last_rewards)
    eye = np.eye(2, dtype=np.float32)
    states = np.repeat([0, 1], size)
    return {
        "observation": eye[states],
        "next_observation": eye[np.ones(2 * size, int)],
        "action": np.zeros(2 * size, np.int64),
        "reward": np.array([0.5] * size + last_rewards, np.float32),
        "discount": np.repeat([0.5, 0.0], size).astype(np.float32),
        "behaviour_log_prob": np.zeros(2 * size, np.float32),
        "policy_version": np.zeros(2 * size, np.int64),
    }


def test_c51_learns_the_distribution_of_a_return_that_chance_decides() -> None:
    config = C51Config(**settings(atoms=5, v_min=0.0, v_max=1.0, dueling=False, double=False))
    policy = learnt(config, TWO, two_states([0.0, 1.0, 1.0, 1.0]), 500)
    with torch.inference_mode():
        probabilities = policy._network.outputs(torch.eye(2)).softmax(dim=2)[:, 0].numpy()
    assert np.abs(probabilities[1] - [0.25, 0.0, 0.0, 0.0, 0.75]).max() < 0.02
    assert np.abs(probabilities[0] - [0.0, 0.0, 0.25, 0.0, 0.75]).max() < 0.02


def test_quantile_regression_learns_the_quantiles_of_a_return_that_chance_decides() -> None:
    config = QRDQNConfig(**settings(quantiles=4, kappa=0.02, dueling=False, double=False))
    policy = learnt(config, TWO, two_states([0.0, 1.0, 2.0, 3.0]), 900)
    with torch.inference_mode():
        quantiles = policy._network.outputs(torch.eye(2))[:, 0].numpy()
    assert np.abs(quantiles[1] - [0.0, 1.0, 2.0, 3.0]).max() < 0.05
    assert np.abs(quantiles[0] - [0.5, 1.0, 1.5, 2.0]).max() < 0.05
