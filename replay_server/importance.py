"""Importance weights: what makes a sample honest that was not drawn evenly."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from replay_server.batches import SampleBatch


def importance_weights(batch: SampleBatch, beta: float) -> NDArray[np.float32]:
    """Importance-sampling weights (N P(i))^-beta divided by the batch's maximum (Schaul et al. 2016, section 3.4).

    The maximum of the whole batch, where this is a part of one.

    All 1 where records leave by being drawn: the order of the draws then favours none.

    Args:
        batch: a sample with the probability of each draw.
        beta: 0 no correction, 1 full correction.

    Returns:
        float32[B] in (0, 1].
    """
    if not 0.0 <= beta <= 1.0:
        raise ValueError(f"beta is {beta}, must lie in [0, 1]")
    if batch.consumed:
        return np.ones(len(batch), np.float32)
    weights = np.empty(len(batch), np.float32)
    bound = np.inf if batch.least_probability is None else batch.least_probability
    _weigh(batch.probabilities, beta, bound, weights)
    return weights


@njit(cache=True, nogil=True, error_model="numpy")
def _weigh(probabilities: NDArray[np.float64], beta: float, least: float, weights: NDArray[np.float32]) -> None:
    """The table's size cancels out. One loop: between two updates of a network numpy's five are cold, and ten times
    dearer than they look."""
    for probability in probabilities:
        least = min(least, probability)
    for row, probability in enumerate(probabilities):
        weights[row] = (probability / least) ** -beta


def warm_up() -> None:
    """Compile the loop, or load it, before it is needed in a hurry."""
    _weigh(np.ones(1), 1.0, np.inf, np.ones(1, np.float32))
