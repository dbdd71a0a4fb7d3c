"""Numbers that stand for names: item ids and categories."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from learners.networks.initialise import linear
from learners.task import Part

_MOST_ONE_HOT = 256  # categories; more than that have an embedding


class ItemEmbedding(nn.Module):
    """Embeddings of item ids, 0 to count - 1; an id below 0 stands for no item and becomes zeros.

    Args:
        count: items.
        size: numbers an embedding.
        features: float32[count, d], what is known of each item: a learnt linear layer makes embeddings of them. They
            are part of the task, not of the weights. None: a learnt table.
        generator: initialises the weights.
    """

    def __init__(self, count: int, size: int, features: NDArray[Any] | None, generator: torch.Generator) -> None:
        super().__init__()
        self.size = size
        self.table: Tensor
        if features is None:
            self.table = nn.Parameter(torch.randn(count, size, generator=generator) / size**0.5)
            self.layer = None
        else:
            self.register_buffer("table", torch.tensor(features, dtype=torch.float32), persistent=False)
            self.layer = linear(features.shape[1], size, generator)

    def forward(self, ids: Tensor) -> Tensor:
        """Whole numbers of any dtype [B, H] -> float32[B, H, size]."""
        rows = functional.embedding(ids.long().clamp(min=0), self.table)
        if self.layer is not None:
            rows = self.layer(rows)
        return rows * (ids >= 0).unsqueeze(-1)


class Categories(nn.Module):
    """The numbers of a Discrete or MultiDiscrete: one-hot up to 256 categories, else a learnt embedding each.

    Args:
        part: with `categories`.
        size: numbers an embedding.
        generator: initialises the weights.

    Attributes:
        size: numbers out.
    """

    def __init__(self, part: Part, size: int, generator: torch.Generator) -> None:
        super().__init__()
        self._part = part
        few = [i for i, count in enumerate(part.categories) if count <= _MOST_ONE_HOT]
        self._many = [i for i, count in enumerate(part.categories) if count > _MOST_ONE_HOT]
        self.embeddings = nn.ModuleList(ItemEmbedding(part.categories[i], size, None, generator) for i in self._many)
        which = [torch.full((part.categories[i],), i) for i in few]
        values = [torch.arange(part.categories[i]) for i in few]
        nothing = torch.empty(0, dtype=torch.int64)
        self._which: Tensor
        self._values: Tensor
        self.register_buffer("_which", torch.cat([nothing, *which]), persistent=False)
        self.register_buffer("_values", torch.cat([nothing, *values]), persistent=False)
        self.size = len(self._which) + size * len(self._many)

    def forward(self, flat: Tensor) -> Tensor:
        """float32[B, numbers of one observation] -> float32[B, size]."""
        numbers = self._part.of(flat)
        one_hot = (numbers.index_select(1, self._which) == self._values).float()
        embedded = [embedding(numbers[:, i]) for i, embedding in zip(self._many, self.embeddings, strict=True)]
        return torch.cat([one_hot, *embedded], dim=1) if embedded else one_hot
