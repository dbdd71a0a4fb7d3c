"""When users come back: at once within a session, later after it, the sooner the more content they are."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from actors.envs.news_session.model import NewsSessionModel

Floats = NDArray[np.float32]


def stays(model: NewsSessionModel, clicked: NDArray[np.bool_], draws: Floats) -> NDArray[np.bool_]:
    """Whether the session goes on: bool[B], a request with or without a click, and uniform float32[B] -> bool[B]."""
    chance = np.where(clicked, np.float32(model.continue_click), np.float32(model.continue_none))
    return np.asarray(draws < chance)


def gap_hours(model: NewsSessionModel, satisfaction: Floats, draws: Floats) -> Floats:
    """Hours until the next session, exponential: satisfaction float32[B] and uniform float32[B] -> float32[B]."""
    mean = np.float32(model.gap) * np.exp(np.float32(-model.gap_satisfaction) * (satisfaction - np.float32(0.5)))
    return np.asarray(-np.log1p(-draws) * mean)
