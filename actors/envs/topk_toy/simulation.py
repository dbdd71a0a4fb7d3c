"""The toys' rules on plain arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from actors.envs.choice import unrepeated
from actors.envs.simulation import Outcome, never
from actors.envs.topk_toy.model import ITEMS, TopKToyModel


class TopKToy:
    """B users who are shown one slate and leave; nothing is random but the policy. See Simulation.

    Args:
        model: which toy.
        num_users: B.

    Attributes:
        model: as given.
    """

    episode_metrics = ()
    item_embeddings = None

    def __init__(self, model: TopKToyModel, num_users: int) -> None:
        self.model = model
        self.num_users = num_users
        self.generator = np.random.default_rng(0)
        self.observation_space = spaces.Box(0.0, 1.0, shape=(1,), dtype=np.float32)
        self.action_space: spaces.Space[Any] = spaces.Discrete(ITEMS)
        if model.slate_size > 1:
            self.action_space = spaces.MultiDiscrete([ITEMS] * model.slate_size)
        self._worth = model.worth().astype(np.float32)

    def reset(self, rows: NDArray[np.int64] | None = None) -> None:
        """All users are alike."""

    def step(self, action: NDArray[Any]) -> Outcome:
        """Show slates, integer[B, K] (integer[B] of one item); they are worth their different items."""
        slate = action.reshape(self.num_users, -1)
        worth = self._worth[slate]
        if slate.shape[1] > 1:
            worth = worth * unrepeated(slate)
        return Outcome(worth.sum(axis=1), np.ones(self.num_users, dtype=np.bool_), never(self.num_users))

    def observe(self) -> NDArray[np.float32]:
        """Always the same: float32[B, 1] of ones."""
        return np.ones((self.num_users, 1), dtype=np.float32)
