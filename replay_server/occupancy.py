"""Which segment of the journal holds each slot's record, to know which segments nobody needs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_NONE = 0
_SNAPSHOT = 2**32 - 1
_PENDING = 2**32 - 2


class Occupancy:
    """Over the slots of a table; segments are numbered from 1.

    Attributes:
        size: slots that hold a record.
        pending: slots whose removal is not on disk yet; they hold none.
    """

    def __init__(self, capacity: int) -> None:
        self._segment_of = np.zeros(capacity, np.uint32)
        self._live: dict[int, int] = {}
        self.size = 0
        self.pending = 0

    @property
    def nbytes(self) -> int:
        return self._segment_of.nbytes

    def live_in(self, segment: int) -> int:
        return self._live.get(segment, 0)

    def size_with(self, slots: NDArray[np.int64]) -> int:
        """The size once these slots hold records."""
        return self.size + int(np.count_nonzero(self._segment_of[slots] == _NONE))

    def from_snapshot(self, slots: NDArray[np.integer]) -> None:
        """These slots of an empty table hold records of a snapshot."""
        self._segment_of[slots] = _SNAPSHOT
        self.size = len(slots)

    def store(self, slots: NDArray[np.int64], segment: int) -> None:
        """Distinct slots, none of them pending, got records that lie in `segment`."""
        self._vacate(slots)
        self._segment_of[slots] = segment
        self._live[segment] = self._live.get(segment, 0) + len(slots)
        self.size += len(slots)

    def holding(self, slots: NDArray[np.int64]) -> NDArray[np.int64]:
        """Those of the slots that hold a record."""
        held: NDArray[np.int64] = slots[self._segment_of[slots] != _NONE]
        return held

    def remove(self, slots: NDArray[np.int64]) -> None:
        """Slots lost their records."""
        self._vacate(slots)
        self._segment_of[slots] = _NONE

    def hold_back(self, slots: NDArray[np.int64]) -> None:
        """Slots lost their records, and that is still to be written."""
        self._vacate(slots)
        self._segment_of[slots] = _PENDING
        self.pending += len(slots)

    def held_back(self) -> NDArray[np.int64]:
        """The pending slots."""
        return np.flatnonzero(self._segment_of == _PENDING)

    def written(self, slots: NDArray[np.int64]) -> None:
        """Slots held back are no longer so."""
        self._segment_of[slots] = _NONE
        self.pending -= len(slots)

    def clear(self) -> None:
        self._segment_of[:] = _NONE
        self._live.clear()
        self.size = self.pending = 0

    def forget(self, segment: int) -> None:
        """The segment is gone; records that lay in it and are still live lie in a snapshot."""
        if self._live.pop(segment, 0):
            self._segment_of[self._segment_of == segment] = _SNAPSHOT

    def _vacate(self, slots: NDArray[np.int64]) -> None:
        if len(slots) == 0:
            return
        before = self._segment_of[slots]
        if (before == before[0]).all():  # of a ring that is overwritten in order nearly always
            counts = {int(before[0]): len(before)}
        else:
            numbers, found = np.unique(before, return_counts=True)
            counts = dict(zip(numbers.tolist(), found.tolist(), strict=True))
        self.size -= len(slots) - counts.pop(_NONE, 0)
        for number, count in counts.items():
            if number != _SNAPSHOT:
                self._live[number] -= count

    def check_valid(self) -> None:
        """Check every invariant; raises AssertionError naming the first that is broken."""
        held = self._segment_of
        if self.size != np.count_nonzero((held != _NONE) & (held != _PENDING)):
            raise AssertionError(f"{self.size} slots are said to hold records")
        if self.pending != np.count_nonzero(held == _PENDING):
            raise AssertionError(f"{self.pending} slots are said to be pending")
        for number, count in self._live.items():
            if count != np.count_nonzero(held == number):
                raise AssertionError(f"segment {number} is said to hold {count} live records")
