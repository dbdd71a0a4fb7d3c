"""From a proto-action to an item: the nearest items, scored again by a critic (Dulac-Arnold et al. 2015)."""

from __future__ import annotations

import torch
from torch import Tensor

from learners.catalogue.catalogue import Edition
from learners.networks.actor_critic import Critics
from learners.task import Part, Task
from replay_server.errors import ConfigError


def seen_part(task: Task) -> Part | None:
    """The part that says which items were seen: a `history` of item ids."""
    part = task.part("history")
    return part if part is not None and part.integer and len(part.shape) == 1 else None


class SeenItems:
    """Reads which items an observation says were seen, -1 for none.

    Raises:
        ConfigError: the catalogue is not larger than the history, so that it may hold nothing unseen.
    """

    def __init__(self, part: Part, catalogue_size: int) -> None:
        self._part = part
        if part.size >= catalogue_size:
            raise ConfigError(
                f"algorithm.drop_seen: a history of {part.size} items may hold all {catalogue_size} items of the "
                "catalogue; set it to false"
            )

    def __call__(self, observation: Tensor) -> Tensor:
        """[B, *observation_shape] -> int64[B, H]."""
        return self._part.of(observation).round().long()


def best_of_nearest(
    edition: Edition, critics: Critics, observation: Tensor, proto: Tensor, k: int, seen: Tensor | None
) -> Tensor:
    """The item that the first critic likes best among the `k` unseen ones nearest to a proto-action.

    To have k left, k + H are asked for; only where the catalogue holds fewer unseen ones than k are there fewer.

    Args:
        edition: the catalogue.
        critics: score items in the observation.
        observation: [B, *observation_shape].
        proto: float32[B, d].
        k: >= 1.
        seen: int64[B, H], ids that must not be chosen (-1: none), fewer than the catalogue holds; or None.

    Returns:
        int64[B], ids.
    """
    wanted = k if seen is None else k + seen.shape[1]
    ids = edition.neighbours.search(proto, min(wanted, len(edition.items)))
    known: Tensor | None = None
    if seen is not None:
        known = (ids[:, :, None] == seen[:, None, :]).any(dim=2)
        unseen_first = known.to(torch.int8).argsort(dim=1, stable=True)[:, :k]
        ids, known = ids.gather(1, unseen_first), known.gather(1, unseen_first)
    values = critics.first_of_each(critics.encoder(observation), edition.items[ids])
    if known is not None:
        values = values.masked_fill(known, -torch.inf)
    return ids.gather(1, values.argmax(dim=1, keepdim=True)).squeeze(1)
