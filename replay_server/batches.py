"""What a sample is, and what may be said about it."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from replay_server.errors import InvalidRecord
from replay_server.specs import RecordSpec

KEY_DTYPE = np.dtype([("slot", "<u4"), ("shard", "<u4"), ("incarnation", "<u4"), ("generation", "<u4")])
"""A record's key, 16 bytes, opaque to users: it names one stored record of one life of one shard, never another."""


MAX_PRIORITY = 1e100
"""Far above any TD error and far enough below the largest float64 that no sum of priorities overflows."""


@dataclass(frozen=True)
class SampleBatch:
    """B records drawn from a replay.

    Attributes:
        spec: layout of the records.
        records: uint8[B, record_size], one contiguous block.
        keys: KEY_DTYPE[B], to hand back to `update_priorities`.
        probabilities: float64[B], the probability of the draw actually made: (share of the mass the client used for
            the shard) x p^alpha / (the shard's mass at the moment of serving).
        table_size: records stored over all shards when the batch was served.
        inserted: records ever inserted over all shards when the batch was served; schedules run on it.
        consumed: they left the replay by being drawn: every record is drawn as often as any other.
        least_probability: of all records that are learnt from together, where this is a part of them; else None.

    The arrays may lie in memory shared with a shard, or in a received message, which other batches of the same reply
    keep alive too. They stay good for as long as anything refers to them; `release` only lets go of them early.
    """

    spec: RecordSpec
    records: NDArray[np.uint8]
    keys: NDArray[Any]
    probabilities: NDArray[np.float64]
    table_size: int
    inserted: int
    consumed: bool = False
    least_probability: float | None = None

    @cached_property
    def columns(self) -> dict[str, NDArray[Any]]:
        """Zero-copy views of the records' fields, each [B, *shape]."""
        return self.spec.columns(self.records)

    def __len__(self) -> int:
        return len(self.records)

    def release(self) -> None:
        """Let the memory go: the batch is empty from now on, and columns taken before keep what they view."""
        self.__dict__.pop("columns", None)
        for name in ("records", "keys", "probabilities"):
            object.__setattr__(self, name, getattr(self, name)[:0].copy())


def checked_priorities(priorities: Any, rows: int) -> NDArray[np.float64]:
    """float64[rows], finite and in [0, 1e100]; raises InvalidRecord on anything else."""
    array = np.asarray(priorities)
    if array.dtype.kind not in "fiu" or array.shape != (rows,):
        raise InvalidRecord(f"priorities are {array.dtype}{list(array.shape)}, expected float64[{rows}]")
    array = array.astype(np.float64, copy=False)
    wrong = ~((array >= 0.0) & (array <= MAX_PRIORITY))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise InvalidRecord(f"priority {array[row]} in row {row}: must be finite, >= 0 and <= {MAX_PRIORITY:g}")
    return array


def whole_batch_size(batch_size: int) -> int:
    """A batch size as an int; raises InvalidRecord for what is no whole number."""
    try:
        return operator.index(batch_size)
    except TypeError:
        raise InvalidRecord(f"batch size is {batch_size!r}, must be a whole number") from None
