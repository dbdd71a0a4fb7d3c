"""The Markov chain that every user's topic follows."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from actors.envs.next_item.model import NextItemModel

_STREAM = 1


class TopicChain:
    """Draws next topics for many users at once.

    Args:
        matrix: float64[T, T], row z holds the probabilities of what follows topic z.

    Attributes:
        matrix: as given.
        stationary: float64[T], how often each topic occurs in the long run; new users begin with it.
    """

    def __init__(self, matrix: NDArray[np.float64]) -> None:
        self.matrix = matrix
        self.stationary = _stationary(matrix)
        self._first = np.cumsum(self.stationary)[:-1]
        rows = np.cumsum(matrix, axis=1)
        rows[:, -1] = 1.0  # row z occupies (z, z + 1] of one sorted table, so that one search serves all users
        self._table = (rows + np.arange(len(matrix))[:, None]).reshape(-1)

    def begin(self, uniform: NDArray[np.float32]) -> NDArray[np.int64]:
        """Topics int64[B] of new users; uniform float32[B] in [0, 1)."""
        return np.asarray(np.searchsorted(self._first, uniform, side="right"))

    def follow(self, topic: NDArray[Any], uniform: NDArray[np.float32]) -> NDArray[np.int64]:
        """What follows integer[B] topics; uniform float32[B] in [0, 1), one number a user. int64[B]."""
        place = np.searchsorted(self._table, topic + uniform.astype(np.float64), side="right")
        place -= topic * len(self.matrix)
        return np.asarray(place)


def draw_topics(model: NextItemModel) -> TopicChain:
    """The chain of `model.catalogue_seed`."""
    rng = np.random.default_rng([model.catalogue_seed, _STREAM])
    wander = rng.dirichlet(np.full(model.topics, model.concentration), size=model.topics)
    return TopicChain(model.stay * np.eye(model.topics) + (1.0 - model.stay) * wander)


def _stationary(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """The distribution that the chain leaves as it is; of several the one nearest to uniform."""
    size = len(matrix)
    balance = np.concatenate([matrix.T - np.eye(size), np.ones((1, size))])
    found = np.linalg.lstsq(balance, np.concatenate([np.zeros(size), [1.0]]), rcond=None)[0]
    found = np.maximum(found, 0.0)
    return np.asarray(found / found.sum())
