"""The items of NextItem, fixed for a whole experiment: which topic each has, and which place within it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from actors.envs.next_item.model import NextItemModel

_STREAM = 0  # keeps these draws apart from those of the topics' matrix


class Catalogue:
    """N items dealt out to topics, n = N / topics to each.

    Args:
        items_of: int32[topics, n], the items of each topic by rank, the favourite first.
        taste: float64[n], probability of consuming the item of each rank, given its topic.

    Attributes:
        items_of, taste: as given.
        topic_of: int32[N].
        rank_of: int32[N], from 0.
    """

    def __init__(self, items_of: NDArray[np.int32], taste: NDArray[np.float64]) -> None:
        self.items_of = items_of
        self.taste = taste
        self.topic_of, self.rank_of = np.empty(items_of.size, np.int32), np.empty(items_of.size, np.int32)
        self.topic_of[items_of] = np.arange(len(items_of), dtype=np.int32)[:, None]
        self.rank_of[items_of] = np.arange(items_of.shape[1], dtype=np.int32)
        self._flat = items_of.reshape(-1)
        self._thresholds = np.cumsum(taste)[:-1].astype(np.float32)

    def draw(self, topic: NDArray[Any], uniform: NDArray[np.float32]) -> NDArray[np.int32]:
        """What users with a taste for `topic` consume.

        Args:
            topic: integer[B].
            uniform: float32[B] in [0, 1), one number a user.

        Returns:
            int32[B], items.
        """
        rank = np.searchsorted(self._thresholds, uniform, side="right")
        rank += topic * np.int64(len(self.taste))
        return np.asarray(self._flat[rank])


def draw_catalogue(model: NextItemModel) -> Catalogue:
    """Deal out the items of `model.catalogue_seed`."""
    each = model.items // model.topics
    rng = np.random.default_rng([model.catalogue_seed, _STREAM])
    items_of = rng.permutation(model.items).astype(np.int32).reshape(model.topics, each)
    weight = np.arange(1, each + 1, dtype=np.float64) ** -model.taste_exponent
    return Catalogue(items_of, weight / weight.sum())
