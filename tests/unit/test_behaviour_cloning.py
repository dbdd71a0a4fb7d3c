"""Filtered behaviour cloning: which records count, losses by hand, logs of a mixed behaviour."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from kit.learning import (
    CONTINUOUS,
    DISCRETE,
    batch_of,
    every_field_matters,
    learner_of,
    policy_of,
    random_columns,
    spec_of,
)

from learners.algorithms.behaviour_cloning import BehaviourCloningConfig
from learners.losses.reductions import masked_mean
from learners.task import DiscreteActions, Part, SlateActions, Task
from replay_server.errors import ConfigError

SMALL = BehaviourCloningConfig(hidden_sizes=(16,))
DECAY = {"final_learning_rate": 1e-5, "learning_rate_decay_env_steps": 300}
BOTH = pytest.mark.parametrize("task", [DISCRETE, CONTINUOUS], ids=["discrete", "continuous"])


def test_the_mean_of_kept_records_by_hand() -> None:
    losses = torch.tensor([1.0, 2.0, 4.0])
    assert masked_mean(losses, torch.tensor([1.0, 0.0, 1.0])) == pytest.approx((1.0 + 4.0) / 2)
    assert masked_mean(losses, torch.zeros(3)) == 0.0
    with pytest.raises(ValueError, match="mask"):
        masked_mean(losses, torch.ones(3, 1))


@BOTH
@pytest.mark.parametrize(("settings", "kept"), [({}, 16), ({"least_reward": 0.5}, 5), ({"reward_quantile": 0.75}, 4)])
def test_only_records_with_a_good_reward_are_learnt_from(task: Task, settings: dict[str, float], kept: int) -> None:
    config = BehaviourCloningConfig(hidden_sizes=(16,), diagnose_every_updates=1, **settings)
    columns = random_columns(config, task, np.random.default_rng(0))
    columns["reward"] = np.linspace(-1.0, 1.1, 16).astype(np.float32)
    other = {name: column.copy() for name, column in columns.items()}
    other["observation"][: 16 - kept] += 1.0  # what is not kept does not matter
    states = []
    for data in (columns, other):
        learner = learner_of(config, task)
        assert learner.step(batch_of(spec_of(config, task), data)) is None  # no errors, so no priorities
        assert learner.take_metrics()["kept_records"] == pytest.approx(kept / 16)
        states.append(learner.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_two_filters_at_once_are_refused() -> None:
    with pytest.raises(ValueError, match="least_reward and reward_quantile"):
        BehaviourCloningConfig(least_reward=0.0, reward_quantile=0.5)


def test_losses_are_those_written_out() -> None:
    for task in (DISCRETE, CONTINUOUS):
        config = msgspec.structs.replace(SMALL, diagnose_every_updates=1)
        learner = learner_of(config, task)
        columns = random_columns(config, task, np.random.default_rng(0))
        with torch.no_grad():
            output = learner._rule.network(torch.from_numpy(columns["observation"])).numpy()
        if task is DISCRETE:
            probability = np.exp(output) / np.exp(output).sum(axis=1, keepdims=True)
            expected = -np.log(probability[np.arange(16), columns["action"]]).mean()
        else:
            half = (np.array(task.actions.high) - task.actions.low) / 2
            expected = (((output - columns["action"]) / half) ** 2).mean()
        learner.step(batch_of(spec_of(config, task), columns))
        assert learner.take_metrics()["loss"] == pytest.approx(expected, rel=1e-4)


@BOTH
def test_importance_weights_count(task: Task) -> None:
    columns, states = random_columns(SMALL, task, np.random.default_rng(0)), []
    for probabilities in (None, np.linspace(0.2, 1.8, 16) / 16):
        learner = learner_of(SMALL, task)
        learner.step(batch_of(spec_of(SMALL, task), columns, probabilities))
        states.append(learner.state_dict()["network.head.weight"])
    assert not torch.equal(*states)


@BOTH
def test_every_setting_does_something(task: Task) -> None:
    changes: dict[str, Any] = {
        "least_reward": 0.3,
        "reward_quantile": 0.6,
        "activation": "tanh",
        "final_learning_rate": (1e-4, DECAY),
        "learning_rate_decay_env_steps": (200, DECAY),
        "final_importance_beta": (0.5, {"importance_beta_env_steps": 200}),
        "importance_beta_env_steps": 300,
    }
    every_field_matters(SMALL, task, changes, elsewhere={"sigma", "temperature", "priority_epsilon"})


def test_slates_are_refused() -> None:
    task = Task(observation_dtype="float32", observation_shape=(5,), actions=SlateActions(9, 2))
    with pytest.raises(ConfigError, match="behaviour_cloning takes Discrete actions"):
        learner_of(SMALL, task)


def test_candidates_are_refused() -> None:
    """An action would be a place among them, whatever item is there."""
    parts = (Part("observation", 0, 2, (2,), False), Part("candidates", 2, 5, (3,), True, 9))
    with pytest.raises(ConfigError, match=r"algorithm\.type: .* places among the candidates"):
        learner_of(SMALL, msgspec.structs.replace(DISCRETE, parts=parts))


def test_policies_do_the_likeliest_or_draw_with_the_stated_probability() -> None:
    learner = learner_of(SMALL, DISCRETE)
    seen = np.random.default_rng(3).normal(size=(3000, 5)).astype(np.float32)
    with torch.no_grad():
        logits = learner._rule.network(torch.from_numpy(seen)).numpy()
    for temperature in (1.0, 0.2):
        policy = policy_of(msgspec.structs.replace(SMALL, temperature=temperature), DISCRETE, learner=learner)
        greedy = policy.act(seen, np.random.default_rng(0), explore=False, env_steps=0)
        assert np.array_equal(greedy.action, logits.argmax(axis=1))
        drawn = policy.act(seen, np.random.default_rng(0), explore=True, env_steps=0)
        probability = np.exp(logits / temperature)
        probability /= probability.sum(axis=1, keepdims=True)
        assert np.exp(drawn.log_prob) == pytest.approx(probability[np.arange(3000), drawn.action], rel=1e-4)
        assert np.bincount(drawn.action) / 3000 == pytest.approx(probability.mean(axis=0), abs=0.03)
    for sigma in (0.1, 0.4):
        config = msgspec.structs.replace(SMALL, sigma=sigma)
        policy = policy_of(config, CONTINUOUS, learner=learner_of(config, CONTINUOUS))
        greedy, drawn = (policy.act(seen, np.random.default_rng(0), explore=e, env_steps=0) for e in (False, True))
        half = (np.float32(CONTINUOUS.actions.high) - CONTINUOUS.actions.low) / 2
        assert ((drawn.action - greedy.action) / half).std() == pytest.approx(sigma, rel=0.15)


def test_actions_that_are_not_offered_are_neither_learnt_nor_taken() -> None:
    parts = (Part("action_mask", 0, 3, (3,), True), Part("observation", 3, 5, (2,), False))
    task = Task(observation_dtype="float32", observation_shape=(5,), actions=DiscreteActions(3), parts=parts)
    policy = policy_of(SMALL, task, learner=learner_of(SMALL, task))
    seen = np.ones((90, 5), np.float32)
    seen[np.arange(90), np.arange(90) % 3] = 0.0
    for explore in (False, True):
        action = policy.act(seen, np.random.default_rng(5), explore=explore, env_steps=0).action
        assert (seen[np.arange(90), action] == 1.0).all()


def test_a_filter_picks_the_better_of_two_behaviours() -> None:
    """Half of a log does action 0 for 1, half action 2 for 0.2: the clone does what it saw more of, the filter 0."""
    rng, chosen = np.random.default_rng(0), []
    for filtered in ({}, {"least_reward": 0.5}):
        config = BehaviourCloningConfig(hidden_sizes=(16,), learning_rate=1e-2, **filtered)
        learner = learner_of(config, DISCRETE)
        for _ in range(100):
            columns = random_columns(config, DISCRETE, rng, 32)
            columns["action"] = np.where(rng.random(32) < 0.4, 0, 2)
            columns["reward"] = np.where(columns["action"] == 0, 1.0, 0.2).astype(np.float32)
            learner.step(batch_of(spec_of(config, DISCRETE), columns))
        seen = rng.normal(size=(50, 5)).astype(np.float32)
        chosen.append(policy_of(config, DISCRETE, learner=learner).act(seen, rng, explore=False, env_steps=0).action)
    assert (chosen[0] == 2).mean() > 0.8 and (chosen[1] == 0).all()
