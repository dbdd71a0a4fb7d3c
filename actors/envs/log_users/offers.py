"""Candidates of one step."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def draw_candidates(users: int, items: int, count: int, rng: np.random.Generator) -> NDArray[np.int32]:
    """Different items for each user, each item with probability count / items, without a loop.

    The catalogue, in an order turned by a random number of places, is cut into `count` stretches of almost equal
    length, and one item is drawn from each.

    Args:
        users: B.
        items: N.
        count: M, at most N.
        rng: random numbers.

    Returns:
        int32[B, M].
    """
    edges = np.arange(count + 1) * items // count
    draws = rng.random((users, count + 1), dtype=np.float32)
    turn = (draws[:, :1] * np.float32(items)).astype(np.int32)
    within = (draws[:, 1:] * np.diff(edges).astype(np.float32)).astype(np.int32)
    within = np.minimum(within, np.diff(edges).astype(np.int32) - 1)  # float32 may round up to the next stretch
    return (edges[:-1].astype(np.int32) + within + np.minimum(turn, items - 1)) % np.int32(items)
