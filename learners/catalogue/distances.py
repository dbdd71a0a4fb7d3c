"""The eight distances catalogues are ranked by, as `scipy.spatial.distance` defines them, in torch and in blocks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

Metric = Literal["euclidean", "cosine", "correlation", "cityblock", "chebyshev", "minkowski", "canberra", "braycurtis"]
METRICS: tuple[Metric, ...] = get_args(Metric)
MINKOWSKI_P = 3.0  # 1, 2 and infinity are cityblock, euclidean and chebyshev
_BLOCK = 1 << 22  # numbers in one [B, block, d] array of differences: 16 MiB


def distances(metric: Metric, queries: Tensor, items: Tensor) -> Tensor:
    """Distance of each query to each item.

    Where scipy divides 0 by 0: canberra counts such a dimension as 0, braycurtis such a pair as 0, and cosine and
    correlation of a vector without length are 1.

    Args:
        metric: `minkowski` has p = 3.
        queries: float[B, d].
        items: float[N, d].

    Returns:
        float[B, N].
    """
    match metric:
        case "euclidean":
            return torch.cdist(queries, items, compute_mode="donot_use_mm_for_euclid_dist")
        case "cityblock":
            return torch.cdist(queries, items, p=1.0)
        case "chebyshev":
            return torch.cdist(queries, items, p=float("inf"))
        case "minkowski":
            return torch.cdist(queries, items, p=MINKOWSKI_P)
        case "cosine" | "correlation":
            return 1.0 - on_sphere(metric, queries) @ on_sphere(metric, items).T
        case "canberra":
            return _in_blocks(_canberra, queries, items)
        case "braycurtis":
            return _in_blocks(_braycurtis, queries, items)
    raise ValueError(f"no distance {metric!r}; there are {', '.join(METRICS)}")


def on_sphere(metric: Metric, vectors: Tensor) -> Tensor:
    """[N, d] vectors whose euclidean order is that of `cosine` (unit length) or `correlation` (centred before)."""
    if metric == "correlation":
        vectors = vectors - vectors.mean(dim=1, keepdim=True)
    return F.normalize(vectors, dim=1)


def _in_blocks(pairs: Callable[[Tensor, Tensor], Tensor], queries: Tensor, items: Tensor) -> Tensor:
    rows = max(_BLOCK // max(queries.numel(), 1), 1)
    return torch.cat([pairs(queries[:, None, :], block[None, :, :]) for block in torch.split(items, rows)], dim=1)


def _canberra(q: Tensor, x: Tensor) -> Tensor:
    return ((q - x).abs() / (q.abs() + x.abs()).clamp(min=torch.finfo(q.dtype).tiny)).sum(dim=2)


def _braycurtis(q: Tensor, x: Tensor) -> Tensor:
    apart, together = (q - x).abs().sum(dim=2), (q + x).abs().sum(dim=2)
    return apart / together.clamp(min=torch.finfo(q.dtype).tiny)
