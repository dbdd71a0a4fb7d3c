"""Discrete BCQ: which actions count, the loss by hand, logs whose naive maximum lies where nobody ever was."""

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
    random_batch,
    random_columns,
    spec_of,
)

from learners.algorithms.behaviour_cloning import BehaviourCloningConfig
from learners.algorithms.discrete_bcq import DiscreteBCQConfig
from learners.losses.cloning import likely_actions, negative_log_likelihood
from learners.task import DiscreteActions, Part, Task
from replay_server.errors import ConfigError

SMALL = DiscreteBCQConfig(hidden_sizes=(16,))
DECAY = {"final_learning_rate": 1e-5, "learning_rate_decay_env_steps": 300}


def test_likely_actions_by_hand() -> None:
    logits = torch.log(torch.tensor([[0.5, 0.2, 0.1, 0.2], [0.7, 0.2, 0.05, 0.05], [0.25, 0.25, 0.25, 0.25]]))
    assert likely_actions(logits, 0.3).tolist() == [
        [True, True, False, True],
        [True, False, False, False],
        [True, True, True, True],
    ]
    assert likely_actions(logits, 0.0).all()
    assert likely_actions(logits, 0.99)[2].all()  # equals are all the likeliest
    none = logits.clone()
    none[0, 0] = -torch.inf
    assert likely_actions(none, 0.9)[0].tolist() == [False, True, False, True]


def test_negative_log_likelihood_by_hand() -> None:
    logits = torch.tensor([[0.0, np.log(3.0)], [2.0, 2.0]])
    assert negative_log_likelihood(logits, torch.tensor([1, 0])).tolist() == pytest.approx([-np.log(0.75), np.log(2)])
    with pytest.raises(ValueError, match="a_tm1"):
        negative_log_likelihood(logits, torch.tensor([[1], [0]]))


def test_the_update_descends_huber_plus_likelihood_plus_penalty_over_allowed_actions() -> None:
    """The rule's reported loss against the same sum written out row by row."""
    config = msgspec.structs.replace(SMALL, diagnose_every_updates=1, threshold=0.9)
    learner = learner_of(config, DISCRETE)
    rule, columns = learner._rule, random_columns(config, DISCRETE, np.random.default_rng(0))
    t = {name: torch.from_numpy(column) for name, column in columns.items()}
    with torch.no_grad():
        rule.target.head.bias.copy_(torch.tensor([0.5, -1.0, 2.0]))
        rule.target.behaviour.head.bias.copy_(torch.tensor([9.0, -9.0, 0.0]))  # not asked: the newest clone decides
        q_tm1, q_select, q_t = (
            rule.online(t["observation"]),
            rule.online(t["next_observation"]),
            rule.target(t["next_observation"]),
        )
        behaviour, behaviour_t = (
            torch.softmax(rule.online.behaviour(t[name]), dim=1) for name in ("observation", "next_observation")
        )
        logits = rule.online.behaviour(t["observation"])
    expected, restricted = 0.0, 0
    for row in range(16):
        allowed = [a for a in range(3) if behaviour_t[row, a] / behaviour_t[row].max() > 0.9]
        restricted += len(allowed) < 3
        best = max(allowed, key=lambda a: float(q_select[row, a]))
        action = columns["action"][row]
        target = columns["reward"][row] + columns["discount"][row] * float(q_t[row, best])
        error = abs(target - float(q_tm1[row, action]))
        expected += 0.5 * error**2 if error < 1 else error - 0.5
        expected += -np.log(float(behaviour[row, action])) + 0.01 * float((logits[row] ** 2).mean())
    assert restricted > 3
    learner.step(batch_of(spec_of(config, DISCRETE), columns))
    metrics = learner.take_metrics()
    assert metrics["loss"] == pytest.approx(expected / 16, rel=1e-4)
    common = {"q_mean", "q_std", "target_mean", "target_std", "td_error", "gradient_norm_online", "cloning_loss"}
    assert common <= metrics.keys() and 1 / 3 <= metrics["allowed_actions"] < 1


def test_both_networks_learn_the_target_moves_by_tau_and_weights_count() -> None:
    config = msgspec.structs.replace(SMALL, target_update_tau=0.25)
    skewed = np.linspace(0.2, 1.8, 16) / 16
    learner, other = learner_of(config, DISCRETE), learner_of(config, DISCRETE)
    before = learner.state_dict()
    learner.step(random_batch(config, DISCRETE))
    other.step(random_batch(config, DISCRETE, probabilities=skewed))
    after, weighted = learner.state_dict(), other.state_dict()
    for name in [n for n in before if n.startswith("online.") and n.endswith("weight")]:
        assert not torch.equal(before[name], after[name]) and not torch.equal(after[name], weighted[name]), name
        target = name.replace("online.", "target.", 1)
        assert torch.allclose(after[target], 0.75 * before[target] + 0.25 * after[name], atol=1e-6)


def test_every_setting_does_something() -> None:
    changes = {
        "target_update_tau": 0.5,
        "huber_delta": 0.1,
        "threshold": 0.95,
        "logits_penalty": 1.0,
        "final_learning_rate": (1e-4, DECAY),
        "learning_rate_decay_env_steps": (200, DECAY),
        "final_importance_beta": (0.5, {"importance_beta_env_steps": 200}),
        "importance_beta_env_steps": 300,
    }
    every_field_matters(SMALL, DISCRETE, changes, elsewhere={"epsilon"})


def test_continuous_actions_are_refused() -> None:
    with pytest.raises(ConfigError, match="discrete_bcq takes Discrete actions"):
        learner_of(SMALL, CONTINUOUS)


