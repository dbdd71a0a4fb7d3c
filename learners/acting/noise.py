"""Noise around continuous actions, and the log density of what was done."""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from learners.networks.actor_critic import ActionBounds
from learners.policies import Action


class Noise(Protocol):
    """Adds noise to actions of B environments, a row each, in shares of the half range."""

    @property
    def sigmas(self) -> NDArray[np.float64]:
        """Standard deviation of a draw around its centre, [B]."""

    def centres(self, batch: int, dimensions: int) -> NDArray[np.float64]:
        """Where the next draws are centred, [B, n]."""

    def drawn(self, noise: NDArray[np.float64]) -> None:
        """These draws [B, n] were made."""


class GaussianNoise:
    """Independent draws around 0."""

    def __init__(self, sigmas: NDArray[np.float64]) -> None:
        self.sigmas = sigmas

    def centres(self, batch: int, dimensions: int) -> NDArray[np.float64]:
        """Zeros."""
        return np.zeros((batch, dimensions))

    def drawn(self, noise: NDArray[np.float64]) -> None:
        """Nothing to remember."""


class OrnsteinUhlenbeckNoise:
    """x <- (1 - theta) x + N(0, sigma), one process an environment (Uhlenbeck and Ornstein 1930).

    It goes on over the end of an episode, which a policy is not told of.
    """

    def __init__(self, sigmas: NDArray[np.float64], theta: float) -> None:
        self.sigmas = sigmas
        self._theta = theta
        self._state: NDArray[np.float64] | None = None

    def centres(self, batch: int, dimensions: int) -> NDArray[np.float64]:
        """The states drawn towards 0."""
        if self._state is None:
            self._state = np.zeros((batch, dimensions))
        return self._state * (1.0 - self._theta)

    def drawn(self, noise: NDArray[np.float64]) -> None:
        """They are the new states."""
        self._state = noise


def clipped_normal_log_prob(
    action: NDArray[np.float32],
    centre: NDArray[np.float32],
    sigma: NDArray[np.float32],
    low: NDArray[np.float32],
    high: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Log density of `action` = N(centre, sigma) cut to [low, high], summed over dimensions.

    A cut draw has no density: many draws end on the bound. There the probability of all of them is taken, so what is
    returned is exact for the mixture of a density inside and a point on each bound.

    Args:
        action: [B, n], as stored.
        centre: [B, n].
        sigma: [B, n].
        low: [n].
        high: [n].

    Returns:
        float32[B].
    """
    z = torch.from_numpy((action - centre) / sigma)
    inside = -0.5 * z.square() - torch.from_numpy(np.log(sigma)) - 0.5 * math.log(2.0 * math.pi)
    at_low = torch.special.log_ndtr(z)  # on the bound, z is the bound's own distance
    at_high = torch.special.log_ndtr(-z)
    logs = np.where(action <= low, at_low, np.where(action >= high, at_high, inside))
    return np.asarray(logs.sum(axis=1), dtype=np.float32)


class NoisyActions:
    """Draws of actions within bounds and the log density of each.

    Args:
        bounds: of the actions.
        noise: one row an environment.
    """

    def __init__(self, bounds: ActionBounds, noise: Noise) -> None:
        self._noise = noise
        self._low, self._high, self._half = bounds.low.numpy(), bounds.high.numpy(), bounds.half_range.numpy()

    def uniform(self, batch: int, rng: np.random.Generator) -> Action:
        """Actions float32[B, n] from the whole box."""
        draws = self._low + (self._high - self._low) * rng.random((batch, len(self._low)))
        action = np.clip(draws.astype(np.float32), self._low, self._high)
        return Action(action, np.full(batch, -np.log(2.0 * self._half).sum(), dtype=np.float32))

    def around(self, greedy: NDArray[np.float32], rng: np.random.Generator) -> Action:
        """Actions float32[B, n] around those of the actor, cut to the bounds."""
        centres = self._noise.centres(*greedy.shape)
        sigmas = self._noise.sigmas[:, None]
        noise = centres + sigmas * rng.standard_normal(greedy.shape)
        self._noise.drawn(noise)
        action = np.clip(greedy + (noise * self._half).astype(np.float32), self._low, self._high)
        centre = (greedy + centres * self._half).astype(np.float32)
        sigma = (sigmas * self._half).astype(np.float32)
        return Action(action, clipped_normal_log_prob(action, centre, sigma, self._low, self._high))
