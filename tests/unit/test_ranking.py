"""Ranks against a sort, with ties counted against the policy; what an evaluation makes of them."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from actors.envs.next_item import NextItemVectorEnv
from actors.envs.next_item.baselines import BASELINES, popularity
from actors.evaluator import EvaluationResult, play_first_episodes
from actors.ranking import RankingMetrics, conservative_ranks
from actors.vector_steps import VectorSteps
from learners.policies import Action
from replay_server.errors import EnvironmentFault


def test_ranks_are_those_of_a_sort_where_nothing_ties() -> None:
    rng = np.random.default_rng(0)
    scores, item = rng.normal(size=(50, 30)), rng.integers(30, size=50)
    expected = [sorted(row, reverse=True).index(row[i]) + 1 for row, i in zip(scores, item, strict=True)]
    np.testing.assert_array_equal(conservative_ranks(scores, item), expected)


def test_ties_and_missing_scores_come_before_the_item() -> None:
    nan = np.nan
    scores = np.array([[1, 1, 1, 1], [3, 2, 2, 1], [3, 2, 2, 1], [nan, 1, 0, 0], [5, 1, nan, 0], [0, 1, 2, 3]], float)
    item = np.array([0, 1, 0, 1, 2, 3])
    np.testing.assert_array_equal(conservative_ranks(scores, item), [4, 3, 1, 2, 4, 1])


def test_metrics_are_means_over_an_episodes_steps() -> None:
    metrics = RankingMetrics(3)
    scores = -np.tile(np.arange(50.0), (3, 1))  # item i has rank i + 1
    metrics.add(scores, np.array([0, 19, 20]), np.array([True, True, True]))
    metrics.add(scores, np.array([3, -1, 49]), np.array([True, True, True]))
    metrics.add(scores, np.array([49, 49, 0]), np.array([False, False, False]))
    found = metrics.of_episodes()
    np.testing.assert_allclose(found["recall_at_20"], [1.0, 1.0, 0.0])
    np.testing.assert_allclose(found["mrr_at_20"], [(1 + 1 / 4) / 2, 1 / 20, 0.0])
    assert np.isnan(RankingMetrics(1).of_episodes()["recall_at_20"]).all()


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_an_evaluation_ranks_what_was_consumed_next(mode: AutoresetMode) -> None:
    env = NextItemVectorEnv(400, max_episode_steps=8, autoreset_mode=mode)
    policy = BASELINES["most popular"](env)
    played = play_first_episodes(policy, VectorSteps(env), seed=3)
    env.reset(seed=3)
    best = np.argsort(-popularity(env.simulation), kind="stable")[:20].tolist()
    hits = np.zeros(400)
    for _ in range(8):
        consumed = env.simulation.step(np.zeros(400, dtype=np.int64)).info["next_item"]
        hits += [item in best for item in consumed]
    np.testing.assert_allclose(played.metrics["recall_at_20"], hits / 8)
    oracle = EvaluationResult.of(play_first_episodes(BASELINES["myopic oracle"](env), VectorSteps(env), seed=3))
    topics, chance = env.simulation.chain, np.sort(env.simulation.next_item_probabilities(), axis=1)[:, ::-1]
    recall, mrr = oracle.metrics["recall_at_20"], oracle.metrics["mrr_at_20"]
    assert abs(recall.mean - topics.stationary @ chance[:, :20].sum(axis=1)) < 4 * recall.sem
    assert abs(mrr.mean - topics.stationary @ (chance[:, :20] / np.arange(1, 21)).sum(axis=1)) < 4 * mrr.sem
    assert "recall_at_20" not in play_first_episodes(BASELINES["random"](env), VectorSteps(env), seed=3).metrics


class Telling(gymnasium.Env[Any, Any]):
    """Environment i has episodes of i + 1 steps, in step t of which item t was consumed."""

    observation_space = gymnasium.spaces.Box(-1, 1, (1,), dtype=np.float32)
    action_space = gymnasium.spaces.Discrete(9)

    def __init__(self, index: int, dtype: type) -> None:
        self.index, self.t, self.dtype = index, 0, dtype

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.t = 0
        return np.zeros(1, dtype=np.float32), {}

    def step(self, action: Any) -> Any:
        self.t += 1
        return np.zeros(1, dtype=np.float32), 0.0, self.t > self.index, False, {"next_item": self.dtype(self.t)}


class Ascending:
    """Recommends item 0 first, then item 1 and so on."""

    def act(self, observation: Any, rng: np.random.Generator, *, explore: bool, env_steps: int) -> Action:
        return Action(np.zeros(len(observation), dtype=np.int64), np.zeros(len(observation), dtype=np.float32))

    def scores(self, observation: Any) -> Any:
        return np.tile(-np.arange(9.0), (len(observation), 1))


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_single_environments_tell_what_was_consumed(mode: AutoresetMode) -> None:
    env = SyncVectorEnv([lambda i=i: Telling(i, int) for i in range(3)], autoreset_mode=mode)
    played = play_first_episodes(Ascending(), VectorSteps(env), seed=0)
    expected = [np.mean([1 / (t + 1) for t in range(1, i + 2)]) for i in range(3)]
    np.testing.assert_allclose(played.metrics["mrr_at_20"], expected)


def test_what_was_consumed_is_a_whole_number() -> None:
    env = SyncVectorEnv([lambda: Telling(0, float)], autoreset_mode=AutoresetMode.SAME_STEP)
    steps = VectorSteps(env, "mine")
    steps.reset(0)
    with pytest.raises(EnvironmentFault, match="environment mine: next_item of its info is float"):
        steps.step(np.zeros(1, dtype=np.int64))
