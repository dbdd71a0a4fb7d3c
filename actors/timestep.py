"""One vectorised environment step, the same for every Gymnasium autoreset mode."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class TimeStep:
    """What B environments returned for one action each.

    Attributes:
        observation: [B, *shape], what to act on next; after an episode's end the first observation of the next one
            (or, in NEXT_STEP mode, the old final one, whose action will be ignored).
        next_observation: [B, *shape], the true successor of the state acted in; after an end the final observation.
        reward: float32[B].
        terminated: bool[B], a true terminal state: no value beyond it.
        truncated: bool[B], cut off from outside: value continues from `next_observation`.
        valid: bool[B], False where this step only carried out a reset (NEXT_STEP mode): no transition happened.
        metrics: name -> float64[B], the environment's `episode_metrics` where an episode ended, NaN elsewhere; empty
            where none ended.
        next_item: int64[B], what the user consumed in this step by himself, recommended or not, as an action; -1 for
            nothing; None where the environment does not tell.
        hours: float32[B], time that passed until `next_observation`; None where the environment does not tell.
    """

    observation: NDArray[Any]
    next_observation: NDArray[Any]
    reward: NDArray[np.float32]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    valid: NDArray[np.bool_]
    metrics: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    next_item: NDArray[np.int64] | None = None
    hours: NDArray[np.float32] | None = None
