"""Off-policy estimates against values worked out, and against the value that NextItem's policies really have."""

from __future__ import annotations

import numpy as np
import pytest

from actors.envs.next_item import NextItem, NextItemModel
from actors.envs.next_item.baselines import popularity
from actors.envs.next_item.behaviour import Behaviour
from actors.off_policy import ips, snips
from replay_server.errors import InvalidRecord


def test_estimates_are_the_formulas() -> None:
    reward, pi, beta = np.array([1.0, 0.0, 1.0]), np.log([0.5, 0.1, 0.2]), np.log([0.25, 0.5, 0.1])
    plain = ips(reward, pi, beta)  # weights 2, .2, 2
    assert plain.value == pytest.approx(4 / 3)
    assert plain.sem == pytest.approx(np.std([2, 0, 2]) / np.sqrt(3))
    assert plain.largest_weight == pytest.approx(2.0)
    assert plain.effective_records == pytest.approx(4.2**2 / 8.04)
    assert ips(reward, pi, beta, largest_weight=1.5).value == pytest.approx(1.0)
    normalised = snips(reward, pi, beta)
    v = 4 / 4.2
    assert normalised.value == pytest.approx(v)
    assert normalised.sem == pytest.approx(np.sqrt(2 * (2 * (1 - v)) ** 2 + (0.2 * v) ** 2) / 4.2)


def test_the_same_policy_gets_the_mean() -> None:
    reward, log_prob = np.array([0.0, 1.0, 3.0]), np.log([0.1, 0.2, 0.3])
    assert ips(reward, log_prob, log_prob).value == snips(reward, log_prob, log_prob).value == pytest.approx(4 / 3)


def test_estimates_agree_with_the_policys_own_value_and_their_errors_are_honest() -> None:
    """A policy that knows the topic, from logs that do not: 200 logs of 2,000 records."""
    simulation = NextItem(NextItemModel(items=100, topics=5), 400_000)
    simulation.generator = rng = np.random.default_rng(5)
    simulation.reset()
    clicks = simulation.click_probabilities()
    target = np.exp(8.0 * clicks) / np.exp(8.0 * clicks).sum(axis=1, keepdims=True)
    true = float(simulation.chain.stationary @ (target * clicks).sum(axis=1))
    behaviour = Behaviour.mix(popularity(simulation), uniform_share=0.3, skew=1.0)
    logged = behaviour.act(np.zeros((400_000, 1)), rng, explore=True, env_steps=0)
    log_prob = np.log(target[simulation.topic, logged.action])
    reward = simulation.step(logged.action).reward
    shown = reward.mean()
    assert abs(true - shown) > 20 * reward.std() / np.sqrt(len(reward))
    for estimator in (ips, snips):
        logs = [
            estimator(reward[i : i + 2000], log_prob[i : i + 2000], logged.log_prob[i : i + 2000])
            for i in range(0, 400_000, 2000)
        ]
        values, errors = np.array([e.value for e in logs]), np.array([e.sem for e in logs])
        assert abs(values.mean() - true) < 4 * values.std() / np.sqrt(200)
        covered = (np.abs(values - true) < 1.96 * errors).mean()
        assert 0.9 <= covered <= 0.99
        assert errors.mean() == pytest.approx(values.std(), rel=0.15)


def test_wrong_columns_are_refused() -> None:
    one = np.zeros(1)
    with pytest.raises(InvalidRecord, match="of one length, 1 or more"):
        ips(one, one, np.zeros(2))
    with pytest.raises(InvalidRecord, match="of one length, 1 or more"):
        snips(np.zeros(0), np.zeros(0), np.zeros(0))
    with pytest.raises(InvalidRecord, match="not finite"):
        ips(one, one, np.array([-np.inf]))
    assert ips(one + 1, np.array([-np.inf]), one).value == 0.0
