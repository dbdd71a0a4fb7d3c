"""Which environment explores how much."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def ape_x_epsilons(indices: Sequence[int] | NDArray[Any], total: int, base: float, alpha: float) -> NDArray[np.float64]:
    """Epsilon of environments `indices` out of `total`: base^(1 + alpha x i / (total - 1)) (Horgan et al. 2018).

    Args:
        indices: places of the environments among all environments of the run.
        total: environments of the whole run.
        base: epsilon of the most exploring one, in (0, 1].
        alpha: how far the least exploring one falls below it.

    Returns:
        float64[len(indices)].
    """
    places = np.asarray(indices, dtype=np.float64)
    return np.asarray(base ** (1.0 + alpha * places / max(total - 1, 1)))


def annealed(epsilons: NDArray[np.float64], env_steps: int, anneal_env_steps: int) -> NDArray[np.float64]:
    """Epsilons floored by a line falling from 1 to 0 over the run's first `anneal_env_steps` transitions."""
    if env_steps >= anneal_env_steps:
        return epsilons
    return np.maximum(epsilons, 1.0 - env_steps / anneal_env_steps)
