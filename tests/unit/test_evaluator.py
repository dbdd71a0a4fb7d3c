"""Greedy evaluation: one episode an environment, raw returns, no bias towards short episodes."""

from __future__ import annotations

from typing import Any

import gymnasium
import msgspec
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from actors.environments import EnvironmentConfig, make_vector_env
from actors.envs.movie_pick import MoviePickVectorEnv
from actors.evaluator import (
    Episodes,
    Estimate,
    EvaluationConfig,
    EvaluationResult,
    evaluate,
    play_first_episodes,
)
from actors.ladder import Ladder, LadderRow, find_baselines, ladder
from actors.vector_steps import VectorSteps
from learners.policies import Action


class Constant:
    """Always the same action; remembers how it was asked."""

    def __init__(self, value: int) -> None:
        self.value = value
        self.calls: list[tuple[int, bool, int]] = []

    def act(self, observation: Any, rng: np.random.Generator, *, explore: bool, env_steps: int) -> Action:
        self.calls.append((len(observation), explore, env_steps))
        return Action(np.full(len(observation), self.value), np.zeros(len(observation), dtype=np.float32))


class Lengths(gymnasium.Env[Any, Any]):
    """Environment i: first episode i + 1 steps of reward 1, every later one a single step of reward 1000."""

    observation_space = gymnasium.spaces.Box(-1, 1, (1,), dtype=np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, index: int) -> None:
        self.index, self.episode, self.t = index, -1, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.episode, self.t = self.episode + 1, 0
        return np.zeros(1, dtype=np.float32), {}

    def step(self, action: Any) -> Any:
        self.t += 1
        first = self.episode == 0
        over = self.t > self.index if first else True
        return np.zeros(1, dtype=np.float32), 1.0 if first else 1000.0, over, False, {}


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_only_the_first_episode_of_each_environment_counts(mode: AutoresetMode) -> None:
    env = SyncVectorEnv([lambda i=i: Lengths(i) for i in range(6)], autoreset_mode=mode)
    policy = Constant(0)
    played = play_first_episodes(policy, VectorSteps(env), seed=3, env_steps=77)
    assert played.returns.tolist() == played.lengths.tolist() == [1, 2, 3, 4, 5, 6]
    assert set(policy.calls) == {(6, False, 77)}


def test_mean_and_standard_error() -> None:
    result = EvaluationResult.of(Episodes(np.array([1.0, 2.0, 6.0]), np.array([1, 1, 1])))
    assert (result.mean, result.episodes, result.metrics) == (3.0, 3, {})
    assert result.sem == pytest.approx(np.sqrt(7.0 / 3.0))
    assert EvaluationResult.of(Episodes(np.array([4.0]), np.array([1]))).sem == 0.0


def test_metrics_are_means_over_the_episodes_that_have_them() -> None:
    metrics = {"rate": np.array([0.5, np.nan, 1.0]), "sessions": np.array([np.nan] * 3)}
    result = EvaluationResult.of(Episodes(np.zeros(3), np.ones(3, dtype=np.int64), metrics))
    assert result.metrics == {"rate": Estimate(0.75, 0.25)}
    assert result.summary() == {
        "mean": 0.0,
        "sem": 0.0,
        "episodes": 3,
        "metrics": {"rate": {"mean": 0.75, "sem": 0.25}},
    }


def test_evaluate_is_a_function_of_its_seed() -> None:
    config = EnvironmentConfig(id="CartPole-v1", num_envs=99)
    results = [evaluate(Constant(1), config, 12, seed) for seed in (5, 5, 6)]
    assert results[0].episodes == 12 and len(results[0].returns) == 12
    np.testing.assert_array_equal(results[0].returns, results[1].returns)
    assert (results[0].lengths != results[2].lengths).any()
    np.testing.assert_array_equal(results[0].returns, results[0].lengths)  # one point a step: raw, undiscounted


def test_rounds_of_fewer_environments_still_give_every_episode() -> None:
    policy = Constant(1)
    result = evaluate(policy, EnvironmentConfig(id="Acrobot-v1", max_episode_steps=7), 5, seed=1, num_envs=2)
    assert result.lengths.tolist() == [7] * 5
    assert {call[0] for call in policy.calls} == {2} and len(policy.calls) == 3 * 7


def test_a_slow_loop_over_single_environments_agrees() -> None:
    expected = []
    for index in range(4):
        env = gymnasium.make("Acrobot-v1", max_episode_steps=20)
        env.reset(seed=10 + index)
        total, over = 0.0, False
        while not over:
            _, reward, terminated, truncated, _ = env.step(2)
            total, over = total + float(reward), terminated or truncated
        expected.append(total)
    result = evaluate(Constant(2), EnvironmentConfig(id="Acrobot-v1", max_episode_steps=20), 4, seed=10)
    np.testing.assert_allclose(result.returns, expected)


def test_learning_baselines_are_told_what_came_of_their_actions() -> None:
    class Learning(Constant):
        heard = 0

        def observe(self, action: Action, timestep: Any) -> None:
            assert len(timestep.reward) == len(action.action)
            self.heard += 1

    policy = Learning(0)
    evaluate(policy, EnvironmentConfig(id="headrace/MoviePick10-v0", max_episode_steps=9), 3, seed=0)
    assert policy.heard == len(policy.calls) == 9


def test_environments_without_baselines_have_an_empty_ladder() -> None:
    config = EnvironmentConfig(id="CartPole-v1")
    assert find_baselines(make_vector_env(config, 1)) == {}
    assert ladder(config, 2, seed=0) == []


def test_baselines_meet_the_same_users() -> None:
    config = EnvironmentConfig(id="headrace/MoviePick10-v0")
    again = [ladder(config, 16, seed=1) for _ in range(2)]
    assert again[0] == again[1]
    most_popular = next(row for row in again[0] if row.name == "most popular")
    env = make_vector_env(config, 16)
    film = int(np.argmax(env.unwrapped.simulation.catalogue.popularity))  # type: ignore[attr-defined]
    assert evaluate(Constant(film), config, 16, seed=1).mean == most_popular.mean


class Bounded(MoviePickVectorEnv):
    """MoviePick with made-up bounds: one of each user's first click logit, and one worked out."""

    @staticmethod
    def bounds() -> Any:
        return {
            "of users": lambda env: env.simulation.users.click_logit[:, 0].astype(float),
            "worked out": lambda env: np.float64(971.0),
        }


def test_bounds_are_of_the_users_that_the_policies_meet() -> None:
    config = EnvironmentConfig(id=f"{__name__}:Bounded", max_episode_steps=3)
    env = Bounded(8, max_episode_steps=3)
    env.reset(seed=5)
    logits = env.simulation.users.click_logit[:, 0].astype(float)
    with Ladder(config, 8, seed=5) as rungs:
        rungs.baseline("random")  # leaves other users behind
        row = rungs.bound("of users")
        assert rungs.bound("worked out") == LadderRow("worked out", 971.0, 0.0, 0, bound=True)
    assert (row.mean, row.episodes, row.bound) == (logits.mean(), 8, True)
    assert row.sem == pytest.approx(logits.std(ddof=1) / np.sqrt(8))


def test_config_limits() -> None:
    assert EvaluationConfig() == EvaluationConfig(episodes=20, every_env_steps=20_000, final_episodes=100)
    for name, value in (("episodes", 0), ("every_env_steps", -1), ("final_episodes", 0)):
        with pytest.raises(msgspec.ValidationError, match=f"at `\\$.{name}`"):
            msgspec.convert({name: value}, EvaluationConfig)
