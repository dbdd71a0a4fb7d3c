"""What no policy exceeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

_BLOCK = 1024  # users looked at a time


def best_different_items(env: Any) -> NDArray[np.float64]:
    """Each user's most likely clicks on as many different items as an episode has steps, summed; float64[B].

    An item shown again is worth nothing and nothing that happens changes a probability, so this is the expected
    return of the best policy where every item is on offer, and an upper bound where only candidates are.
    """
    simulation, steps = env.simulation, env.max_episode_steps
    returns = []
    for start in range(0, simulation.num_users, _BLOCK):
        likely = simulation.clicks.of_all(simulation.users[start : start + _BLOCK])
        count = min(steps, likely.shape[1])
        best = np.partition(likely, likely.shape[1] - count, axis=1)[:, likely.shape[1] - count :]
        returns.append(best.sum(axis=1, dtype=np.float64))
    return np.concatenate(returns)


BOUNDS: Mapping[str, Callable[[Any], NDArray[np.float64]]] = {"best different items": best_different_items}
