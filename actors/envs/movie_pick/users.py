"""The simulated users of MoviePick."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from actors.envs.movie_pick.catalogue import Catalogue, unit
from actors.envs.movie_pick.model import MoviePickModel

_POPULATION_STREAM = 1  # keeps the population's draws apart from the catalogue's


@dataclass(frozen=True)
class Users:
    """B users, one row each.

    Attributes:
        ids: int32[B], place in the population; 0 for users drawn for one episode only.
        embedding: float32[B, user_dim], what the agent sees.
        click_logit: float32[B, films], before satiation.
        complete_logit: float32[B, films], before satiation.
    """

    ids: NDArray[np.int32]
    embedding: NDArray[np.float32]
    click_logit: NDArray[np.float32]
    complete_logit: NDArray[np.float32]

    def take(self, rows: NDArray[np.int64]) -> Users:
        """Copies of the users at `rows`."""
        return Users(self.ids[rows], self.embedding[rows], self.click_logit[rows], self.complete_logit[rows])

    def put(self, rows: NDArray[np.int64], users: Users) -> None:
        """Overwrite `rows` in place."""
        self.ids[rows] = users.ids
        self.embedding[rows] = users.embedding
        self.click_logit[rows] = users.click_logit
        self.complete_logit[rows] = users.complete_logit


def draw_users(model: MoviePickModel, catalogue: Catalogue, count: int, rng: np.random.Generator) -> Users:
    """Draw `count` new users: taste = unit(Dirichlet mix of two different genres + noise)."""
    first = rng.integers(model.genres, size=count)
    second = (first + rng.integers(1, model.genres, size=count)) % model.genres
    weight = rng.random((count, 1))  # Dirichlet(1, 1) of two weights is one uniform number
    noise = rng.normal(scale=model.taste_noise / np.sqrt(model.film_dim), size=(count, model.film_dim))
    taste = unit(weight * catalogue.prototypes[first] + (1.0 - weight) * catalogue.prototypes[second] + noise)
    blur = rng.normal(scale=model.embedding_noise, size=(count, model.user_dim))
    affinity = taste @ catalogue.films.T.astype(np.float64)
    click = model.click_bias + model.click_affinity * affinity + catalogue.popularity
    complete = model.complete_bias + model.complete_affinity * affinity + catalogue.quality
    return Users(
        ids=np.zeros(count, dtype=np.int32),
        embedding=(taste @ catalogue.projection + blur).astype(np.float32),
        click_logit=click.astype(np.float32),
        complete_logit=complete.astype(np.float32),
    )


class UserSampler(Protocol):
    """Where the users of new episodes come from."""

    def draw(self, count: int, rng: np.random.Generator) -> Users:
        """Users of `count` new episodes, as new arrays."""


class UserSource:
    """Where an episode's users come from: drawn afresh, or out of a fixed population.

    Args:
        model: constants; `population` decides which.
        catalogue: the films.
    """

    def __init__(self, model: MoviePickModel, catalogue: Catalogue) -> None:
        self._model = model
        self._catalogue = catalogue
        self._population: Users | None = None
        if model.population is not None:
            rng = np.random.default_rng([model.catalogue_seed, _POPULATION_STREAM])
            drawn = draw_users(model, catalogue, model.population, rng)
            ids = np.arange(model.population, dtype=np.int32)
            self._population = Users(ids, drawn.embedding, drawn.click_logit, drawn.complete_logit)

    def draw(self, count: int, rng: np.random.Generator) -> Users:
        """The users of `count` new episodes."""
        if self._population is None:
            return draw_users(self._model, self._catalogue, count, rng)
        return self._population.take(rng.integers(len(self._population.ids), size=count))
