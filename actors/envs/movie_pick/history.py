"""What users of MoviePick remember."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class WatchHistory:
    """The last films each of B users watched.

    Args:
        num_users: B.
        length: how many films a user remembers.
        none: the number that stands where no film was watched yet.

    Attributes:
        films: int16[B, length], oldest first.
        none: as given.
    """

    def __init__(self, num_users: int, length: int, none: int) -> None:
        self.films = np.full((num_users, length), none, dtype=np.int16)
        self.none = none

    def forget(self, rows: NDArray[np.int64]) -> None:
        """Users at int64 `rows` have watched nothing yet."""
        self.films[rows] = self.none

    def add(self, rows: NDArray[np.int64], films: NDArray[np.int64]) -> None:
        """Users at `rows`, each at most once, watch `films`; the oldest falls out."""
        moved = self.films[rows]
        moved[:, :-1] = moved[:, 1:]
        moved[:, -1] = films
        self.films[rows] = moved

    def count(self, film: NDArray[np.int64]) -> NDArray[np.float32]:
        """How often each user remembers one film, integer[B] -> float32[B]."""
        return np.asarray((self.films == film[:, None]).sum(axis=1, dtype=np.float32))

    def counts(self) -> NDArray[np.float32]:
        """How often each user remembers every film, float32[B, none]."""
        return np.asarray((self.films[:, :, None] == np.arange(self.none)).sum(axis=1, dtype=np.float32))
