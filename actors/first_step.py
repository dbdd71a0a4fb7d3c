"""What records can say of their first step alone, beside the return of all their steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actors.timestep import TimeStep


@dataclass(frozen=True)
class FirstStep:
    """Further columns of a record.

    Attributes:
        reward: keep `first_reward`, the step's own reward times reward_scale.
        response: keep `first_response`, these numbers of the observation that the step led to; None: no such column.
    """

    reward: bool = False
    response: slice | None = None

    def columns(self, timestep: TimeStep, reward_scale: float) -> dict[str, NDArray[Any]]:
        """The columns of B environments' step, each [B, ...]."""
        columns: dict[str, NDArray[Any]] = {}
        if self.reward:
            columns["first_reward"] = (timestep.reward * reward_scale).astype(np.float32)
        if self.response is not None:
            columns["first_response"] = timestep.next_observation[:, self.response].astype(np.float32)
        return columns
