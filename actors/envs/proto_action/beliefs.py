"""What is known of a user's taste after some rewards."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class GaussianBelief:
    """B Kalman filters over tastes (Kalman 1960): y = h.u + N(0, noise^2), u takes normal steps.

    Exact for normal tastes and rewards that are not cut; ours lie on a sphere around some directions, of which the
    prior keeps mean and covariance.

    Args:
        mean: float64[d], of a new user's taste.
        covariance: float64[d, d].
        noise: standard deviation of an observation.
        step: standard deviation of a taste's step in each dimension between two observations.
        num_users: B.

    Attributes:
        mean: float64[B, d].
        covariance: float64[B, d, d].
    """

    def __init__(
        self, mean: NDArray[np.float64], covariance: NDArray[np.float64], noise: float, step: float, num_users: int
    ) -> None:
        self._prior = mean, covariance
        self._noise, self._step = noise, step
        self.mean = np.tile(mean, (num_users, 1))
        self.covariance = np.tile(covariance, (num_users, 1, 1))

    def forget(self, rows: NDArray[np.int64]) -> None:
        """New users at `rows`."""
        self.mean[rows], self.covariance[rows] = self._prior

    def observe(self, rows: NDArray[np.int64], h: NDArray[np.float64], y: NDArray[np.float64]) -> None:
        """Users at `rows` [n] gave y float64[n] for h float64[n, d]; then their tastes take a step."""
        spread = np.einsum("nij,nj->ni", self.covariance[rows], h)
        variance = np.einsum("ni,ni->n", spread, h) + self._noise**2
        gain = spread / variance[:, None]
        self.mean[rows] += gain * (y - np.einsum("ni,ni->n", self.mean[rows], h))[:, None]
        left = self.covariance[rows] - gain[:, :, None] * spread[:, None, :]
        self.covariance[rows] = left + self._step**2 * np.eye(left.shape[1])
