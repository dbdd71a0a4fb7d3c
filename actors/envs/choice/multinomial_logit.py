"""Multinomial logit choice with an option not to choose (McFadden 1974)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from actors.envs.choice.choice import Floats


@dataclass(frozen=True)
class MultinomialLogit:
    """P(i) = exp(beta s_i) / (exp(none_logit) + sum of exp(beta s)).

    Attributes:
        beta: how sharply scores decide.
        none_logit: logit of consuming nothing.
    """

    beta: float = 2.0
    none_logit: float = 2.0

    def probabilities(self, scores: Floats, shown: NDArray[np.bool_]) -> Floats:
        """See ChoiceModel."""
        batch, slots = scores.shape
        logits = np.empty((batch, slots + 1), dtype=np.float32)
        np.multiply(scores, np.float32(self.beta), out=logits[:, :slots])
        logits[:, :slots][~shown] = -np.inf
        logits[:, slots] = self.none_logit
        logits -= logits.max(axis=1, keepdims=True)
        np.exp(logits, out=logits)
        logits /= logits.sum(axis=1, keepdims=True)
        return logits

    def masses(self, scores: Floats) -> tuple[Floats, float]:
        """See ShareModel."""
        return np.exp(np.float32(self.beta) * scores), math.exp(self.none_logit)
