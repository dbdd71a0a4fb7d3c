"""All that a table is beside its settings and its records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from replay_server.batches import checked_priorities
from replay_server.errors import InvalidRecord


@dataclass(frozen=True)
class TableState:
    """All of a table that is neither configuration nor a record; what is "by slot" covers all up to the last ever used.

    Attributes:
        order: uint32[size], slots that hold a record, the oldest first.
        free: uint32[used - size], the free ones among the slots ever used, in the order of their next use.
        priorities: float64[used], raw, by slot; 0 for free ones.
        times_sampled: uint32[used], by slot, anything for free ones; None unless records are removed by being sampled.
        generations: uint32[used], by slot.
        incarnation: the life of the table its keys belong to.
        rng: state of the bit generator.
    """

    order: NDArray[np.uint32]
    free: NDArray[np.uint32]
    priorities: NDArray[np.float64]
    times_sampled: NDArray[np.uint32] | None
    generations: NDArray[np.uint32]
    incarnation: int
    rng: Mapping[str, Any]

    def check(self, capacity: int, max_times_sampled: int | None) -> None:
        """Raises InvalidRecord if the state contradicts itself or the settings of a table."""
        used, live = len(self.generations), np.flatnonzero(self.generations & np.uint32(1))
        fits = (
            used <= capacity
            and len(self.priorities) == used
            and np.array_equal(np.sort(self.order), live)
            and np.array_equal(np.sort(np.concatenate([self.order, self.free])), np.arange(used))
        )
        if not fits:
            raise InvalidRecord("the state of a table contradicts itself or this table's capacity")
        checked_priorities(self.priorities, used)
        times = self.times_sampled
        if (times is None) != (max_times_sampled is None) or (
            times is not None and (len(times) != used or (times[live] >= np.uint32(max_times_sampled or 0)).any())
        ):
            raise InvalidRecord(f"the state of a table does not fit max_times_sampled {max_times_sampled}")
