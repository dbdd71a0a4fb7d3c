"""Versioned weights: one blob of bytes with a manifest, and the two ends it travels between."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class TensorEntry:
    """Where one tensor lies in the blob: name, numpy dtype name, shape, byte offset."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int


@dataclass(frozen=True)
class WeightSnapshot:
    """One published version of a policy's weights.

    Attributes:
        version: 1, 2, ...; 0 means "never loaded".
        manifest: one entry a tensor, in order.
        blob: uint8[bytes], all tensors one after the other, each at a multiple of 16; may be read-only.
    """

    version: int
    manifest: tuple[TensorEntry, ...]
    blob: NDArray[np.uint8]

    @staticmethod
    def of(version: int, arrays: Mapping[str, NDArray[Any]]) -> WeightSnapshot:
        """Copy arrays into one snapshot."""
        entries, end = [], 0
        for name, array in arrays.items():
            start = -(-end // 16) * 16
            entries.append(TensorEntry(name, array.dtype.name, tuple(array.shape), start))
            end = start + array.nbytes
        blob = np.zeros(end, dtype=np.uint8)
        for entry, array in zip(entries, arrays.values(), strict=True):
            blob[entry.offset : entry.offset + array.nbytes] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        return WeightSnapshot(version, tuple(entries), blob)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Zero-copy views of the tensors, by name."""
        views = {}
        for entry in self.manifest:
            dtype = np.dtype(entry.dtype)
            count = int(np.prod(entry.shape, dtype=np.int64))
            raw = self.blob[entry.offset : entry.offset + count * dtype.itemsize]
            views[entry.name] = raw.view(dtype).reshape(entry.shape)
        return views


class WeightSource(Protocol):
    """Where actors get weights from. Never waits."""

    def latest(self, newer_than: int) -> WeightSnapshot | None:
        """The newest snapshot with version > newer_than, or None."""


class WeightSink(Protocol):
    """Where a learner puts weights."""

    def publish(self, snapshot: WeightSnapshot) -> None: ...


class WeightSlot:
    """Source and sink in one process: holds the newest snapshot."""

    def __init__(self) -> None:
        self._newest: WeightSnapshot | None = None

    def publish(self, snapshot: WeightSnapshot) -> None:
        self._newest = snapshot

    def latest(self, newer_than: int) -> WeightSnapshot | None:
        if self._newest is None or self._newest.version <= newer_than:
            return None
        return self._newest
