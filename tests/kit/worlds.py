"""Small environments and wrappers that tests train in."""

from __future__ import annotations

from typing import Any

import gymnasium


class LastThree(gymnasium.wrappers.FrameStackObservation):
    """Observations of the last three steps, [3, n]."""

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        super().__init__(env, 3)
