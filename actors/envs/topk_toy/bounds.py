"""What no policy exceeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actors.envs.topk_toy.model import TopKToyModel


def best_slate(model: TopKToyModel) -> NDArray[np.float64]:
    """float64[], worth of the K best items."""
    return np.array(np.sort(model.worth())[-model.slate_size :].sum())


BOUNDS: Mapping[str, Callable[[Any], NDArray[np.float64]]] = {
    "best slate": lambda env: best_slate(env.simulation.model),
}
