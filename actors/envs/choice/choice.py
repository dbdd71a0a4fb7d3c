"""What a model of choice is, and a draw from it."""

from __future__ import annotations

from itertools import combinations
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


class ChoiceModel(Protocol):
    """P(what is consumed | a slate of K places), at most one item. A class of one's own needs this method alone."""

    def probabilities(self, scores: Floats, shown: NDArray[np.bool_]) -> Floats:
        """How likely each place is, and none.

        Args:
            scores: float32[B, K], how much the user is drawn to what stands at each place.
            shown: bool[B, K], False where a place is empty or repeats an earlier one: it keeps its position and is
                never consumed.

        Returns:
            float32[B, K + 1], a new array of rows that sum to 1; the last column is consuming nothing.
        """


@runtime_checkable
class ShareModel(ChoiceModel, Protocol):
    """A model in which items share the user by their masses, P(i) = v_i / (v_none + sum of v), wherever they stand."""

    def masses(self, scores: Floats) -> tuple[Floats, float]:
        """v >= 0 of items by their scores float32[...], and that of none, above 0."""


@runtime_checkable
class CascadeModel(ChoiceModel, Protocol):
    """A model in which the user goes from the top and stops at what he takes: P(i) = a_i x product of (1 - a) above."""

    def taken(self, scores: Floats) -> Floats:
        """a, how likely items are taken when they are reached, by their scores float32[...]."""


def draw(probabilities: Floats, uniforms: Floats) -> NDArray[np.int64]:
    """One outcome for each user.

    Args:
        probabilities: float32[B, K + 1], see ChoiceModel.
        uniforms: float32[B], independent in [0, 1).

    Returns:
        int64[B], the place consumed, K for none.
    """
    outcome = np.zeros(len(probabilities), dtype=np.int64)
    below = np.zeros(len(probabilities), dtype=np.float32)
    for place in range(probabilities.shape[1] - 1):
        below += probabilities[:, place]
        outcome += uniforms >= below
    return outcome


def unrepeated(slate: NDArray[Any]) -> NDArray[np.bool_]:
    """Where a slate shows what it has not shown before: integer[B, K] -> bool[B, K]."""
    shown = np.ones(slate.shape, dtype=np.bool_)
    for earlier, later in combinations(range(slate.shape[1]), 2):
        shown[:, later] &= slate[:, later] != slate[:, earlier]
    return shown
