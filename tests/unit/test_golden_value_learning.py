"""Losses of the DQN family and n-step returns against rlax (`tests/golden/make_rlax.py`)."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from kit.golden import golden, gradient, same, single

from actors.accumulators import Accumulator, NStepAccumulator
from actors.episodes import EpisodeAccumulator
from actors.timestep import TimeStep
from learners.algorithms.dqn import DQNConfig
from learners.losses.distributional import categorical_projection, categorical_td, quantile_td
from learners.losses.reductions import weighted_mean
from learners.losses.value_learning import huber, q_learning_td_error, squared
from learners.policies import Action
from learners.task import DiscreteActions, Task
from learners.value_learning import ValueRule


def test_q_learning() -> None:
    given, expected = golden("rlax", "q_learning")
    error = q_learning_td_error(given.q_tm1, given.a_tm1, given.r_t, given.discount_t, given.q_t, given.q_t)
    same(error, expected.td_error)


@pytest.mark.parametrize("name", ["huber", "squared"])
def test_weighted_double_q_learning(name: str) -> None:
    given, expected = golden("rlax", f"double_q_learning_{name}")
    q_tm1 = given.q_tm1.requires_grad_()
    error = q_learning_td_error(q_tm1, given.a_tm1, given.r_t, given.discount_t, given.q_t, given.q_t_selector)
    losses = huber(error, given.delta) if name == "huber" else squared(error)
    mean = weighted_mean(losses, given.weights)
    same(error, expected.td_error)
    same(losses, expected.loss)
    same(mean, expected.mean)
    same(gradient(mean, q_tm1), expected.gradient)


@pytest.mark.parametrize("ending", ["truncated", "terminated"])
@pytest.mark.parametrize("n", [1, 3, 5])
def test_n_step_records(n: int, ending: str) -> None:
    given, expected = golden("rlax", f"n_step_{n}_{ending}")
    same(targets(NStepAccumulator(1, n, given.gamma), given, ending), expected.returns)


@pytest.mark.parametrize("ending", ["truncated", "terminated"])
def test_whole_episode_records(ending: str) -> None:
    given, expected = golden("rlax", f"discounted_{ending}")
    same(targets(EpisodeAccumulator(1, given.gamma), given, ending), expected.returns)


def targets(accumulator: Accumulator, given: SimpleNamespace, ending: str) -> torch.Tensor:
    """Reward + discount x value of the successor, of the records that an actor makes of one episode."""
    accumulator.first(np.zeros((1, 1)))
    records: list[tuple[float, float]] = []
    for step, reward in enumerate(given.r_t.numpy(), start=1):
        end = np.array([step == len(given.r_t)])
        place = np.full((1, 1), float(step))
        timestep = TimeStep(
            observation=np.zeros((1, 1)) if end[0] else place,
            next_observation=place,
            reward=np.array([reward]),
            terminated=end & (ending == "terminated"),
            truncated=end & (ending == "truncated"),
            valid=np.array([True]),
        )
        columns = accumulator.step(Action(np.zeros(1, np.int64), np.zeros(1, np.float32)), 0, timestep)
        values = given.v_t.numpy()[columns["next_observation"][:, 0].astype(int) - 1]
        bootstrapped = columns["reward"] + columns["discount"] * values
        records += zip(columns["observation"][:, 0], bootstrapped, strict=True)
    return torch.tensor([target for _, target in sorted(records)], dtype=torch.float64)


def test_categorical_projection() -> None:
    given, expected = golden("rlax", "categorical_projection")
    same(categorical_projection(given.probabilities, given.support, given.atoms), expected.projected)


@pytest.mark.parametrize("name", ["categorical_q_learning", "categorical_double_q_learning"])
def test_categorical_loss(name: str) -> None:
    given, expected = golden("rlax", name)
    logits = given.logits_tm1.requires_grad_()
    losses, _ = categorical_td(
        logits, given.a_tm1, given.r_t, given.discount_t, given.logits_t, given.q_t_selector, given.atoms
    )
    same(losses, expected.loss)
    same(gradient(weighted_mean(losses, given.weights), logits), expected.gradient)


@pytest.mark.parametrize("kappa", [1.0, 0.5])
def test_quantile_loss(kappa: float) -> None:
    """Ours is divided by kappa, as in Dabney et al. 2018 (implicit quantile networks); rlax's is not."""
    given, expected = golden("rlax", f"quantile_q_learning_{kappa}")
    quantiles, selector = given.quantiles_tm1.requires_grad_(), given.quantiles_selector.mean(dim=2)
    losses, _ = quantile_td(
        quantiles, given.a_tm1, given.r_t, given.discount_t, given.quantiles_t, selector, given.kappa
    )
    same(losses * kappa, expected.loss)
    same(gradient(weighted_mean(losses * kappa, given.weights), quantiles), expected.gradient)


def test_whole_updates_of_dqn() -> None:
    """Four updates on one batch: the Huber loss, clipping and Adam together, against Stable-Baselines3."""
    given, expected = single(*golden("sb3", "dqn_updates"))
    task = Task(observation_dtype="float32", observation_shape=(3,), actions=DiscreteActions(3))
    config = DQNConfig(
        double=False,
        dueling=False,
        hidden_sizes=(6,),
        learning_rate=given.learning_rate,
        max_grad_norm=0.1,
        target_update_period_updates=1_000,
    )
    rule = ValueRule(config, task, seed=0, device="cpu")
    with torch.no_grad():
        for network, name in ((rule.online, "online"), (rule.target, "target")):
            for parameter, theirs in zip(network.parameters(), given.weights[name].values(), strict=True):
                parameter.copy_(theirs)
    t = {
        "observation": given.observations,
        "action": given.actions,
        "next_observation": given.next_observations,
        "reward": given.rewards,
        "discount": given.discounts,
    }
    for number in range(1, given.steps + 1):
        rule.update(t, torch.ones(len(given.rewards)), number=number, diagnose=False)
    for parameter, theirs in zip(rule.online.parameters(), expected.weights["online"].values(), strict=True):
        same(parameter, theirs)
