"""Slates: the likeliest items for sure, others drawn without replacement, each with its exact chance to be shown."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from learners.networks.softmax_policy import NEVER

Floats = NDArray[np.float64]

_LEAST = 1e-30  # probabilities below this are drawn as if they had it: the chances stay those of the draw
_LEAST_FORBIDDEN = 1e-60  # what is not on offer comes after all that is, where a slate has room for it
_STEP = 0.2  # of the quadrature; half of it moves no chance by 1e-13


@dataclass(frozen=True)
class Slates:
    """What B users are shown.

    Attributes:
        items: int64[B, K], different ones in each row: those shown for sure, then the others in the order of drawing.
        propensities: float64[B, K], chance of each to be anywhere on its slate; 1 where it was there for sure.
        log_probs: float64[B], log probability of the drawn items in this order.
    """

    items: NDArray[np.int64]
    propensities: Floats
    log_probs: Floats


def draw_slates(logits: Tensor, slots: int, certain: int, candidates: int, rng: np.random.Generator) -> Slates:
    """Slates from the softmax over the `candidates` items of highest logit (Chen et al. 2019, section 5).

    Args:
        logits: float[B, N], `NEVER` where an item is not on offer.
        slots: K, items of a slate.
        certain: K' <= K, the most probable items are shown for sure, the most probable first.
        candidates: M, K <= M <= N.
        rng: the only source of randomness.
    """
    if slots == 1 and certain == 0 and candidates == logits.shape[1]:
        return _draw_single(logits, rng)
    best = torch.topk(logits, candidates, dim=1)
    ids = best.indices.numpy()
    shown_for_sure, count = ids[:, :certain], slots - certain
    if count == 0:
        return Slates(shown_for_sure, np.ones(shown_for_sure.shape), np.zeros(len(ids)))
    others = best.values[:, certain:]
    p = torch.softmax(others.double(), dim=1).numpy()
    p = np.maximum(p, np.where(others.numpy() > NEVER, _LEAST, _LEAST_FORBIDDEN))
    p /= p.sum(axis=1, keepdims=True)
    places = draw_without_replacement(p, count, rng)
    rows = np.arange(len(ids))[:, None]
    return Slates(
        np.concatenate([shown_for_sure, ids[:, certain:][rows, places]], axis=1),
        np.concatenate([np.ones(shown_for_sure.shape), inclusion_probabilities(p, places)], axis=1),
        sequence_log_probs(p, places),
    )


def _draw_single(logits: Tensor, rng: np.random.Generator) -> Slates:
    """One item of all each: nothing needs to be sorted, and one random number a row is enough."""
    p = torch.softmax(logits, dim=1).numpy()
    reached = np.cumsum(p, axis=1, dtype=np.float64)
    items = (reached > rng.random((len(p), 1)) * reached[:, -1:]).argmax(axis=1)[:, None]
    propensities = np.take_along_axis(p, items, axis=1).astype(np.float64) / reached[:, -1:]
    return Slates(items, propensities, np.log(propensities[:, 0]))


def draw_without_replacement(p: Floats, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Places int64[B, m] in the order of drawing one after the other, each in proportion to p among those left.

    Item i arrives after an exponential time of rate p_i; the first m are such a draw.

    Args:
        p: float64[B, R], above 0.
        count: m <= R.
        rng: of the times.
    """
    times = rng.standard_exponential(p.shape) / p
    return np.argsort(times, axis=1)[:, :count]


def sequence_log_probs(p: Floats, places: NDArray[np.int64]) -> Floats:
    """Log probability float64[B] of drawing these places int64[B, m] of p float64[B, R] in this order."""
    left, rows, total = p.copy(), np.arange(len(p)), np.zeros(len(p))
    for place in places.T:
        total += np.log(p[rows, place]) - np.log(left.sum(axis=1))
        left[rows, place] = 0.0
    return total


def inclusion_probabilities(p: Floats, places: NDArray[np.int64]) -> Floats:
    """Chance float64[B, m] of each of these places to be among m drawn without replacement, to rounding.

    As in `draw_without_replacement` let item i arrive at rate p_i. It is among the first m if, at its own arrival, at
    most m - 1 others have arrived:

        integral over t of p_i exp(-p_i t) P(at most m - 1 of the others arrived by t) dt

    The number of arrivals is a sum of independent events; its distribution up to m - 1 is a product of R polynomials
    cut off there. With t = exp(u - exp(-u)) the trapezoid rule converges exponentially: fewer than a
    hundred times suffice. The cost is O(R m) for each of them, where enumeration would need R! / (R - m)!.

    Args:
        p: float64[B, R], above 0, each row sums to 1.
        places: int64[B, m], different ones in each row.
    """
    rows, count = np.arange(len(p))[:, None], places.shape[1]
    if count == 1:
        return p[rows, places]
    if count == p.shape[1]:
        return np.ones(places.shape)
    times, steps = _quadrature(float(np.sort(p, axis=1)[:, -count - 1].min()))
    others = np.ones(p.shape, np.bool_)
    others[rows, places] = False
    rest = -np.expm1(-p[others].reshape(len(p), -1, 1) * times)  # [B, R - m, T], arrived by then
    at_most = _count_distribution(rest, count).cumsum(axis=1)
    at_most = np.pad(at_most, ((0, 0), (0, count - at_most.shape[1]), (0, 0)), mode="edge")  # [B, m, T]
    own = p[rows, places]
    arrived = -np.expm1(-own[:, :, None] * times)  # [B, m, T]
    chance = np.zeros((*places.shape, len(times)))
    for i in range(count):
        fellows = _count_distribution(np.delete(arrived, i, axis=1), count)
        chance[:, i] = (fellows * at_most[:, ::-1]).sum(axis=1)
    density = own[:, :, None] * np.exp(-own[:, :, None] * times)
    return np.minimum((density * chance) @ steps, 1.0)


def _quadrature(least: float) -> tuple[Floats, Floats]:
    """Times and steps float64[T] up to where m + 1 items have surely arrived, the slowest at this rate."""
    last = math.log(45.0 / least)
    u = np.arange(-3.6, last + _STEP, _STEP)
    times = np.exp(u - np.exp(-u))
    return times, times * (1.0 + np.exp(-u)) * _STEP


def _count_distribution(chances: Floats, size: int) -> Floats:
    """How many of n independent events happen: chances float64[B, n, T] -> P(0), ..., P(size - 1), [B, <= size, T]."""
    polynomials = np.stack([1.0 - chances, chances], axis=2)  # [B, n, 2, T]
    while polynomials.shape[1] > 1:
        if polynomials.shape[1] % 2:
            sure = np.zeros_like(polynomials[:, :1])
            sure[:, :, 0] = 1.0
            polynomials = np.concatenate([polynomials, sure], axis=1)
        polynomials = _product(polynomials[:, ::2], polynomials[:, 1::2], size)
    return polynomials[:, 0]


def _product(a: Floats, b: Floats, size: int) -> Floats:
    """Products of polynomials [B, n, degree + 1, T], cut off at `size` coefficients."""
    degrees = a.shape[2]
    out = np.zeros((*a.shape[:2], min(2 * degrees - 1, size), a.shape[3]))
    for k in range(min(degrees, out.shape[2])):
        width = min(degrees, out.shape[2] - k)
        out[:, :, k : k + width] += a[:, :, k : k + 1] * b[:, :, :width]
    return out
