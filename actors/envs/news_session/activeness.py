"""User activeness (Zheng et al. 2018, section 4.4): falls while a user is away and rises at every return."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from actors.envs.news_session.model import NewsSessionModel

Floats = NDArray[np.float32]

_SECONDS = 3600.0  # in an hour


class Activeness:
    """S(t) = S exp(-decay t) between requests, S <- min(1, S + boost) at one.

    The hazard of a return is constant, so that a user who comes once in T0 = 24 hours keeps S at S0 = 0.5:
    S0 exp(-decay T0) + boost = S0.

    Args:
        model: constants.
        num_users: B.

    Attributes:
        values: float32[B] in [0, 1], after the latest request.
    """

    def __init__(self, model: NewsSessionModel, num_users: int) -> None:
        self._model = model
        self.values = np.full(num_users, model.activeness_start, dtype=np.float32)

    def reset(self, rows: NDArray[np.int64]) -> None:
        """New users."""
        self.values[rows] = self._model.activeness_start

    def come_back(self, hours: Floats) -> None:
        """The next request, float32[B] hours after the last."""
        model = self._model
        self.values *= np.exp(np.float32(-model.activeness_decay * _SECONDS) * hours)
        self.values += np.float32(model.activeness_return)
        np.minimum(self.values, np.float32(1.0), out=self.values)
