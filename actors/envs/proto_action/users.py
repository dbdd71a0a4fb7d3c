"""Who the users of ProtoAction are, and how a user changes."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from actors.envs.proto_action.catalogue import Catalogue, around, unit
from actors.envs.proto_action.model import ProtoActionModel


class UserSampler(Protocol):
    """Where the users of new episodes come from."""

    def draw(self, count: int, rng: np.random.Generator) -> NDArray[np.float32]:
        """Tastes of `count` users, float32[count, d]."""


class ClusteredUsers:
    """Tastes gather around the directions that items gather around."""

    def __init__(self, model: ProtoActionModel, catalogue: Catalogue) -> None:
        self._noise = model.user_noise
        self._centres = catalogue.centres

    def draw(self, count: int, rng: np.random.Generator) -> NDArray[np.float32]:
        """Unit vectors; see UserSampler.draw."""
        return around(self._centres, count, self._noise, rng)


class UserState:
    """Taste and satiation of B users.

    Attributes:
        taste: float32[B, d].
        satiation: float32[B, d], a weighted mean of the items shown, the newest with weight 1 - decay.
    """

    def __init__(self, model: ProtoActionModel, num_users: int, dim: int) -> None:
        self._decay, self._drift = np.float32(model.decay), np.float32(model.drift / np.sqrt(dim))
        self.taste = np.zeros((num_users, dim), dtype=np.float32)
        self.satiation = np.zeros((num_users, dim), dtype=np.float32)

    def begin(self, rows: NDArray[np.int64], taste: NDArray[np.float32]) -> None:
        """New users at `rows`, whom nothing was shown yet."""
        self.taste[rows] = taste
        self.satiation[rows] = 0.0

    def consume(self, vectors: NDArray[np.float32]) -> None:
        """Everybody was shown an item, float32[B, d]."""
        self.satiation *= self._decay
        self.satiation += (np.float32(1.0) - self._decay) * vectors

    def drift(self, rng: np.random.Generator) -> None:
        """Everybody's taste takes a step of a random walk on the sphere, where it is meant to move at all."""
        if self._drift:
            self.taste = unit(self.taste + self._drift * rng.standard_normal(self.taste.shape, dtype=np.float32))