def test_candidates_are_refused() -> None:
    parts = (Part("observation", 0, 2, (2,), False), Part("candidates", 2, 5, (3,), True, 9))
    with pytest.raises(ConfigError, match=r"algorithm\.type: .* places among the candidates"):
        learner_of(SMALL, msgspec.structs.replace(DISCRETE, parts=parts))


def test_exploring_stays_among_allowed_actions_with_the_stated_probability() -> None:
    config = msgspec.structs.replace(SMALL, threshold=0.9, epsilon=0.5)
    policy = policy_of(config, DISCRETE, learner=learner_of(config, DISCRETE))
    seen = np.random.default_rng(3).normal(size=(2000, 5)).astype(np.float32)
    with torch.no_grad():
        allowed = policy._network.allowed(torch.from_numpy(seen)).numpy()
    greedy = policy.act(seen, np.random.default_rng(5), explore=False, env_steps=0)
    drawn = policy.act(seen, np.random.default_rng(5), explore=True, env_steps=0)
    assert (~allowed).any() and allowed[np.arange(2000), drawn.action].all()
    assert allowed[np.arange(2000), greedy.action].all() and not greedy.log_prob.any()
    expected = 0.5 / allowed.sum(axis=1) + 0.5 * (drawn.action == greedy.action)
    assert np.exp(drawn.log_prob) == pytest.approx(expected)
    assert (drawn.action != greedy.action).mean() == pytest.approx(np.mean(0.5 - 0.5 / allowed.sum(axis=1)), abs=0.05)


def test_an_action_that_is_not_offered_is_never_taken_nor_bootstrapped_from() -> None:
    parts = (Part("action_mask", 0, 3, (3,), True), Part("observation", 3, 5, (2,), False))
    task = Task(observation_dtype="float32", observation_shape=(5,), actions=DiscreteActions(3), parts=parts)
    config = msgspec.structs.replace(SMALL, threshold=0.0)
    policy = policy_of(config, task, learner=learner_of(config, task))
    seen = np.random.default_rng(3).normal(size=(90, 5)).astype(np.float32)
    seen[:, :3] = 1.0
    seen[np.arange(90), np.arange(90) % 3] = 0.0
    for explore in (False, True):
        action = policy.act(seen, np.random.default_rng(5), explore=explore, env_steps=0).action
        assert (seen[np.arange(90), action] == 1.0).all()


def test_a_logged_action_that_its_own_mask_forbids_is_learnt_from_all_the_same() -> None:
    parts = (Part("action_mask", 0, 3, (3,), True), Part("observation", 3, 5, (2,), False))
    task = Task(observation_dtype="float32", observation_shape=(5,), actions=DiscreteActions(3), parts=parts)
    for config in (SMALL, BehaviourCloningConfig(hidden_sizes=(8,), least_reward=100.0)):
        columns = random_columns(config, task, np.random.default_rng(4))
        columns["observation"][:, :3] = [1.0, 1.0, 0.0]
        columns["action"][:] = 2
        learner = learner_of(config, task)
        learner.step(batch_of(spec_of(config, task), columns))
        assert learner.skipped_updates == 0


# A log with a known answer

STATES, GAMMA = 4, 0.9
CHAIN = Task(observation_dtype="float32", observation_shape=(STATES,), actions=DiscreteActions(3))


def chain_log(rng: np.random.Generator, size: int) -> dict[str, np.ndarray]:
    """States 0 to 3 in a row; 0 ends it for 0.2, 1 walks on and earns 1 at the end; 2 was tried in state 3 alone.

    There it ends the episode with 0; nothing says how it would do elsewhere.
    """
    state = rng.integers(0, STATES, size)
    action = np.where(rng.random(size) < 0.3, 0, 1)
    action = np.where((state == 3) & (rng.random(size) < 0.3), 2, action)
    after = np.minimum(state + 1, STATES - 1)
    ends = (action != 1) | (state == 3)
    return {
        "observation": np.eye(STATES, dtype=np.float32)[state],
        "next_observation": np.eye(STATES, dtype=np.float32)[after],
        "action": action,
        "reward": np.where(action == 0, 0.2, np.where((action == 1) & (state == 3), 1.0, 0.0)).astype(np.float32),
        "discount": np.where(ends, 0.0, GAMMA).astype(np.float32),
        "behaviour_log_prob": np.zeros(size, np.float32),
        "policy_version": np.zeros(size, np.int64),
    }


def trained_on_the_chain(threshold: float) -> Any:
    config = DiscreteBCQConfig(
        hidden_sizes=(32,), learning_rate=3e-3, target_update_tau=0.05, threshold=threshold, gamma=GAMMA
    )
    learner, rng, spec = learner_of(config, CHAIN), np.random.default_rng(0), spec_of(config, CHAIN)
    with torch.no_grad():  # an unlucky start: what was never tried looks best of all
        for network in (learner._rule.online, learner._rule.target):
            network.head.bias[2] = 20.0
    for _ in range(700):
        learner.step(batch_of(spec, chain_log(rng, 64)))
    policy = policy_of(config, CHAIN, learner=learner)
    seen = np.eye(STATES, dtype=np.float32)
    with torch.no_grad():
        q = learner._rule.online(torch.from_numpy(seen)).numpy()
    return policy.act(seen, rng, explore=False, env_steps=0).action, q


def test_the_best_of_what_was_tried_is_found_and_what_was_not_is_left_alone() -> None:
    action, q = trained_on_the_chain(threshold=0.3)
    assert action.tolist() == [1, 1, 1, 1]
    assert q[:, 1] == pytest.approx(GAMMA ** np.arange(3, -1, -1), abs=0.05)  # the values of walking on
    naive, wrong = trained_on_the_chain(threshold=0.0)
    assert 2 in naive[:3] and wrong[:3, 1].max() > 1.5  # without the constraint it chases what nobody ever saw
