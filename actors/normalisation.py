"""Moments of observations and returns: tracked by every actor, merged for the whole run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actors.moments import Moments, RewardMoments, RunningMoments
from actors.timestep import TimeStep

OBSERVATION, RETURN = "observation", "return"


class MomentTracker:
    """Watches one actor's steps; what it saw is taken away as deltas.

    Args:
        num_envs: environments of the actor.
        observation_shape: shape of one observation, or None when observations are not normalised.
        gamma: discount of the returns, or None when rewards are not normalised.
    """

    def __init__(self, num_envs: int, observation_shape: tuple[int, ...] | None, gamma: float | None) -> None:
        self._observations = None if observation_shape is None else RunningMoments(observation_shape)
        self._returns = None if gamma is None else RewardMoments(num_envs, gamma)

    def first(self) -> None:
        """Environments begin anew: so do their running returns."""
        if self._returns is not None:
            self._returns.first()

    def observe(self, timestep: TimeStep) -> None:
        """Add one vector step."""
        if self._observations is not None:
            self._observations.update(timestep.next_observation[timestep.valid])
        if self._returns is not None:
            self._returns.update(timestep.reward, timestep.terminated | timestep.truncated, timestep.valid)

    def take_delta(self) -> dict[str, Moments]:
        """What was added since the last call."""
        deltas = {}
        if self._observations is not None:
            deltas[OBSERVATION] = self._observations.take_delta()
        if self._returns is not None:
            deltas[RETURN] = self._returns.take_delta()
        return deltas


class RunMoments:
    """Moments over all actors of a run."""

    def __init__(self, moments: Mapping[str, Moments] | None = None) -> None:
        self._moments = dict(moments or {})

    def merge(self, deltas: Mapping[str, Moments]) -> None:
        """Add one actor's delta."""
        for name, delta in deltas.items():
            self._moments[name] = self._moments[name].merged(delta) if name in self._moments else delta

    def summary(self) -> dict[str, NDArray[Any]]:
        """What a learner takes: `observation_mean`, `observation_std` [*shape] and `return_std` []."""
        arrays: dict[str, NDArray[Any]] = {}
        if (seen := self._moments.get(OBSERVATION)) is not None:
            arrays["observation_mean"] = seen.mean
            arrays["observation_std"] = np.sqrt(seen.variance)
        if (returns := self._moments.get(RETURN)) is not None:
            arrays["return_std"] = np.sqrt(returns.variance)
        return arrays

    def state(self) -> dict[str, Any]:
        """Plain lists, exact through JSON."""
        return {
            name: {key: array.tolist() for key, array in moments.state().items()}
            for name, moments in self._moments.items()
        }

    @staticmethod
    def from_state(state: Mapping[str, Any]) -> RunMoments:
        """Inverse of `state`."""
        return RunMoments(
            {
                name: Moments.from_state({key: np.asarray(values) for key, values in moments.items()})
                for name, moments in state.items()
            }
        )
