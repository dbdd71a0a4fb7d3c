"""The item of largest inner product with a vector."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

_QUERIES, _ITEMS = 256, 2000  # a block of products is 2 MB, so that it is still in the cache when it is searched


class Index(Protocol):
    """Searches a catalogue."""

    def search(self, queries: NDArray[np.float32]) -> NDArray[np.int64]:
        """An item for each query: float32[B, d] -> int64[B]."""


class ExactIndex:
    """Looks at every item; among equals the lowest id wins.

    Args:
        items: float32[N, d].
    """

    def __init__(self, items: NDArray[np.float32]) -> None:
        self._items = items
        self._products = np.empty((_QUERIES, min(_ITEMS, len(items))), dtype=np.float32)

    def search(self, queries: NDArray[np.float32]) -> NDArray[np.int64]:
        """See Index.search."""
        ids = np.empty(len(queries), dtype=np.int64)
        for start in range(0, len(queries), _QUERIES):
            ids[start : start + _QUERIES] = self._search(queries[start : start + _QUERIES])
        return ids

    def _search(self, queries: NDArray[np.float32]) -> NDArray[np.int64]:
        rows = np.arange(len(queries))
        best = np.full(len(queries), -np.inf, dtype=np.float32)
        ids = np.zeros(len(queries), dtype=np.int64)
        for start in range(0, len(self._items), _ITEMS):
            block = self._items[start : start + _ITEMS]
            products = self._room(len(queries), len(block))
            np.matmul(queries, block.T, out=products)
            places = products.argmax(axis=1)
            found = products[rows, places]
            better = found > best
            best[better] = found[better]
            ids[better] = places[better] + start
        return ids

    def _room(self, queries: int, items: int) -> NDArray[np.float32]:
        return self._products.reshape(-1)[: queries * items].reshape(queries, items)


def best_ids(queries: NDArray[np.float32], items: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """The `count` items of largest inner product with each query, in no order: float32[B, d] -> int64[B, count]."""
    if count >= len(items):
        return np.broadcast_to(np.arange(len(items)), (len(queries), len(items))).copy()
    ids = np.empty((len(queries), count), dtype=np.int64)
    for start in range(0, len(queries), _QUERIES):
        products = queries[start : start + _QUERIES] @ items.T
        ids[start : start + _QUERIES] = np.argpartition(products, -count, axis=1)[:, -count:]
    return ids
