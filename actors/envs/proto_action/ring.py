"""The last values of B users, where all users get a new one at the same time."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray


class Ring:
    """The last `length` values of each of B users in one array; a new one moves nothing.

    Args:
        num_users: B.
        length: H, values remembered.
        shape: of one value.
        dtype: of one value.
        none: stands where there is no value yet.
    """

    def __init__(self, num_users: int, length: int, shape: tuple[int, ...], dtype: DTypeLike, none: float) -> None:
        self._values = np.full((num_users, length, *shape), none, dtype=dtype)
        self._none = none
        self._next = 0

    def clear(self, rows: NDArray[np.int64]) -> None:
        """Forget the values of these users."""
        self._values[rows] = self._none

    def advance(self) -> NDArray[Any]:
        """The place for everybody's new value, which the oldest leaves: a view [B, *shape] to write to."""
        place = self._values[:, self._next]
        self._next = (self._next + 1) % self._values.shape[1]
        return place

    def ordered(self) -> NDArray[Any]:
        """[B, H, *shape], oldest first, a new array."""
        values = np.empty_like(self._values)
        older = self._values.shape[1] - self._next
        values[:, :older] = self._values[:, self._next :]
        values[:, older:] = self._values[:, : self._next]
        return values
