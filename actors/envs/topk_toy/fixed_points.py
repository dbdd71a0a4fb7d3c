"""Where policy gradients end in the toys, in closed form (Chen et al. 2019)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def uncorrected(worth: Floats, logging: Floats) -> Floats:
    """Where a gradient without off-policy correction ends: pi in proportion to worth x beta, float64[N]."""
    mass = worth * logging
    return np.asarray(mass / mass.sum())


def best_independent(worth: Floats, slate_size: int) -> Floats:
    """The policy whose K independent draws are worth most, float64[N]: where the Top-K gradient ends.

    It maximises the sum of worth x (1 - (1 - pi)^K). On its support worth x (1 - pi)^(K - 1) is the same for all items,
    so 1 - pi = c x worth^(-1/(K - 1)), and probabilities that sum to 1 decide c.

    Args:
        worth: float64[N], above 0.
        slate_size: K; with 1 the best item has all.
    """
    order = np.argsort(-worth, kind="stable")
    pi = np.zeros(len(worth))
    if slate_size == 1:
        pi[order[0]] = 1.0
        return pi
    falls = worth[order] ** (-1.0 / (slate_size - 1))
    for support in range(len(worth), 0, -1):
        shares = 1.0 - (support - 1) / falls[:support].sum() * falls[:support]
        if shares[-1] > 0.0:
            break
    pi[order[:support]] = shares
    return pi


def expected_worth(pi: Floats, worth: Floats, slate_size: int) -> float:
    """Mean worth of the different items among K independent draws."""
    return float(worth @ (1.0 - (1.0 - pi) ** slate_size))
