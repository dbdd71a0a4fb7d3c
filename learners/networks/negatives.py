"""Draws the negatives of a sampled softmax, by how often items were acted on so far."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class NegativeSampler(nn.Module):
    """Draws items independently: log-uniformly by rank of frequency, or in proportion to frequency^alpha.

    Frequencies are counted from the actions of all batches; ids need no order of their own.

    Args:
        items: N.
        size: S, negatives of one batch.
        alpha: exponent on the counts, each one higher than counted; None for log-uniform by rank.
    """

    def __init__(self, items: int, size: int, alpha: float | None) -> None:
        super().__init__()
        self._size = size
        self._alpha = alpha
        self.counts: Tensor
        self.register_buffer("counts", torch.zeros(items, dtype=torch.float64))

    def observe(self, a: Tensor) -> None:
        """Count actions int64[B]."""
        self.counts.index_add_(0, a, torch.ones(len(a), dtype=torch.float64, device=a.device))

    def draw(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Items int64[S], and float32[S], the log of how often each was expected among the S."""
        q = self.probabilities()
        draws = torch.rand(self._size, dtype=torch.float64, device=q.device, generator=generator)
        drawn = torch.searchsorted(q.cumsum(0), draws, right=True).clamp(max=len(q) - 1)
        return drawn, (q[drawn] * self._size).log().float()

    def probabilities(self) -> Tensor:
        """float64[N], of one draw."""
        if self._alpha is not None:
            weights = (self.counts + 1.0) ** self._alpha
            return weights / weights.sum()
        count = len(self.counts)
        ranks = torch.arange(1, count + 1, dtype=torch.float64, device=self.counts.device)
        by_rank = ((ranks + 1.0) / ranks).log() / math.log(count + 1.0)
        order = self.counts.argsort(descending=True, stable=True)
        return torch.zeros_like(by_rank).scatter(0, order, by_rank)
