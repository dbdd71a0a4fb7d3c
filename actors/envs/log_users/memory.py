"""What users were shown: every item of the episode as a bit, the last ones with what came of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class Memory:
    """B users' memories of N items.

    Args:
        num_users: B.
        items: N.
        length: H, items whose order is remembered.

    Attributes:
        history: int32[B, H], items shown last, oldest first; -1 for none.
        clicked: int8[B, H], 1 where the item beside it was clicked.
    """

    def __init__(self, num_users: int, items: int, length: int) -> None:
        self._items = items
        self._bits = np.zeros((num_users, (items + 7) // 8), dtype=np.uint8)
        self._rows = np.arange(num_users)
        self.history = np.full((num_users, length), -1, dtype=np.int32)
        self.clicked = np.zeros((num_users, length), dtype=np.int8)

    def forget(self, rows: NDArray[np.int64]) -> None:
        """Users at `rows` have been shown nothing."""
        self._bits[rows] = 0
        self.history[rows] = -1
        self.clicked[rows] = 0

    def knows(self, items: NDArray[np.int64]) -> NDArray[np.bool_]:
        """bool[B]: user b was shown item b; of items int64[B, M] bool[B, M]."""
        rows = self._rows if items.ndim == 1 else self._rows[:, None]
        return np.asarray((self._bits[rows, items >> 3] >> (items & 7).astype(np.uint8)) & 1, dtype=np.bool_)

    def unseen(self) -> NDArray[np.bool_]:
        """bool[B, N], items that were not shown yet."""
        return np.asarray(np.unpackbits(self._bits, axis=1, count=self._items, bitorder="little") == 0)

    def add(self, items: NDArray[np.int64], clicked: NDArray[np.bool_]) -> None:
        """User b was shown item b and clicked on it or not."""
        self._bits[self._rows, items >> 3] |= np.uint8(1) << (items & 7).astype(np.uint8)
        for kept, newest in ((self.history, items), (self.clicked, clicked)):
            kept[:, :-1] = kept[:, 1:]
            kept[:, -1] = newest
