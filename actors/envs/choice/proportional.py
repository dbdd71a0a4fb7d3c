"""Choice in proportion to shifted scores."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from actors.envs.choice.choice import Floats


@dataclass(frozen=True)
class Proportional:
    """P(i) = (s_i - least) / (none_mass + sum of (s - least)); scores below `least` count as it.

    Attributes:
        least: score that is never consumed.
        none_mass: mass of consuming nothing, after the shift; above 0.
    """

    least: float = -1.0
    none_mass: float = 2.0

    def __post_init__(self) -> None:
        if self.none_mass <= 0.0:
            raise ValueError(f"none_mass is {self.none_mass}, must be above 0: a slate may hold nothing of interest")

    def probabilities(self, scores: Floats, shown: NDArray[np.bool_]) -> Floats:
        """See ChoiceModel."""
        batch, slots = scores.shape
        shares = np.empty((batch, slots + 1), dtype=np.float32)
        np.multiply(self.masses(scores)[0], shown, out=shares[:, :slots])
        shares[:, slots] = self.none_mass
        shares /= shares.sum(axis=1, keepdims=True)
        return shares

    def masses(self, scores: Floats) -> tuple[Floats, float]:
        """See ShareModel."""
        return np.maximum(scores - np.float32(self.least), np.float32(0.0)), self.none_mass
