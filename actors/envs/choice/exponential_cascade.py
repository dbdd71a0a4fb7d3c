"""A cascade over exponentials of scores."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from actors.envs.choice.cascade import cascade, check_shares
from actors.envs.choice.choice import Floats


@dataclass(frozen=True)
class ExponentialCascade:
    """A place that is looked at is taken with probability min(1, scaling x exp(beta s)).

    Attributes:
        beta: how sharply scores decide.
        scaling: probability at score 0.
        attention: probability of looking at a place when it is reached.
    """

    beta: float = 1.0
    scaling: float = 0.25
    attention: float = 0.65

    def __post_init__(self) -> None:
        check_shares(scaling=self.scaling, attention=self.attention)

    def probabilities(self, scores: Floats, shown: NDArray[np.bool_]) -> Floats:
        """See ChoiceModel."""
        return cascade(self.taken(scores), shown)

    def taken(self, scores: Floats) -> Floats:
        """See CascadeModel."""
        attraction = np.float32(self.scaling) * np.exp(np.float32(self.beta) * scores)
        return np.asarray(np.float32(self.attention) * np.minimum(attraction, np.float32(1.0)))
