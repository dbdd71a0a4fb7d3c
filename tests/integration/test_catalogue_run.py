"""A run with a catalogue: from an environment's embeddings and history to records, learner and policy."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SHOP = '''
import gymnasium, numpy as np
from gymnasium import spaces

class Shop(gymnasium.Env):
    """A customer who likes one direction; what was bought lately is refused."""

    def __init__(self, takes):
        items = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
        self.item_embeddings = items / np.linalg.norm(items, axis=1, keepdims=True)
        self.action_space = spaces.Discrete(60) if takes == "ids" else spaces.Box(-1.0, 1.0, (4,), np.float32)
        history = spaces.Box(-1, 59, (3,), np.int64)
        self.observation_space = spaces.Dict({"history": history, "observation": spaces.Box(-5, 5, (4,), np.float32)})

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.taste, self.bought = self.np_random.normal(size=4).astype(np.float32), [-1, -1, -1]
        return self.seen(), {}

    def step(self, action):
        item = int(action)  if action.ndim == 0 else int(np.abs(self.item_embeddings - action).sum(axis=1).argmin())
        if item in self.bought[-3:]:
            raise ValueError(f"item {item} was bought lately")
        self.bought.append(item)
        return self.seen(), float(self.taste @ self.item_embeddings[item]), False, len(self.bought) >= 13, {}

    def seen(self):
        return {"history": np.array(self.bought[-3:]), "observation": self.taste}
'''


@pytest.mark.integration
@pytest.mark.parametrize("takes", ["ids", "embeddings"])
def test_wolpertinger_runs_and_never_repeats_itself(headrace: Callable[..., Any], tmp_path: Path, takes: str) -> None:
    (tmp_path / "shop_world.py").write_text(SHOP)
    (tmp_path / "shop.yaml").write_text(
        f"environment: {{id: 'shop_world:Shop', num_envs: 8, kwargs: {{takes: {takes}}}}}\n"
        "algorithm: {type: wolpertinger, torso: mlp, hidden_sizes: [16], batch_size: 32, neighbours: 4,\n"
        "            random_env_steps: 200}\n"
        "replay: {min_size: 200}\n"
        "learner: {samples_per_insert: 4.0}\n"
        "evaluation: {episodes: 4, every_env_steps: 400, final_episodes: 4}\n"
        "run: {total_env_steps: 800, metrics_every_env_steps: 400}\n"
    )
    run = tmp_path / "run"
    code, _, errors = headrace("train", "shop.yaml", "--runtime", "serial", "--run-dir", str(run)).finish(100)
    assert code == 0, errors
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["learner"]["stale_embeddings"] == 0.0 and last["updates"] > 0
