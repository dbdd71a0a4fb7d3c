"""The articles of NewsSession: a library for a whole experiment, and what of it is on offer at one tick."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from actors.envs.news_session.model import WINDOWS_HOURS, NewsSessionModel

Floats = NDArray[np.float32]

_VIEWS_AN_HOUR = 100.0  # readers an article is shown to, of whom the click counts tell


@dataclass(frozen=True)
class Library:
    """N articles.

    Attributes:
        prototypes: float64[genres, d], unit vectors.
        vectors: float32[N, d], unit vectors.
        quality: float32[N] in [0, 1).
        clickbait: float32[N] in [0, 1), small ones more often.
        properties: float32[N, P], what an agent may see: a linear map of the three above, with noise.
    """

    prototypes: NDArray[np.float64]
    vectors: Floats
    quality: Floats
    clickbait: Floats
    properties: Floats


@dataclass(frozen=True)
class Pool:
    """The M articles on offer at one tick, to all users alike.

    Attributes:
        ids: int32[M], places in the library, different ones.
        pull: float32[M, d], taste . pull is the part of the click logit that depends on the user.
        appeal: float32[M], the part that does not.
        worth: float32[M], what a click does for satisfaction.
        age: float32[M], hours.
        clickbait: float32[M].
        properties: float32[M, P].
    """

    ids: NDArray[np.int32]
    pull: Floats
    appeal: Floats
    worth: Floats
    age: Floats
    clickbait: Floats
    properties: Floats


def unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Vectors [..., D] divided by their length."""
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True))


def draw_library(model: NewsSessionModel) -> Library:
    """Draw the articles of `model.catalogue_seed`."""
    rng = np.random.default_rng(model.catalogue_seed)
    prototypes = unit(rng.normal(size=(model.genres, model.taste_dim)))
    genre = rng.integers(model.genres, size=model.articles)
    noise = rng.normal(scale=model.taste_noise / np.sqrt(model.taste_dim), size=(model.articles, model.taste_dim))
    vectors = unit(prototypes[genre] + noise)
    quality, clickbait = rng.random(model.articles), rng.random(model.articles) ** 2
    facts = np.column_stack([np.sqrt(model.taste_dim) * vectors, _standard(quality), _standard(clickbait)])
    mix = rng.normal(size=(facts.shape[1], model.article_properties)) / np.sqrt(facts.shape[1])
    properties = facts @ mix + rng.normal(scale=model.feature_noise, size=(model.articles, model.article_properties))
    return Library(
        prototypes=prototypes,
        vectors=vectors.astype(np.float32),
        quality=quality.astype(np.float32),
        clickbait=clickbait.astype(np.float32),
        properties=properties.astype(np.float32),
    )


def _standard(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray((numbers - numbers.mean()) / max(numbers.std(), 1e-9))


def draw_pool(model: NewsSessionModel, library: Library, rng: np.random.Generator) -> Pool:
    """Draw what is on offer at one tick: articles without replacement, and how old each is."""
    ids = rng.choice(model.articles, size=model.pool, replace=False, shuffle=False)
    age = rng.standard_exponential(model.pool, dtype=np.float32) * np.float32(model.mean_age)
    quality, clickbait = library.quality[ids], library.clickbait[ids]
    appeal = model.click_bias + model.click_clickbait * clickbait - model.click_age * age
    return Pool(
        ids=ids.astype(np.int32),
        pull=library.vectors[ids] * np.float32(model.click_affinity),
        appeal=appeal.astype(np.float32),
        worth=np.float32(model.satisfaction_click) * quality * (np.float32(1.0) - clickbait),
        age=age,
        clickbait=clickbait,
        properties=library.properties[ids],
    )


def article_features(model: NewsSessionModel, pool: Pool) -> Floats:
    """Properties, and log click counts of five windows: float32[M, article_size].

    An article collects clicks at a rate that its clickbait decides, in the part of each window it was alive.
    """
    features = np.empty((model.pool, model.article_size), dtype=np.float32)
    features[:, : model.article_properties] = pool.properties
    rate = _VIEWS_AN_HOUR / (1.0 + np.exp(-(model.click_bias + model.click_clickbait * pool.clickbait)))
    alive = np.minimum(pool.age[:, None], np.array(WINDOWS_HOURS, dtype=np.float32))
    features[:, model.article_properties :] = 0.2 * np.log1p(rate[:, None] * alive)
    return features
