"""A catalogue of items whose embeddings may be replaced while it is in use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from learners.catalogue.distances import Metric
from learners.catalogue.neighbours import Neighbours, Search, make_neighbours
from learners.task import ContinuousActions
from replay_server.errors import ConfigError

_NARROW = 1e-6  # a dimension in which all items agree within this gets a range of 1 to each side


@dataclass(frozen=True)
class Edition:
    """One version of a catalogue; never changed.

    Attributes:
        version: 0, 1, ...; stored with every action that it led to.
        items: float32[N, d], embedding of each item.
        neighbours: search among them.
    """

    version: int
    items: Tensor
    neighbours: Neighbours


class Catalogue:
    """The current edition, and how the next one replaces it.

    `reindex` builds the new index beside the old one, which goes on answering, and then switches by one assignment.
    Whoever searches and then looks up embeddings takes `edition` once and uses it for both.

    Args:
        items: float32[N, d]; edition 0.
        distance: what near means.
        search: kind of index.
        device: where exact search runs; other indices live on the CPU.

    Raises:
        ConfigError: embeddings that are not finite float[N, d], or an index that can't be made.
    """

    def __init__(self, items: Any, *, distance: Metric, search: Search, device: str = "cpu") -> None:
        self._distance, self._search, self._device = distance, search, device
        first = _checked(items)
        self._bounds = _box(first)
        self.edition = self._build(0, first)

    @property
    def version(self) -> int:
        """Of the current edition."""
        return self.edition.version

    @property
    def size(self) -> int:
        """Items, the same in every edition."""
        return len(self.edition.items)

    def reindex(self, items: Any, version: int) -> None:
        """Replace all embeddings; ids keep their meaning.

        Args:
            items: float32[N, d] of the same shape.
            version: larger than the current one.

        Raises:
            ConfigError: another shape, or a version that does not grow; nothing is changed.
        """
        checked = _checked(items)
        if checked.shape != self.edition.items.shape:
            raise ConfigError(
                f"embeddings version {version} have shape {list(checked.shape)}, the catalogue "
                f"{list(self.edition.items.shape)}: a new edition has the same items"
            )
        if version <= self.version:
            raise ConfigError(f"embeddings version {version} is not newer than the catalogue's {self.version}")
        self.edition = self._build(version, checked)

    def bounds(self) -> ContinuousActions:
        """The box around the embeddings of edition 0, which proto-actions are kept in.

        It stays when they are replaced: networks that have learnt what its units mean cannot follow.
        """
        return self._bounds

    def _build(self, version: int, items: Tensor) -> Edition:
        items = items.to(self._device)
        return Edition(version, items, make_neighbours(self._search, items, self._distance))


def _box(items: Tensor) -> ContinuousActions:
    low, high = items.amin(dim=0), items.amax(dim=0)
    room = torch.where(high - low < _NARROW, 1.0, 0.0)
    return ContinuousActions(tuple((low - room).tolist()), tuple((high + room).tolist()))


def _checked(items: Any) -> Tensor:
    tensor = torch.from_numpy(np.array(items, dtype=np.float32))
    if tensor.ndim != 2 or not len(tensor) or not bool(torch.isfinite(tensor).all()):
        raise ConfigError(f"item embeddings of shape {list(tensor.shape)}: expected finite numbers [N, d], N >= 1")
    return tensor
