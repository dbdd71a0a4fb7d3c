"""MoviePick as a single Gymnasium environment."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from actors.envs.movie_pick.core import MoviePickCore
from actors.envs.movie_pick.model import MoviePickModel
from actors.envs.movie_pick.spaces import action_space, observation_space


class MoviePickEnv(gymnasium.Env[NDArray[Any], np.int64]):
    """One user. Like Gymnasium's own environments it has no end: `gymnasium.make` adds the limit of 100 steps.

    Args:
        render_mode: always None, there is nothing to draw.
        constants: fields of MoviePickModel.

    Attributes:
        item_embeddings: float32[films, film_dim], the films' vectors.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012  Gymnasium declares it an instance attribute

    def __init__(self, render_mode: str | None = None, **constants: Any) -> None:
        self.render_mode = render_mode
        self.core = MoviePickCore(MoviePickModel(**constants), 1)
        self.item_embeddings = self.core.catalogue.films
        self.observation_space = observation_space(self.core.model)
        self.action_space = action_space(self.core.model)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[Any], dict[str, Any]]:
        """Meet a new user."""
        super().reset(seed=seed)
        self.core.generator = self.np_random
        self.core.reset()
        return self.core.observe()[0], {}

    def step(self, action: np.int64) -> tuple[NDArray[Any], float, bool, bool, dict[str, Any]]:
        """Show one film."""
        reward = self.core.step(np.array([action], dtype=np.int64))
        return self.core.observe()[0], float(reward[0]), False, False, {}
