"""What no policy of MoviePick exceeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actors.envs.movie_pick.optimum import optimal_returns
from actors.envs.users import UsersVectorEnv
from replay_server.errors import ConfigError


def _exact_optimum(env: UsersVectorEnv) -> NDArray[np.float64]:
    if env.max_episode_steps is None:
        raise ConfigError("MoviePick without max_episode_steps has no optimum: its episodes have no end")
    return optimal_returns(env.simulation, env.max_episode_steps)  # type: ignore[arg-type]


BOUNDS: Mapping[str, Callable[[Any], NDArray[np.float64]]] = {"exact optimum": _exact_optimum}
