"""The films of MoviePick, fixed for a whole experiment."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from actors.envs.movie_pick.model import MoviePickModel


@dataclass(frozen=True)
class Catalogue:
    """What does not change from user to user.

    Attributes:
        prototypes: float64[genres, film_dim], unit vectors.
        films: float32[films, film_dim], unit vectors.
        popularity: float32[films], added to the click logit.
        quality: float32[films], added to the completion logit.
        projection: float64[film_dim, user_dim], from a user's latent taste to the embedding the agent sees.
    """

    prototypes: NDArray[np.float64]
    films: NDArray[np.float32]
    popularity: NDArray[np.float32]
    quality: NDArray[np.float32]
    projection: NDArray[np.float64]


def unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Vectors [..., D] divided by their length."""
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True))


def draw_catalogue(model: MoviePickModel) -> Catalogue:
    """Draw the films of `model.catalogue_seed`."""
    rng = np.random.default_rng(model.catalogue_seed)
    prototypes = unit(rng.normal(size=(model.genres, model.film_dim)))
    genre = rng.integers(model.genres, size=model.films)
    noise = rng.normal(scale=model.taste_noise / np.sqrt(model.film_dim), size=(model.films, model.film_dim))
    return Catalogue(
        prototypes=prototypes,
        films=unit(prototypes[genre] + noise).astype(np.float32),
        popularity=rng.normal(scale=model.popularity_scale, size=model.films).astype(np.float32),
        quality=rng.normal(scale=model.quality_scale, size=model.films).astype(np.float32),
        projection=rng.normal(size=(model.film_dim, model.user_dim)) / np.sqrt(model.film_dim),
    )
