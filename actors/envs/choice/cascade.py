"""A user who goes through a slate from the top and stops at what he takes (Craswell et al. 2008)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from actors.envs.choice.choice import Floats


def cascade(taken: Floats, shown: NDArray[np.bool_]) -> Floats:
    """P(i) = a_i x product over earlier places of (1 - a).

    Args:
        taken: float32[B, K], a, probability of taking what stands there when it is reached.
        shown: bool[B, K], see ChoiceModel.

    Returns:
        float32[B, K + 1], the last column for reaching the end with nothing taken.
    """
    batch, slots = taken.shape
    taken = taken * shown
    outcomes = np.empty((batch, slots + 1), dtype=np.float32)
    reached = np.ones(batch, dtype=np.float32)
    for place in range(slots):
        outcomes[:, place] = reached * taken[:, place]
        reached *= np.float32(1.0) - taken[:, place]
    outcomes[:, slots] = reached
    return outcomes


def check_shares(**values: float) -> None:
    """Refuse probabilities outside [0, 1].

    Raises:
        ValueError: naming the first.
    """
    for name, value in values.items():
        if not 0.0 <= value <= 1.0:
            raise ValueError(f"{name} is {value}, must be between 0 and 1")
