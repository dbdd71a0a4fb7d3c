"""A user who looks at one place of a slate only (position-based model: Richardson et al. 2007)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from actors.envs.choice.cascade import check_shares
from actors.envs.choice.choice import Floats


@dataclass(frozen=True)
class PositionBased:
    """P(i at place k) = e_k sigmoid(beta s_i + bias), with e_k proportional to decay^k and of sum 1.

    That of a click is the position-based model's product of examination and attraction; because at most one item is
    consumed, places are not examined independently: the user looks at exactly one.

    Attributes:
        beta: how sharply scores decide.
        bias: logit of taking what is looked at, at score 0.
        decay: how often a place is looked at compared with the one above it.
    """

    beta: float = 2.0
    bias: float = 0.0
    decay: float = 0.85

    def __post_init__(self) -> None:
        check_shares(decay=self.decay)

    def probabilities(self, scores: Floats, shown: NDArray[np.bool_]) -> Floats:
        """See ChoiceModel."""
        batch, slots = scores.shape
        examined = self.decay ** np.arange(slots)
        outcomes = np.empty((batch, slots + 1), dtype=np.float32)
        with np.errstate(over="ignore"):  # exp of a large number is infinite, and the share 0
            attraction = 1.0 / (1.0 + np.exp(-(np.float32(self.beta) * scores + np.float32(self.bias))))
        outcomes[:, :slots] = attraction * shown * (examined / examined.sum()).astype(np.float32)
        outcomes[:, slots] = np.maximum(np.float32(1.0) - outcomes[:, :slots].sum(axis=1), 0.0)  # rounding
        return outcomes
