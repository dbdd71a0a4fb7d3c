"""Recall and mean reciprocal rank of what users consumed next, among all items (Hidasi et al. 2016)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from replay_server.errors import EnvironmentFault

CUTOFF = 20
"""Ranks beyond this one count for nothing."""


def conservative_ranks(scores: NDArray[Any], item: NDArray[np.int64]) -> NDArray[np.int64]:
    """The rank of one item in each row, from 1; every other item with the same score, or none (NaN), comes before it.

    So a policy that scores all items alike ranks every one last, and gains nothing by it.

    Args:
        scores: number[B, N], larger comes first.
        item: int64[B], 0 to N - 1.
    """
    own = scores[np.arange(len(scores)), item]
    ranks = (~(scores < own[:, None])).sum(axis=1)
    return np.asarray(np.where(np.isnan(own), scores.shape[1], ranks))


class RankingMetrics:
    """Recall@20 and MRR@20 of B running episodes, over their steps so far.

    Args:
        num_envs: B.
    """

    def __init__(self, num_envs: int) -> None:
        self._steps = np.zeros(num_envs)
        self._hits = np.zeros(num_envs)
        self._reciprocals = np.zeros(num_envs)

    def add(self, scores: NDArray[Any], next_item: NDArray[np.int64], running: NDArray[np.bool_]) -> None:
        """Count one step of the episodes that are `running`.

        Args:
            scores: number[B, N], given before the step.
            next_item: int64[B], what was consumed in it; below 0 for nothing, which does not count.
            running: bool[B].
        """
        rows = np.flatnonzero(running & (next_item >= 0))
        ranks = conservative_ranks(scores[rows], next_item[rows])
        hit = ranks <= CUTOFF
        self._steps[rows] += 1.0
        self._hits[rows] += hit
        self._reciprocals[rows] += hit / ranks

    def of_episodes(self) -> dict[str, NDArray[np.float64]]:
        """`recall_at_20` and `mrr_at_20`, float64[B] each, NaN where nothing was consumed."""
        steps = np.where(self._steps > 0.0, self._steps, np.nan)
        return {f"recall_at_{CUTOFF}": self._hits / steps, f"mrr_at_{CUTOFF}": self._reciprocals / steps}


def read_next_item(info: Mapping[str, Any], num_envs: int, env_name: str) -> NDArray[np.int64] | None:
    """What users consumed in a step, `info["next_item"]`: int64[B], -1 for nothing; None where nobody tells.

    Raises:
        EnvironmentFault: it is no whole number an environment.
    """
    going_on, last = info.get("next_item"), info.get("final_info", {}).get("next_item")
    if going_on is None and last is None:
        return None
    found = np.asarray(last if going_on is None else going_on)
    if found.shape != (num_envs,) or found.dtype.kind not in "iu":
        raise EnvironmentFault(
            f"environment {env_name}: next_item of its info is {found.dtype}{list(found.shape)}; give one whole number "
            f"an environment, int64[{num_envs}]"
        )
    if going_on is not None and last is not None:  # single environments, some of which were reset in this step
        found = np.where(info["final_info"]["_next_item"], last, found)
    return found.astype(np.int64)
