"""Users simulated one by one, number by number, earn what our arrays earn."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

import actors.envs  # noqa: F401  registers the ids

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.mark.parametrize(
    ("module", "env_id", "kwargs"),
    [
        ("movie_pick", "headrace/MoviePick10-v0", {}),
        ("next_item", "headrace/NextItem-v0", {}),
        ("proto_action", "headrace/ProtoAction-v0", {"actions": "items", "obs_mode": "ids"}),
        ("slate", "headrace/SlateMNL-v0", {"obs_mode": "ids"}),
        ("news_session", "headrace/NewsSession-v0", {"obs_mode": "ids"}),
    ],
)
def test_mean_rewards_agree(module: str, env_id: str, kwargs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    play = importlib.import_module(f"plain_users.{module}").play
    one_by_one = np.array([play(700, seed) for seed in range(100, 130)])
    env: Any = gymnasium.make_vec(env_id, 256, vectorization_mode="vector_entry_point", **kwargs)
    env.reset(seed=0)
    env.action_space.seed(0)
    rewards = np.array([env.step(env.action_space.sample())[1] for _ in range(600)])
    at_once = rewards.mean(axis=0)  # of each user
    error = np.hypot(one_by_one.std(ddof=1) / np.sqrt(30), at_once.std(ddof=1) / np.sqrt(256))
    assert abs(one_by_one.mean() - at_once.mean()) < 5.0 * error
