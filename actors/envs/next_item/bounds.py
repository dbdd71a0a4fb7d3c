"""What no NextItem policy exceeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actors.envs.next_item.simulation import NextItem


def best_return(simulation: NextItem, steps: int) -> NDArray[np.float64]:
    """Expected return float64[B] of the best policy for the users as they stand, exactly.

    What is shown changes nothing of what follows, so the best policy takes the largest expected reward at every step:
    the sum over steps of P(topic now | topic at first) x largest click probability there.

    Args:
        simulation: users whose episodes begin.
        steps: length of an episode.
    """
    best = simulation.click_probabilities().max(axis=1)
    total, later = np.zeros(simulation.model.topics), best
    for _ in range(steps):
        total += later
        later = simulation.chain.matrix @ later
    return np.asarray(total[simulation.topic])


BOUNDS: Mapping[str, Callable[[Any], NDArray[np.float64]]] = {
    "best possible": lambda env: best_return(env.simulation, env.max_episode_steps)
}
