"""Observation and action spaces of LogUsers."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces

from actors.envs.log_users.fitted_users import FittedUsers
from actors.envs.log_users.model import LogUsersModel


def observation_space(model: LogUsersModel, fitted: FittedUsers) -> spaces.Dict:
    """A Dict of the user, what he was shown, what he clicked and what is on offer."""
    items, length = len(fitted.item_names), model.history_length
    parts: dict[str, spaces.Space[Any]] = {}
    if model.show_user and model.obs_mode == "factors":
        width = fitted.user_factors.shape[1] + 1
        parts["observation"] = spaces.Box(-np.inf, np.inf, (width,), np.float32)
    elif model.show_user:
        parts["user"] = spaces.MultiDiscrete([len(fitted.user_names)], dtype=np.int32)
    parts["history"] = spaces.Box(-1, items - 1, (length,), np.int32)
    parts["clicked"] = spaces.MultiBinary(length)
    if model.candidates is not None:
        parts["candidates"] = spaces.Box(0, items - 1, (model.candidates,), np.int32)
    if model.show_mask:
        parts["action_mask"] = spaces.MultiBinary(_choices(model, fitted))
    return spaces.Dict(parts)


def action_space(model: LogUsersModel, fitted: FittedUsers) -> spaces.Discrete:
    """An item, or a place among the candidates."""
    return spaces.Discrete(_choices(model, fitted))


def _choices(model: LogUsersModel, fitted: FittedUsers) -> int:
    """How many actions there are."""
    return len(fitted.item_names) if model.candidates is None else model.candidates
