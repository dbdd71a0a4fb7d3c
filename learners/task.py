"""What a learner has to know of its environment, without knowing Gymnasium."""

from __future__ import annotations

import math

import msgspec


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """Observation and action layout of one environment.

    Attributes:
        observation_dtype: numpy dtype name of an observation.
        observation_shape: shape of one observation.
        num_actions: number of discrete actions.
        normalise_observations: networks standardise observations with the run's running moments.
    """

    observation_dtype: str
    observation_shape: tuple[int, ...]
    num_actions: int
    normalise_observations: bool = False

    @property
    def observation_size(self) -> int:
        """Numbers in one flattened observation."""
        return math.prod(self.observation_shape)
