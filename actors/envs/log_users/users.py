"""Who comes: users of the fitted population."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from actors.envs.log_users.fitted_users import FittedUsers


class UserSampler:
    """Draws users of the population with equal probability.

    Args:
        fitted: the population.
        which: "all", "fitted" or "held_out".

    Attributes:
        ids: int64[n], the users that may come.
    """

    def __init__(self, fitted: FittedUsers, which: str) -> None:
        chosen = {"all": np.ones_like(fitted.held_out), "fitted": ~fitted.held_out, "held_out": fitted.held_out}
        self.ids = np.flatnonzero(chosen[which])

    def draw(self, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Users int64[count]."""
        return self.ids[rng.integers(len(self.ids), size=count)]
