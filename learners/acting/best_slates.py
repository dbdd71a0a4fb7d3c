"""Which K of M candidates to show: the slate of largest value under the user's choice (Ie et al. 2019, section 5)."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from replay_server.errors import InvalidRecord

_ROUNDS = 12  # of the search for the best ratio, whose steps shrink quadratically; five are enough for most

SlateOptimizer = Callable[[Tensor, Tensor, Tensor, int], Tensor]
"""From q [B, M + 1], scores [B, M + 1], offered bool[B, M] and K to slates int64[B, K], without repeats."""


def top_k(q: Tensor, scores: Tensor, offered: Tensor, slots: int) -> Tensor:
    """The K candidates of largest v x q, largest first; forgets that they compete with each other.

    Args:
        q: float[B, M + 1], value of each outcome, the last for consuming nothing.
        scores: float[B, M + 1], v >= 0, see `losses.slate.slate_values`.
        offered: bool[B, M], candidates that may be shown; the others come last, where there are too few.
        slots: K <= M.

    Returns:
        int64[B, K], positions among the candidates; of equals the first.
    """
    return top_places(scores[:, :-1] * q[:, :-1], offered, slots)


def greedy(q: Tensor, scores: Tensor, offered: Tensor, slots: int) -> Tensor:
    """One candidate after the other, each the one that makes the slate so far most valuable; see `top_k`."""
    v, weighed = scores[:, :-1], scores[:, :-1] * q[:, :-1]
    mass, total = scores[:, -1:], scores[:, -1:] * q[:, -1:]
    shown, picks = torch.zeros_like(offered), []
    for _ in range(slots):
        value = torch.where(offered, (total + weighed) / (mass + v), torch.finfo(q.dtype).min)
        pick = top_places(value, ~shown, 1)
        mass, total = mass + v.gather(1, pick), total + weighed.gather(1, pick)
        shown = shown.scatter(1, pick, True)
        picks.append(pick)
    return torch.cat(picks, dim=1)


def exact(q: Tensor, scores: Tensor, offered: Tensor, slots: int) -> Tensor:
    """The most valuable slate; see `top_k`.

    A slate's value is a ratio of sums, so the best slate is the top K by v x (q - z) where z is its own value
    (fractional programming: Dinkelbach 1967); z is found by putting the value of each slate in again, which rises to
    the best in a few rounds. Items come in that order.
    """
    v, none = scores[:, :-1], scores[:, -1:]
    value = q[:, -1:].clone()
    for _ in range(_ROUNDS):
        gain = (v * (q[:, :-1] - value)).masked_fill(~offered, -math.inf)
        picks = gain.topk(slots, dim=1).indices
        drawn = v.gather(1, picks)
        mass = none + drawn.sum(dim=1, keepdim=True)
        value = (none * q[:, -1:] + (drawn * q.gather(1, picks)).sum(dim=1, keepdim=True)) / mass
    return top_places(v * (q[:, :-1] - value), offered, slots)


OPTIMIZERS: dict[str, SlateOptimizer] = {"top_k": top_k, "greedy": greedy, "exact": exact}


def random_slates(offered: Tensor, slots: int, draws: Tensor) -> Tensor:
    """K different candidates on offer in random order, all slates alike.

    Args:
        offered: bool[B, M], see `top_k`.
        slots: K <= M.
        draws: float[B, M], independent and uniform in [0, 1).

    Returns:
        int64[B, K].
    """
    return top_places(draws, offered, slots)


def slate_counts(offered: NDArray[np.bool_], slots: int) -> NDArray[np.float64]:
    """Log of how many slates there are of the candidates on offer, bool[B, M]: float64[B]."""
    logs = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, offered.shape[1] + 1)))])  # log n!
    count = offered.sum(axis=1)
    return np.asarray(logs[count] - logs[np.maximum(count - slots, 0)])


def check_slates(slates: NDArray[np.int64], candidates: int) -> None:
    """Refuse slates int64[B, K] that show an item twice or one that is not among `candidates`.

    Raises:
        InvalidRecord: naming the first such slate.
    """
    ordered = np.sort(slates, axis=1)
    twice = (ordered[:, 1:] == ordered[:, :-1]).any(axis=1)
    outside = (ordered[:, 0] < 0) | (ordered[:, -1] >= candidates)
    if not (twice | outside).any():
        return
    row = int(np.flatnonzero(twice | outside)[0])
    what = "shows an item twice" if twice[row] else f"shows one that is not among the {candidates} candidates"
    raise InvalidRecord(
        f"record {row}: slate {slates[row].tolist()} {what}; a slate holds different positions from 0 to "
        f"{candidates - 1}"
    )


def top_places(score: Tensor, offered: Tensor, slots: int) -> Tensor:
    """The K of largest score, of equals the first; those not on offer after all others."""
    return score.masked_fill(~offered, -math.inf).sort(dim=1, descending=True, stable=True).indices[:, :slots]
