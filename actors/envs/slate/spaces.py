"""Observation and action spaces of the slate tasks."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces

from actors.envs.slate.model import SlateModel


def observation_space(model: SlateModel, embedding_size: int) -> spaces.Dict:
    """What is known of the user, the candidates, the answer to the last slate and, with pomdp, what was watched."""
    parts: dict[str, spaces.Space[Any]] = {
        "observation": spaces.Box(-1.0, 1.0, (observation_size(model),), np.float32),
        "candidates": _documents(model, model.candidates, embedding_size, 0),
        "response": spaces.MultiBinary(model.slots),
    }
    if model.pomdp:
        parts["history"] = _documents(model, model.history_length, embedding_size, -1)
    return spaces.Dict(parts)


def observation_size(model: SlateModel) -> int:
    """Numbers in part `observation`: whether something was watched last, interests, share of the time left."""
    return 1 + (0 if model.pomdp else model.topics) + model.show_budget


def action_space(model: SlateModel) -> spaces.MultiDiscrete | spaces.Box:
    """K positions among the candidates, or a number for each candidate."""
    if model.action_mode == "slate":
        return spaces.MultiDiscrete([model.candidates] * model.slots)
    return spaces.Box(-1.0, 1.0, (model.candidates,), np.float32)


def _documents(model: SlateModel, count: int, embedding_size: int, least: int) -> spaces.Box:
    if model.obs_mode == "ids":
        return spaces.Box(least, model.documents - 1, (count,), np.int32)
    return spaces.Box(-np.inf, np.inf, (count, embedding_size), np.float32)
