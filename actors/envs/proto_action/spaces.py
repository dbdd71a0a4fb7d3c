"""Observation and action spaces of ProtoAction."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces

from actors.envs.proto_action.model import ProtoActionModel


def observation_space(model: ProtoActionModel, items: int, dim: int) -> spaces.Dict:
    """`history` (and with ids `rewards`), oldest first, and where it is shown `user`."""
    length = model.history_length
    parts: dict[str, spaces.Space[Any]]
    if model.obs_mode == "ids":
        parts = {
            "history": spaces.Box(-1, items - 1, (length,), np.int32),
            "rewards": spaces.Box(-model.reward_bound, model.reward_bound, (length,), np.float32),
        }
    else:
        parts = {"history": spaces.Box(-np.inf, np.inf, (length, dim + 1), np.float32)}
    if model.show_user:
        parts["user"] = spaces.Box(-np.inf, np.inf, (dim,), np.float32)
    return spaces.Dict(parts)


def action_space(model: ProtoActionModel, items: int, dim: int) -> spaces.Discrete | spaces.Box:
    """An item's id, or a vector of the cube that items lie in."""
    if model.actions == "items":
        return spaces.Discrete(items)
    return spaces.Box(-1.0, 1.0, (dim,), np.float32)
