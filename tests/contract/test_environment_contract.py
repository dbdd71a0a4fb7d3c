"""What every environment gives the rest of the system through VectorSteps."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from kit.log_users import random_users

from actors.environments import EnvironmentConfig, make_vector_env
from actors.layouts import observation_layout, observation_parts
from actors.timestep import TimeStep
from actors.vector_steps import VectorSteps

MOVIE_PICK = "headrace/MoviePick10-v0"
NEXT_ITEM = "headrace/NextItem-v0"
PROTO_ACTION = "headrace/ProtoAction-v0"
NEWS_SESSION = "headrace/NewsSession-v0"
LOG_USERS = "headrace/LogUsers-v0"
SLATE_MNL = "headrace/SlateMNL-v0"
SLATE_CASCADE = "headrace/SlateCascade-v0"
CONFIGS = {
    "movie_pick same_step": EnvironmentConfig(id=MOVIE_PICK, max_episode_steps=9),
    "movie_pick next_step": EnvironmentConfig(
        id=MOVIE_PICK, max_episode_steps=9, kwargs={"autoreset_mode": "NextStep"}
    ),
    "movie_pick disabled": EnvironmentConfig(id=MOVIE_PICK, max_episode_steps=9, kwargs={"autoreset_mode": "Disabled"}),
    "movie_pick ids": EnvironmentConfig(id=MOVIE_PICK, max_episode_steps=9, kwargs={"obs_mode": "ids"}),
    "movie_pick one by one": EnvironmentConfig(
        id=MOVIE_PICK, max_episode_steps=9, wrappers=["gymnasium.wrappers:FlattenObservation"]
    ),
    "next_item same_step": EnvironmentConfig(id=NEXT_ITEM, max_episode_steps=9),
    "next_item next_step": EnvironmentConfig(id=NEXT_ITEM, max_episode_steps=9, kwargs={"autoreset_mode": "NextStep"}),
    "next_item disabled": EnvironmentConfig(id=NEXT_ITEM, max_episode_steps=9, kwargs={"autoreset_mode": "Disabled"}),
    "proto_action": EnvironmentConfig(id=PROTO_ACTION, max_episode_steps=9),
    "proto_action next_step": EnvironmentConfig(
        id=PROTO_ACTION, max_episode_steps=9, kwargs={"autoreset_mode": "NextStep", "drift": 0.1}
    ),
    "proto_action disabled": EnvironmentConfig(
        id=PROTO_ACTION, max_episode_steps=9, kwargs={"autoreset_mode": "Disabled", "actions": "items"}
    ),
    "proto_action ids": EnvironmentConfig(
        id=PROTO_ACTION, max_episode_steps=9, kwargs={"obs_mode": "ids", "actions": "items"}
    ),
    "news_session": EnvironmentConfig(id=NEWS_SESSION, max_episode_steps=9),
    "news_session ids": EnvironmentConfig(id=NEWS_SESSION, max_episode_steps=9, kwargs={"obs_mode": "ids"}),
    "news_session next_step": EnvironmentConfig(
        id=NEWS_SESSION, max_episode_steps=9, kwargs={"autoreset_mode": "NextStep"}
    ),
    "news_session one by one": EnvironmentConfig(
        id=NEWS_SESSION, max_episode_steps=9, wrappers=["gymnasium.wrappers:PassiveEnvChecker"]
    ),
    "log_users same_step": EnvironmentConfig(id=LOG_USERS, max_episode_steps=9, kwargs={"model": "users.npz"}),
    "log_users next_step": EnvironmentConfig(
        id=LOG_USERS, max_episode_steps=9, kwargs={"model": "users.npz", "autoreset_mode": "NextStep"}
    ),
    "log_users disabled": EnvironmentConfig(
        id=LOG_USERS, max_episode_steps=9, kwargs={"model": "users.npz", "autoreset_mode": "Disabled"}
    ),
    "log_users ids": EnvironmentConfig(
        id=LOG_USERS,
        max_episode_steps=9,
        kwargs={"model": "users.npz", "obs_mode": "ids", "candidates": 5, "show_mask": True},
    ),
    "slate_mnl": EnvironmentConfig(id=SLATE_MNL, max_episode_steps=9),
    "slate_mnl next_step": EnvironmentConfig(id=SLATE_MNL, max_episode_steps=9, kwargs={"autoreset_mode": "NextStep"}),
    "slate_mnl disabled": EnvironmentConfig(
        id=SLATE_MNL, max_episode_steps=9, kwargs={"autoreset_mode": "Disabled", "pomdp": True}
    ),
    "slate_cascade ids": EnvironmentConfig(id=SLATE_CASCADE, max_episode_steps=9, kwargs={"obs_mode": "ids"}),
    "slate_cascade one by one": EnvironmentConfig(
        id=SLATE_CASCADE, max_episode_steps=9, wrappers=["gymnasium.wrappers:PassiveEnvChecker"]
    ),
    "cartpole": EnvironmentConfig(id="CartPole-v1", max_episode_steps=15),
    "lunar lander": EnvironmentConfig(id="LunarLander-v3", max_episode_steps=15),
    "pendulum": EnvironmentConfig(id="Pendulum-v1", max_episode_steps=9),
}
NUM_ENVS, STEPS = 3, 40


@pytest.fixture(params=CONFIGS.values(), ids=CONFIGS.keys())
def config(request: pytest.FixtureRequest) -> EnvironmentConfig:
    chosen: EnvironmentConfig = request.param
    return chosen


@pytest.fixture(autouse=True)
def fitted_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    random_users().save(tmp_path / "users.npz")
    monkeypatch.chdir(tmp_path)


def play(config: EnvironmentConfig, seed: int) -> tuple[VectorSteps, np.ndarray, list[TimeStep]]:
    steps = VectorSteps(make_vector_env(config, NUM_ENVS))
    first = steps.reset(seed)
    steps.env.action_space.seed(0)
    return steps, first, [steps.step(steps.env.action_space.sample()) for _ in range(STEPS)]


def unpacked(space: spaces.Space[Any], row: np.ndarray) -> Any:
    """One observation as the environment gave it."""
    if not isinstance(space, spaces.Dict):
        return row
    parts = observation_parts(space)
    return {p.name: row[p.start : p.stop].reshape(p.shape).astype(space[p.name].dtype) for p in parts}


class TestEnvironmentContract:
    def test_shapes_and_dtypes(self, config: EnvironmentConfig) -> None:
        steps, first, timesteps = play(config, 0)
        dtype, shape = observation_layout(steps.env.single_observation_space)
        for observation in [first, *(t.observation for t in timesteps), *(t.next_observation for t in timesteps)]:
            assert observation.dtype == dtype and observation.shape == (NUM_ENVS, *shape)
        for t in timesteps:
            assert t.reward.dtype == np.float32
            assert t.terminated.dtype == t.truncated.dtype == t.valid.dtype == np.bool_
            assert {a.shape for a in (t.reward, t.terminated, t.truncated, t.valid)} == {(NUM_ENVS,)}

    def test_observations_lie_in_the_space(self, config: EnvironmentConfig) -> None:
        steps, first, timesteps = play(config, 0)
        space = steps.env.single_observation_space
        for observation in [first, *(t.observation for t in timesteps)]:
            assert all(unpacked(space, row) in space for row in observation)

    def test_the_seed_decides_everything(self, config: EnvironmentConfig) -> None:
        _, first, timesteps = play(config, 7)
        _, again, replayed = play(config, 7)
        _, other, _ = play(config, 1000)
        np.testing.assert_array_equal(first, again)
        assert (first != other).any()
        for a, b in zip(timesteps, replayed, strict=True):
            for name in ("observation", "next_observation", "reward", "terminated", "truncated", "valid"):
                np.testing.assert_array_equal(getattr(a, name), getattr(b, name))

    def test_episodes_end_and_the_next_begins_elsewhere(self, config: EnvironmentConfig) -> None:
        _, _, timesteps = play(config, 3)
        ends = 0
        for now, following in pairwise(timesteps):
            ended = now.terminated | now.truncated
            assert not (ended & ~now.valid).any()
            going_on = ~ended & now.valid
            np.testing.assert_array_equal(now.observation[going_on], now.next_observation[going_on])
            for row in np.flatnonzero(ended):
                begin = now.observation[row] if following.valid[row] else following.observation[row]
                assert (begin != now.next_observation[row]).any()
            ends += int(ended.sum())
        assert ends >= NUM_ENVS

    def test_environments_differ_from_each_other(self, config: EnvironmentConfig) -> None:
        _, first, _ = play(config, 0)
        assert len({row.tobytes() for row in first}) == NUM_ENVS

    def test_a_limit_truncates(self, config: EnvironmentConfig) -> None:
        _, _, timesteps = play(config, 0)
        assert any(t.truncated.any() for t in timesteps) or any(t.terminated.any() for t in timesteps)
        length = np.zeros(NUM_ENVS, dtype=int)
        for t in timesteps:
            length += t.valid
            assert (length <= (config.max_episode_steps or 0)).all()
            np.testing.assert_array_equal(t.truncated, length == config.max_episode_steps)
            length[t.terminated | t.truncated] = 0
