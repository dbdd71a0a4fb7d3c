"""The simulated readers of NewsSession: who they are, and where an episode's readers come from."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from actors.envs.news_session.articles import Library, unit
from actors.envs.news_session.model import NewsSessionModel

_POPULATION_STREAM, _EMBEDDING_STREAM = 1, 2  # keep these draws apart from the library's


@dataclass(frozen=True)
class Users:
    """B users, one row each.

    Attributes:
        ids: int32[B], place in the population; 0 for users drawn for one episode only.
        taste: float32[B, d], unit vectors.
        embedding: float32[B, user_dim], the taste mapped and blurred, which an agent may see.
        interests: float32[B, d], the taste as the embedding tells it.
    """

    ids: NDArray[np.int32]
    taste: NDArray[np.float32]
    embedding: NDArray[np.float32]
    interests: NDArray[np.float32]

    def take(self, rows: NDArray[np.int64]) -> Users:
        """Copies of the users at `rows`."""
        return Users(self.ids[rows], self.taste[rows], self.embedding[rows], self.interests[rows])

    def put(self, rows: NDArray[np.int64], users: Users) -> None:
        """Overwrite `rows` in place."""
        self.ids[rows] = users.ids
        self.taste[rows] = users.taste
        self.embedding[rows] = users.embedding
        self.interests[rows] = users.interests


class UserSource:
    """Draws users afresh, or out of a fixed population.

    A taste is unit(Dirichlet(1, 1) mix of two different genres + noise).

    Args:
        model: constants; `population` decides where users come from.
        library: its genres.
    """

    def __init__(self, model: NewsSessionModel, library: Library) -> None:
        self._model = model
        self._prototypes = library.prototypes
        rng = np.random.default_rng([model.catalogue_seed, _EMBEDDING_STREAM])
        self._projection = rng.normal(size=(model.taste_dim, model.user_dim))
        self._inverse = np.linalg.pinv(self._projection)
        self._population: Users | None = None
        if model.population is not None:
            drawn = self._fresh(model.population, np.random.default_rng([model.catalogue_seed, _POPULATION_STREAM]))
            self._population = replace(drawn, ids=np.arange(model.population, dtype=np.int32))

    def draw(self, count: int, rng: np.random.Generator) -> Users:
        """The users of `count` new episodes."""
        if self._population is None:
            return self._fresh(count, rng)
        return self._population.take(rng.integers(len(self._population.ids), size=count))

    def _fresh(self, count: int, rng: np.random.Generator) -> Users:
        model = self._model
        first = rng.integers(model.genres, size=count)
        second = (first + rng.integers(1, model.genres, size=count)) % model.genres
        weight = rng.random((count, 1))
        noise = rng.normal(scale=model.taste_noise / np.sqrt(model.taste_dim), size=(count, model.taste_dim))
        taste = unit(weight * self._prototypes[first] + (1.0 - weight) * self._prototypes[second] + noise)
        embedding = taste @ self._projection
        embedding += rng.normal(scale=model.embedding_noise, size=embedding.shape)
        return Users(
            ids=np.zeros(count, dtype=np.int32),
            taste=taste.astype(np.float32),
            embedding=embedding.astype(np.float32),
            interests=(embedding @ self._inverse).astype(np.float32),
        )
