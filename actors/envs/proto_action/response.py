"""How a ProtoAction user responds to an item."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from actors.envs.proto_action.model import ProtoActionModel


class Response(Protocol):
    """What the user wants now, and the reward of an item that meets it so far."""

    def wish(self, taste: NDArray[np.float32], satiation: NDArray[np.float32]) -> NDArray[np.float32]:
        """float32[B, d]; the larger its inner product with an item, the larger the expected reward."""

    def draw(self, affinity: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
        """Rewards float32[B] of items whose inner product with the wish is `affinity`, float32[B]."""


class NoisyRating(Response):
    """The inner product itself, with noise, cut to a range."""

    def __init__(self, model: ProtoActionModel) -> None:
        self._scale, self._lam = np.float32(model.reward_scale), np.float32(model.lam)
        self._noise, self._bound = np.float32(model.reward_noise), np.float32(model.reward_bound)

    def wish(self, taste: NDArray[np.float32], satiation: NDArray[np.float32]) -> NDArray[np.float32]:
        """reward_scale (u - lam m)."""
        return self._scale * (taste - self._lam * satiation)

    def draw(self, affinity: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
        """clip(affinity + N(0, reward_noise), -reward_bound, reward_bound)."""
        noise = rng.standard_normal(len(affinity), dtype=np.float32)
        return np.clip(affinity + self._noise * noise, -self._bound, self._bound)
