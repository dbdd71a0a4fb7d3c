"""Embeddings of the items that actions choose: a table of the whole catalogue, or features in the observation."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from learners.networks.offers import Offers
from learners.task import Task
from replay_server.errors import ConfigError


class Items(nn.Module):
    """The items an observation offers: rows of a table (all of them, or those its candidate ids name) or features.

    Args:
        offers: reads candidates.
        table: float32[N, d], or None where candidates are features.
        learnt: the table is trained; else it is fixed and not part of the weights.
        size: d.
    """

    def __init__(self, offers: Offers, table: Tensor | None, *, learnt: bool, size: int) -> None:
        super().__init__()
        self._offers = offers
        self.size = size
        self.count = 0 if table is None else len(table)
        self.table: Tensor | None
        if table is not None and learnt:
            self.table = nn.Parameter(table)
        else:
            self.register_buffer("table", table, persistent=False)

    def mapped(self, observation: Tensor, layer: nn.Linear) -> Tensor:
        """The offered items through a layer: float[1 or B, A, outputs], with as few products as there are items."""
        if self.table is None:
            mapped: Tensor = layer(self._features(observation))
            return mapped
        ids = self._offers.candidate_ids(observation)
        if ids is None or ids.numel() >= self.count:
            return self.rows(layer(self.table), observation)
        mapped = layer(functional.embedding(ids.clamp(min=0), self.table))
        return mapped

    def products(self, query: Tensor, observation: Tensor, *, normalise: bool) -> Tensor:
        """Dot products of queries [B, Z, d] with the offered items: float[B, A, Z]."""
        items = self._features(observation) if self.table is None else self.rows(self.table, observation)
        if normalise:
            items = functional.normalize(items, dim=2)
        if len(items) == 1:
            return (query @ items[0].T).transpose(1, 2)  # one product with the whole catalogue
        return torch.bmm(items, query.transpose(1, 2))

    def rows(self, values: Tensor, observation: Tensor) -> Tensor:
        """Values float[N, n] of all items (or [1, n] of any) for those on offer: float[1 or B, A, n]."""
        ids = self._offers.candidate_ids(observation)
        if ids is None or len(values) == 1:
            return values.unsqueeze(0)
        return functional.embedding(ids.clamp(min=0), values)

    def _features(self, observation: Tensor) -> Tensor:
        features = self._offers.candidate_features(observation)
        assert features is not None, "without a table candidates are features"
        return features


def make_items(
    task: Task, offers: Offers, actions: int, *, learnt: bool, size: int, generator: torch.Generator
) -> Items:
    """Candidates' features, else a table: of the environment's item embeddings, or a random one.

    Args:
        task: has the embeddings.
        offers: reads candidates.
        actions: A; without candidates the items themselves.
        learnt: the table is trained.
        size: numbers an item of a random table.
        generator: of a random table.

    Raises:
        ConfigError: the environment has embeddings of another number of items.
    """
    part, known = offers.candidates, task.item_embeddings
    if part is not None and len(part.shape) == 2:
        return Items(offers, None, learnt=False, size=part.shape[1])
    count = actions if part is None else part.largest + 1
    if known is None:
        table = torch.randn(count, size, generator=generator).mul_(size**-0.5)  # of length about 1 each
    else:
        table = torch.tensor(known, dtype=torch.float32)
    if part is None and len(table) != count:
        raise ConfigError(
            f"environment.id: {len(table)} item embeddings, but {count} actions; without candidates an action is an "
            "item, so make them equal"
        )
    if len(table) < count:
        raise ConfigError(
            f"environment.id: candidates goes up to {count - 1}, but there are {len(table)} item embeddings; make its "
            "upper bound the last item"
        )
    return Items(offers, table, learnt=learnt, size=table.shape[1])
