"""What a simulation of B users offers, whatever they are simulated for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import gymnasium
import numpy as np
from gymnasium.spaces import MultiDiscrete
from numpy.typing import NDArray

Observation = NDArray[Any] | dict[str, NDArray[Any]]
"""[B, ...], or for a Dict space one such array for each key."""


@dataclass(frozen=True)
class Outcome:
    """What one step did to B users.

    Attributes:
        reward: float32[B].
        terminated: bool[B], the user left or the budget is spent: nothing follows.
        truncated: bool[B], the episode is cut although something would follow.
        info: what else happened, name -> array[B, ...]; the simulation's `episode_metrics` are among it.
    """

    reward: NDArray[np.float32]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    info: Mapping[str, NDArray[Any]] = field(default_factory=dict)


class Simulation(Protocol):
    """B independent users on plain arrays; whoever drives them resets the rows whose episode has ended.

    Attributes:
        num_users: B.
        generator: the only source of randomness after construction; set it before the first reset.
    """

    num_users: int
    generator: np.random.Generator

    @property
    def observation_space(self) -> gymnasium.Space[Any]:
        """Of one user."""

    @property
    def action_space(self) -> gymnasium.Space[Any]:
        """Of one user."""

    @property
    def episode_metrics(self) -> tuple[str, ...]:
        """Names in every outcome's `info` that hold number[B], a figure of the running episode so far, NaN for none."""

    @property
    def item_embeddings(self) -> NDArray[np.float32] | None:
        """float32[N, d], vectors of the items actions choose from; None where there are none."""

    def reset(self, rows: NDArray[np.int64] | None = None) -> None:
        """Begin new episodes at int64 `rows` (default everywhere)."""

    def step(self, action: NDArray[Any]) -> Outcome:
        """Act once on every user; action [B, ...]."""

    def observe(self) -> Observation:
        """What the agent sees now, as new arrays."""


def check_actions(space: gymnasium.Space[Any], actions: NDArray[Any]) -> None:
    """Refuse actions that would pass for others: those of another shape broadcast, those below 0 count from the end.

    Args:
        space: of B users.
        actions: theirs.

    Raises:
        ValueError: one line.
    """
    if actions.shape != space.shape:
        raise ValueError(f"actions have shape {actions.shape}, the action space says {space.shape}")
    if isinstance(space, MultiDiscrete):
        least, most = space.start, space.start + space.nvec - 1
    else:
        least, most = space.low, space.high  # type: ignore[attr-defined]  # batches of lists are Boxes of whole numbers
    if space.dtype is not None and space.dtype.kind in "iu":
        if actions.dtype.kind not in "iu":
            raise ValueError(f"actions are {actions.dtype}, the action space says whole numbers")
        if ((actions < least) | (actions > most)).any():
            raise ValueError(f"an action lies outside {least.min()} .. {most.max()}")
    elif not np.isfinite(actions).all():
        raise ValueError("an action is NaN or infinite")


def never(num_users: int) -> NDArray[np.bool_]:
    """bool[B] of False: nobody's episode ends."""
    return np.zeros(num_users, dtype=np.bool_)
