"""What is known of a user's taste after some rewards."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Prior:
    """What is known of a new user: a mixture of K normal distributions that differ in mean only.

    Attributes:
        means: float64[K, d].
        weights: float64[K], probabilities.
        covariance: float64[d, d], of each.
    """

    means: NDArray[np.float64]
    weights: NDArray[np.float64]
    covariance: NDArray[np.float64]

    @staticmethod
    def of(tastes: NDArray[np.float64], groups: NDArray[np.int64]) -> Prior:
        """One distribution for each group, fitted to tastes float64[n, d] whose groups are int64[n]."""
        known, group, counts = np.unique(groups, return_inverse=True, return_counts=True)
        means = np.stack([tastes[group == k].mean(axis=0) for k in range(len(known))])
        return Prior(means, counts / len(tastes), np.cov((tastes - means[group]).T))


class TasteBelief:
    """The posterior of B tastes after rewards y = h.u + N(0, noise^2), tastes taking normal steps between them.

    Exact for the prior given: a bank of Kalman filters (Kalman 1960), each weighted by how well it foretold; they
    share one covariance, because it does not depend on what was observed. With K = 1 it is the Kalman filter.

    Args:
        prior: of a new user's taste.
        noise: standard deviation of an observation.
        step: standard deviation of a taste's step in each dimension between two observations.
        num_users: B.

    Attributes:
        means: float64[B, K, d].
        log_weights: float64[B, K], up to a constant for each user.
        covariance: float64[B, d, d].
    """

    def __init__(self, prior: Prior, noise: float, step: float, num_users: int) -> None:
        self._prior, self._noise, self._step = prior, noise, step
        self.means = np.tile(prior.means, (num_users, 1, 1))
        self.log_weights = np.tile(np.log(prior.weights), (num_users, 1))
        self.covariance = np.tile(prior.covariance, (num_users, 1, 1))

    def forget(self, rows: NDArray[np.int64]) -> None:
        """New users at `rows`."""
        self.means[rows] = self._prior.means
        self.log_weights[rows] = np.log(self._prior.weights)
        self.covariance[rows] = self._prior.covariance

    def observe(self, rows: NDArray[np.int64], h: NDArray[np.float64], y: NDArray[np.float64]) -> None:
        """Users at `rows` [n] gave y float64[n] for h float64[n, d]; then their tastes take a step."""
        spread = np.einsum("nij,nj->ni", self.covariance[rows], h)
        variance = np.einsum("ni,ni->n", spread, h) + self._noise**2
        gain = spread / variance[:, None]
        surprise = y[:, None] - np.einsum("nkd,nd->nk", self.means[rows], h)
        self.log_weights[rows] -= 0.5 * surprise**2 / variance[:, None]
        self.means[rows] += surprise[:, :, None] * gain[:, None, :]
        left = self.covariance[rows] - gain[:, :, None] * spread[:, None, :]
        self.covariance[rows] = left + self._step**2 * np.eye(left.shape[1])

    def expected(self) -> NDArray[np.float64]:
        """Mean of the posterior, float64[B, d]."""
        weights = np.exp(self.log_weights - self.log_weights.max(axis=1, keepdims=True))
        weights /= weights.sum(axis=1, keepdims=True)
        return np.asarray(np.einsum("bk,bkd->bd", weights, self.means))
