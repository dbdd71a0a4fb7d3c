"""How good a fit is: are probabilities what they say, and do factors find what users liked next."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_BLOCK = 1024  # users ranked at a time


def reliability(
    probability: NDArray[np.float64], happened: NDArray[np.bool_], bins: int = 10
) -> list[tuple[float, float, int]]:
    """What was said and what happened, in bins of equally many cases by what was said.

    Returns:
        (mean probability, share that happened, cases) a bin, lowest first; empty bins are left out.
    """
    groups = np.array_split(np.argsort(probability, kind="stable"), bins)
    return [(float(probability[rows].mean()), float(happened[rows].mean()), len(rows)) for rows in groups if len(rows)]


def calibration_error(curve: list[tuple[float, float, int]]) -> float:
    """Expected calibration error: mean distance between said and happened, weighted by cases (Naeini et al. 2015)."""
    cases = sum(count for _, _, count in curve)
    return sum(count * abs(said - happened) for said, happened, count in curve) / cases


def log_loss(probability: NDArray[np.float64], happened: NDArray[np.bool_]) -> float:
    """Mean negative log-likelihood, in nats."""
    return float(-np.log(np.where(happened, probability, 1.0 - probability)).mean())


def recall(
    scores: tuple[NDArray[np.float32], NDArray[np.float32]],
    seen: tuple[NDArray[np.int64], NDArray[np.int64]],
    wanted: tuple[NDArray[np.int64], NDArray[np.int64]],
    k: int = 20,
) -> float:
    """Recall@k: the share of what each user wanted among his k best unseen items, averaged over users who wanted any.

    Args:
        scores: float32[U, d] and float32[N, d], whose products rank all items.
        seen: users and items int64[n], pairs that are not ranked.
        wanted: users and items int64[m].
        k: items; all that there are where they are fewer.
    """
    users, items = len(scores[0]), len(scores[1])
    k = min(k, items)
    wants = np.bincount(wanted[0], minlength=users)
    hits = np.zeros(users)
    for start in range(0, users, _BLOCK):
        block = scores[0][start : start + _BLOCK] @ scores[1].T
        rows = (seen[0] >= start) & (seen[0] < start + _BLOCK)
        block[seen[0][rows] - start, seen[1][rows]] = -np.inf
        top = np.argpartition(-block, k - 1, axis=1)[:, :k]
        chosen = np.zeros(block.shape, dtype=np.bool_)
        np.put_along_axis(chosen, top, True, axis=1)
        rows = (wanted[0] >= start) & (wanted[0] < start + _BLOCK)
        found = chosen[wanted[0][rows] - start, wanted[1][rows]]
        hits += np.bincount(wanted[0][rows], weights=found, minlength=users)
    return float((hits[wants > 0] / wants[wants > 0]).mean())
