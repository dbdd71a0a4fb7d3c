"""How observations of a Gymnasium space are stored."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces

from replay_server.errors import ConfigError

Layout = tuple[str, tuple[int, ...]]
"""numpy dtype name and shape of one value."""


def observation_layout(space: spaces.Space[Any]) -> Layout:
    """Layout of one observation; floating-point observations are stored as float32.

    Raises:
        ConfigError: a space that is not one array (Dict, Tuple, Text, ...).
    """
    if isinstance(space, spaces.Box):
        return ("float32" if space.dtype.kind == "f" else space.dtype.name), space.shape
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary):
        return np.dtype(space.dtype).name, space.shape or ()
    raise ConfigError(
        f"environment.id: observation space {type(space).__name__} is not one array of numbers; add "
        "gymnasium.wrappers.FlattenObservation to environment.wrappers"
    )
