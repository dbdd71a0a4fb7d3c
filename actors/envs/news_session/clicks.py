"""How likely each article of a list is clicked."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


class ClickModel(Protocol):
    """Independent clicks on the articles of B lists of K."""

    def probabilities(self, logits: Floats) -> Floats:
        """Click probability of each place: float32[K, B] -> float32[K, B], the first row the top of the list."""


class PositionDiscountedClicks:
    """sigmoid(logit) / log2(place + 1), places counted from 1: the gain of discounted cumulative gain."""

    def probabilities(self, logits: Floats) -> Floats:
        """See ClickModel.probabilities."""
        chance = np.exp(-logits)
        chance += np.float32(1.0)
        np.divide(place_weights(len(logits))[:, None], chance, out=chance)
        return chance


def place_weights(slots: int) -> Floats:
    """1 / log2(place + 1) of the places 1 to `slots`: float32[K]."""
    return (1.0 / np.log2(np.arange(2, slots + 2))).astype(np.float32)
