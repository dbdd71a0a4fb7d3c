"""Figures of an episode beside its return: of the episode that ended, whatever the autoreset mode."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from actors.environments import EnvironmentConfig
from actors.envs.movie_pick import MoviePickVectorEnv
from actors.evaluator import evaluate, play_first_episodes
from actors.vector_steps import VectorSteps
from learners.policies import Action
from replay_server.errors import EnvironmentFault


class Zero:
    """Always film 0."""

    def act(self, observation: Any, rng: np.random.Generator, *, explore: bool, env_steps: int) -> Action:
        return Action(np.zeros(len(observation), dtype=np.int64), np.zeros(len(observation), dtype=np.float32))


class Counting(gymnasium.Env[Any, Any]):
    """Environment i: episode k has i + 1 + k steps; tells the steps so far, and a rate when it has more than 2."""

    episode_metrics = ("steps", "rate")
    observation_space = gymnasium.spaces.Box(-1, 1, (1,), dtype=np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, index: int) -> None:
        self.length, self.t = index, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.length, self.t = self.length + 1, 0
        return np.zeros(1, dtype=np.float32), {}

    def step(self, action: Any) -> Any:
        self.t += 1
        info = {"steps": float(self.t), "rate": 1.0 / self.t if self.t > 2 else float("nan")}
        return np.zeros(1, dtype=np.float32), 1.0, self.t == self.length, False, info


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_single_environments_tell_theirs(mode: AutoresetMode) -> None:
    env = SyncVectorEnv([lambda i=i: Counting(i) for i in range(4)], autoreset_mode=mode)
    played = play_first_episodes(Zero(), VectorSteps(env), seed=0)
    np.testing.assert_array_equal(played.metrics["steps"], [1, 2, 3, 4])
    np.testing.assert_allclose(played.metrics["rate"], [np.nan, np.nan, 1 / 3, 1 / 4])


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_simulated_users_count_from_the_beginning_of_every_episode(mode: AutoresetMode) -> None:
    steps = VectorSteps(MoviePickVectorEnv(20, max_episode_steps=5, autoreset_mode=mode))
    steps.reset(3)
    clicks, completions, episodes = np.zeros(20), np.zeros(20), 0
    for _ in range(17):
        timestep = steps.step(np.zeros(20, dtype=np.int64))
        clicks += (timestep.reward > 0.5) & timestep.valid
        completions += (timestep.reward > 5.0) & timestep.valid
        if not timestep.truncated.any():
            assert timestep.metrics == {}
            continue
        np.testing.assert_array_equal(timestep.metrics["clicks"], clicks)
        np.testing.assert_array_equal(timestep.metrics["completions"], completions)
        clicks[:], completions[:], episodes = 0.0, 0.0, episodes + 1
    assert episodes >= 2


def test_evaluations_sum_them_up() -> None:
    config = EnvironmentConfig(id="headrace/MoviePick10-v0", max_episode_steps=6)
    result = evaluate(Zero(), config, 10, seed=1, num_envs=4)
    clicks, completions = (result.metrics[name].mean for name in ("clicks", "completions"))
    assert result.mean == pytest.approx(10 * completions + (clicks - completions) - 0.1 * (6 - clicks), abs=1e-4)
    wrappers = ["gymnasium.wrappers:FlattenObservation"]
    one_by_one = EnvironmentConfig(id=config.id, max_episode_steps=6, wrappers=wrappers)
    assert set(evaluate(Zero(), one_by_one, 3, seed=1).metrics) == {"clicks", "completions"}


def test_a_metric_that_is_not_there_is_named() -> None:
    class Forgetful(Counting):
        episode_metrics = ("steps", "recall")

    steps = VectorSteps(SyncVectorEnv([lambda: Forgetful(0)], autoreset_mode=AutoresetMode.SAME_STEP), "mine")
    steps.reset(0)
    with pytest.raises(EnvironmentFault, match="environment mine: recall of its episode_metrics is missing"):
        steps.step(np.zeros(1, dtype=np.int64))


def test_a_metric_of_another_shape_is_refused() -> None:
    class Wide(MoviePickVectorEnv):
        def step(self, actions: Any) -> Any:
            *rest, infos = super().step(actions)
            return *rest, {**infos, "clicks": np.zeros((2, 2))}

    steps = VectorSteps(Wide(2, max_episode_steps=1))
    steps.reset(0)
    with pytest.raises(EnvironmentFault, match=r"clicks of its episode_metrics has shape \(2, 2\), not \(2,\)"):
        steps.step(np.zeros(2, dtype=np.int64))
