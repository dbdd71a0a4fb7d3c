"""What users of the slate tasks are interested in, and how watching changes it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class UserSampler:
    """New users: interests independent and uniform in [-1, 1].

    Attributes:
        topics: T.
    """

    topics: int

    def draw(self, count: int, generator: np.random.Generator) -> NDArray[np.float32]:
        """The interests of `count` users, float32[count, T]."""
        interests = generator.random((count, self.topics), dtype=np.float32)
        interests *= 2.0
        interests -= 1.0
        return interests


@dataclass(frozen=True)
class InterestModel:
    """An interest u in a topic that was watched moves by step (1 - |u|) (1 - u): up with probability (1 + u) / 2, else
    down, and never out of [-1, 1]. So what a user likes grows on him, and what he dislikes he comes to dislike more.

    Attributes:
        step: how far an interest of 0 moves.
    """

    step: float

    def moved(self, interest: NDArray[np.float32], uniforms: NDArray[np.float32]) -> NDArray[np.float32]:
        """Interests after watching.

        Args:
            interest: float32[n], of each user in the topic watched.
            uniforms: float32[n], independent in [0, 1).
        """
        change = np.float32(self.step) * (np.float32(1.0) - np.abs(interest)) * (np.float32(1.0) - interest)
        up = uniforms < (np.float32(1.0) + interest) * np.float32(0.5)
        return np.clip(interest + np.where(up, change, -change), np.float32(-1.0), np.float32(1.0))
