"""A policy that logs are made with: its propensities are known exactly."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from learners.policies import Action


class Behaviour:
    """Shows every item with a probability of its own, whatever the user consumed.

    Args:
        propensity: float64[N], probability of each item to be shown; sums to 1.

    Attributes:
        propensity: as given.
    """

    def __init__(self, propensity: NDArray[np.float64]) -> None:
        self.propensity = propensity
        self._thresholds = np.cumsum(propensity)[:-1]
        self._log_propensity = np.log(propensity).astype(np.float32)

    @classmethod
    def mix(cls, popularity: NDArray[np.float64], uniform_share: float, skew: float) -> Behaviour:
        """Any item for a share of the time, else one drawn by popularity^skew.

        Args:
            popularity: float64[N], positive.
            uniform_share: in [0, 1]; what is left of it keeps every propensity, and with it every weight, bounded.
            skew: exponent; 0 is uniform as well, 1 shows items as often as they are consumed.
        """
        weight = popularity**skew
        return cls(uniform_share / len(popularity) + (1.0 - uniform_share) * weight / weight.sum())

    def act(self, observation: NDArray[Any], rng: np.random.Generator, *, explore: bool, env_steps: int) -> Action:
        """One item each, and the log of its propensity."""
        item = np.searchsorted(self._thresholds, rng.random(len(observation)), side="right")
        return Action(item, self._log_propensity[item])
