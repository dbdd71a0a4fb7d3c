"""Logistic regression by Newton's method."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_STEPS = 50


def sigmoid(logit: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 / (1 + exp(-logit))."""
    return np.asarray(1.0 / (1.0 + np.exp(-logit)))


def fit_logistic(features: NDArray[np.float64], label: NDArray[np.bool_], ridge: float = 1.0) -> NDArray[np.float64]:
    """The weights of P(label) = sigmoid(w[0] + features . w[1:]).

    Args:
        features: float64[n, k].
        label: bool[n], with both values.
        ridge: weight of the squared w[1:], so that a small or separable sample has an answer.

    Returns:
        float64[k + 1].
    """
    x = np.column_stack([np.ones(len(features)), features])
    penalty = np.diag([1e-9] + [ridge] * features.shape[1])
    weights = np.zeros(x.shape[1])
    for _ in range(_STEPS):
        expected = sigmoid(x @ weights)
        gradient = x.T @ (expected - label) + penalty @ weights
        curvature = (x * (expected * (1.0 - expected))[:, None]).T @ x + penalty
        step = np.linalg.solve(curvature, gradient)
        weights -= step
        if np.abs(step).max() < 1e-10:
            break
    return weights
