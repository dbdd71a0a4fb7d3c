"""Which documents are on offer."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class CandidateSource:
    """M different documents out of N: one of each of M equal stretches of the catalogue.

    Documents stand in the catalogue in no order, so every stretch has all topics alike, and one draw a candidate
    suffices to have no document twice.

    Args:
        documents: N.
        candidates: M <= N.
    """

    def __init__(self, documents: int, candidates: int) -> None:
        edges = np.arange(candidates + 1) * documents // candidates
        self._first = edges[:-1].astype(np.int32)
        self._width = np.diff(edges).astype(np.float32)

    def draw(self, count: int, generator: np.random.Generator) -> NDArray[np.int32]:
        """The candidates of `count` users, int32[count, M]."""
        place = generator.random((count, len(self._first)), dtype=np.float32)
        place *= self._width
        ids = place.astype(np.int32)
        ids += self._first
        return ids
