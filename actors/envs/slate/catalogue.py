"""The documents of the slate tasks, fixed for a whole experiment."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from actors.envs.slate.model import SlateModel


@dataclass(frozen=True)
class Catalogue:
    """N documents.

    Attributes:
        topic: int32[N].
        quality: float32[N], minutes given back for a minute watched, before `quality_return`.
        embeddings: float32[N, T + 1], the topic one-hot and the quality; [N, T] where the quality is hidden.
    """

    topic: NDArray[np.int32]
    quality: NDArray[np.float32]
    embeddings: NDArray[np.float32]


def topic_qualities(model: SlateModel) -> NDArray[np.float64]:
    """Mean quality of each topic's documents, float64[T], rising."""
    poor = round(model.poor_share * model.topics)
    low = np.linspace(model.worst_quality, 0.0, poor)
    return np.concatenate([low, np.linspace(0.0, model.best_quality, model.topics - poor)])


def draw_catalogue(model: SlateModel) -> Catalogue:
    """Draw the documents of `model.catalogue_seed`: topics alike often, qualities normal around their topic's."""
    rng = np.random.default_rng(model.catalogue_seed)
    topic = rng.integers(model.topics, size=model.documents, dtype=np.int32)
    quality = rng.normal(topic_qualities(model)[topic], model.quality_noise).astype(np.float32)
    one_hot = np.eye(model.topics, dtype=np.float32)[topic]
    embeddings = np.column_stack([one_hot, quality]) if model.show_quality else one_hot
    return Catalogue(topic, quality, embeddings)
