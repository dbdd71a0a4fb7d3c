"""Running mean and variance that many actors can add to (parallel merge: Chan, Golub and LeVeque 1979)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Moments:
    """Count, mean and sum of squared deviations of some numbers.

    Attributes:
        count: float64[], how many samples.
        mean: float64[*shape].
        m2: float64[*shape], sum of squared deviations from the mean.
    """

    count: NDArray[np.float64]
    mean: NDArray[np.float64]
    m2: NDArray[np.float64]

    @staticmethod
    def empty(shape: tuple[int, ...] = ()) -> Moments:
        """Moments of nothing."""
        return Moments(np.zeros(()), np.zeros(shape), np.zeros(shape))

    @staticmethod
    def of(batch: NDArray[Any]) -> Moments:
        """Moments of the rows of `batch` [B, *shape]."""
        values = np.asarray(batch, dtype=np.float64)
        if len(values) == 0:
            return Moments.empty(values.shape[1:])
        mean = np.asarray(values.mean(axis=0))
        return Moments(np.array(float(len(values))), mean, np.asarray(((values - mean) ** 2).sum(axis=0)))

    def merged(self, other: Moments) -> Moments:
        """Moments of both sets of samples together."""
        count = self.count + other.count
        if count == 0.0:
            return self
        shift = other.mean - self.mean
        mean = self.mean + shift * (other.count / count)
        m2 = self.m2 + other.m2 + shift**2 * (self.count * other.count / count)
        return Moments(np.asarray(count), np.asarray(mean), np.asarray(m2))

    @property
    def variance(self) -> NDArray[np.float64]:
        """Population variance float64[*shape]; 1 while there are fewer than two samples."""
        return np.asarray(self.m2 / self.count if self.count >= 2.0 else np.ones_like(self.m2))

    def state(self) -> dict[str, NDArray[np.float64]]:
        """Arrays `count`, `mean`, `m2`, as copies."""
        return {"count": self.count.copy(), "mean": self.mean.copy(), "m2": self.m2.copy()}

    @staticmethod
    def from_state(state: Mapping[str, NDArray[Any]]) -> Moments:
        """Inverse of `state`."""
        return Moments(*(np.array(state[name], dtype=np.float64) for name in ("count", "mean", "m2")))


class RunningMoments:
    """Samples gathered until somebody takes them.

    The loop it lives in, with the total of all actors elsewhere::

        moments.update(observation)
        total = total.merged(moments.take_delta())

    Args:
        shape: shape of one sample.
    """

    def __init__(self, shape: tuple[int, ...] = ()) -> None:
        self._shape = shape
        self._delta = Moments.empty(shape)

    def update(self, batch: NDArray[Any]) -> None:
        """Add the rows of `batch` [B, *shape]."""
        self._delta = self._delta.merged(Moments.of(batch))

    def take_delta(self) -> Moments:
        """What was added since the last call."""
        delta, self._delta = self._delta, Moments.empty(self._shape)
        return delta


class RewardMoments:
    """Moments of the running discounted return, whose deviation scales rewards as in Gymnasium's NormalizeReward.

    A return ends with its episode, and its last value counts in full (Gymnasium 1.4 drops an episode's earlier
    rewards from the value at a terminal step).

    Args:
        num_envs: B.
        gamma: discount of one step.
    """

    def __init__(self, num_envs: int, gamma: float) -> None:
        self._gamma = gamma
        self._returns = np.zeros(num_envs)
        self._delta = RunningMoments()

    def first(self) -> None:
        """Begin new episodes everywhere: the running returns start from 0."""
        self._returns[:] = 0.0

    def update(self, reward: NDArray[Any], ended: NDArray[np.bool_], valid: NDArray[np.bool_]) -> None:
        """Add one vector step.

        Args:
            reward: [B], unscaled.
            ended: bool[B], terminated or truncated.
            valid: bool[B], rows that are transitions; the others change nothing.
        """
        self._returns[valid] = self._returns[valid] * self._gamma + reward[valid]
        self._delta.update(self._returns[valid])
        self._returns[ended & valid] = 0.0

    def take_delta(self) -> Moments:
        """What was added since the last call."""
        return self._delta.take_delta()
