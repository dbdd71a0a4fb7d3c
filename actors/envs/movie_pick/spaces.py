"""Observation and action spaces of MoviePick."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces

from actors.envs.movie_pick.model import MoviePickModel


def observation_space(model: MoviePickModel) -> spaces.Space[Any]:
    """Box of user embedding and film vectors, or MultiDiscrete of user id and film ids (`films` = none yet)."""
    if model.obs_mode == "ids":
        population = model.population or 1
        return spaces.MultiDiscrete([population] + [model.films + 1] * model.history_length, dtype=np.int32)
    width = model.user_dim + model.history_length * model.film_dim
    return spaces.Box(-np.inf, np.inf, shape=(width,), dtype=np.float32)


def action_space(model: MoviePickModel) -> spaces.Discrete:
    """One film."""
    return spaces.Discrete(model.films)
