"""How content users are: a running mean of what their clicks were worth."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from actors.envs.news_session.model import NewsSessionModel

Floats = NDArray[np.float32]


class Satisfaction:
    """s <- memory s + (1 - memory) x the mean worth of the request's clicks, or `satisfaction_none` without any.

    Args:
        model: constants.
        num_users: B.

    Attributes:
        values: float32[B].
    """

    def __init__(self, model: NewsSessionModel, num_users: int) -> None:
        self._model = model
        self.values = np.full(num_users, model.satisfaction_start, dtype=np.float32)

    def reset(self, rows: NDArray[np.int64]) -> None:
        """New users."""
        self.values[rows] = self._model.satisfaction_start

    def take_in(self, clicks: Floats, worth: Floats) -> None:
        """A request with float32[B] clicks of summed worth float32[B]."""
        model = self._model
        mean = np.where(clicks > 0, worth / np.maximum(clicks, np.float32(1.0)), np.float32(model.satisfaction_none))
        self.values *= np.float32(model.satisfaction_memory)
        self.values += np.float32(1.0 - model.satisfaction_memory) * mean
