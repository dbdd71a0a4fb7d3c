"""A run whose environment offers other candidates every step, and forbids some of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ENVIRONMENT = '''
import gymnasium
import numpy as np
from gymnasium import spaces

ITEMS = np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32)


class Shop(gymnasium.Env):
    """Shows four places, each with an item, with none (-1) or with one that is sold out; a choice pays what it is worth
    to the customer, and ends the visit after eight."""

    item_embeddings = ITEMS
    observation_space = spaces.Dict({
        "observation": spaces.Box(-np.inf, np.inf, (4,), np.float32),
        "candidates": spaces.Box(-1, 11, (4,), np.int64),
        "action_mask": spaces.MultiBinary(4),
    })
    action_space = spaces.Discrete(4)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._time = 0
        return self._look(), {}

    def step(self, action):
        assert self._allowed[action], "an action that was not on offer"
        worth = ITEMS[self._candidates] @ self._taste
        best = worth[self._allowed].max()
        self._time += 1
        return self._look(), float(worth[action] - best), self._time == 8, False, {}

    def _look(self):
        self._taste = self.np_random.normal(size=4).astype(np.float32)
        self._candidates = self.np_random.permutation(12)[:4]
        self._candidates[self.np_random.integers(4)] = -1
        mask = np.ones(4, np.int8)
        mask[self.np_random.integers(4)] = 0
        self._allowed = (self._candidates >= 0) & (mask == 1)
        return {"observation": self._taste, "candidates": self._candidates, "action_mask": mask}
'''

CONFIG = """
runtime: serial
environment: {id: "shop:Shop", num_envs: 8}
algorithm:
  type: dqn
  action_values: embedding_dot
  target_update_tau: 0.05
  n_step: 1
  gamma: 0.1
  hidden_sizes: [32]
  batch_size: 64
  learning_rate: 0.01
  final_learning_rate: 0.001
  learning_rate_decay_env_steps: 3000
  epsilon_anneal_env_steps: 1000
replay: {min_size: 200}
learner: {samples_per_insert: 12}
evaluation: {every_env_steps: 0, final_episodes: 40}
run: {total_env_steps: 3000}
"""


def test_the_best_item_on_offer_is_found(headrace: Callable[..., Any], tmp_path: Path) -> None:
    """Whoever chooses among those on offer at random loses 8 x about 1.5 a visit."""
    (tmp_path / "shop.py").write_text(ENVIRONMENT)
    (tmp_path / "shop.yaml").write_text(CONFIG)
    run = tmp_path / "run"
    code, _, errors = headrace("train", "shop.yaml", "--run-dir", str(run)).finish(120)
    assert code == 0, errors
    result = json.loads((run / "result.json").read_text())
    assert result["evaluation"]["mean"] > -1.0
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert all(np.isfinite(v) for row in rows for v in row.get("learner", {}).values())
