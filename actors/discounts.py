"""Discount of one step, where steps take equal time and where they don't."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actors.timestep import TimeStep
from replay_server.errors import EnvironmentFault


def step_discounts(gamma: float, hours: float | None, timestep: TimeStep) -> NDArray[np.float64]:
    """gamma for a step, or gamma^(time it took / hours): what comes later counts less, however many steps lie between.

    Args:
        gamma: discount of a step, or of `hours`.
        hours: see above; None: all steps are alike.
        timestep: knows how long the step took.

    Returns:
        float64[B].

    Raises:
        EnvironmentFault: the environment does not tell the time.
    """
    if hours is None:
        return np.full(len(timestep.reward), gamma)
    if timestep.hours is None:
        raise EnvironmentFault(
            "environment: its step's info has no dt_hours, and algorithm.discount_hours takes them; set it to null"
        )
    return np.asarray(gamma ** (timestep.hours.astype(np.float64) / hours))


def read_hours(info: Mapping[str, Any], ended: NDArray[np.bool_], name: str) -> NDArray[np.float32] | None:
    """How long a step took: `dt_hours` of its info, float32[B]; None where the environment does not tell.

    Args:
        info: of a vector environment's step; of episodes that ended it may lie in `final_info`.
        ended: bool[B].
        name: what errors call the environment.

    Raises:
        EnvironmentFault: it is of another shape, not finite, or below 0.
    """
    going_on, last = info.get("dt_hours"), info.get("final_info", {}).get("dt_hours")
    if going_on is None and last is None:
        return None
    found = going_on if last is None else last if going_on is None else np.where(ended, last, going_on)
    hours = np.array(found, dtype=np.float32)
    if hours.shape != ended.shape or not (np.isfinite(hours) & (hours >= 0.0)).all():
        raise EnvironmentFault(
            f"environment {name}: dt_hours of its step's info must be {len(ended)} finite numbers, none below 0"
        )
    return hours
