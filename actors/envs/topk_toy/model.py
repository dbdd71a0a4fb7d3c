"""Every constant of the two toys."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from actors.envs.constants import check_kinds

ITEMS = 10


@dataclass(frozen=True, kw_only=True)
class TopKToyModel:
    """Which of the two toys of Chen et al. (2019) it is.

    Attributes:
        toy: "top_k" (worth 10, 9 and eight times 1, logged uniformly) or "off_policy" (worth 1 to 10, logged in
            proportion to 10 down to 1).
        slate_size: items shown in a step, K.
    """

    toy: str = "top_k"
    slate_size: int = 2

    def __post_init__(self) -> None:
        check_kinds(self)
        if self.toy not in ("top_k", "off_policy"):
            raise ValueError(f'toy is {self.toy!r}, must be "top_k" or "off_policy"')
        if not 1 <= self.slate_size <= ITEMS:
            raise ValueError(f"slate_size is {self.slate_size}, must be from 1 to {ITEMS}")

    def worth(self) -> NDArray[np.float64]:
        """float64[10], what showing each item is worth."""
        if self.toy == "off_policy":
            return np.arange(1.0, ITEMS + 1.0)
        return np.array([10.0, 9.0] + [1.0] * (ITEMS - 2))

    def logging_probabilities(self) -> NDArray[np.float64]:
        """float64[10], how the policy of the logs draws each item of a slate."""
        mass = np.arange(ITEMS, 0.0, -1.0) if self.toy == "off_policy" else np.ones(ITEMS)
        return np.asarray(mass / mass.sum())
