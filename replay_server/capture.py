"""The state of a table at one moment, read out piece by piece while the table goes on.

At the cut only the small arrays are copied, 20 to 24 bytes a slot. The rows follow in blocks, oldest first: a ring
overwrites its oldest rows first, so a reader that starts there too stays ahead for as long as it is the faster one. A
row that is about to be overwritten before it was read is copied aside, into a buffer of fixed size; when that is full,
inserts have to wait until the reader has passed.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from replay_server.slots import order_of
from replay_server.table import Table
from replay_server.table_state import TableState

BLOCK_BYTES = 4 << 20
"""Rows copied in one go, under the lock of the shard: half a millisecond. Smaller blocks hold it for less long, but
each waits for the interpreter's lock several times, and in a busy server that costs more than the copy."""

_READING = 40
"""Bytes a slot of reading a snapshot: the state as it is in the file and in the table, and the sorts that check it."""

_SHARE = 8
_LEAST_BYTES = 16 << 20


class Block(NamedTuple):
    """Consecutive rows of a capture, oldest first: uint8[n, record_size] from row `first` on.

    The array is used again by the next block.
    """

    first: int
    records: NDArray[np.uint8]


def before_image_rows(capacity: int, record_size: int) -> int:
    """Rows to keep aside at most: an eighth of the table or 16 MiB, whichever is more, never more than there are."""
    return min(capacity, max(capacity // _SHARE, _LEAST_BYTES // record_size, 1))


def working_bytes(capacity: int, record_size: int) -> int:
    """Bytes that taking a snapshot, or reading one, holds at most, for the memory budget."""
    per_slot = 8 + 4 + 4 + 4 + 4 + 4 + 1  # priorities, generations, links, times sampled, order, images, pending
    blocks = 3 * max(BLOCK_BYTES, record_size)  # one read, one on its way into the file as columns
    taking = capacity * per_slot + before_image_rows(capacity, record_size) * (record_size + 4)
    return max(taking, capacity * _READING) + blocks


class Capture:
    """One consistent cut of a table. Not thread-safe: the caller holds the lock of whoever owns the table.

    Made at leisure, so that its memory is there when it counts; `begin` makes the cut and `end` lets the table go.

    Args:
        table: to be captured.
        before_image_rows: rows kept aside at most; 0 makes inserts wait for every row not yet read.
    """

    def __init__(self, table: Table, before_image_rows: int) -> None:
        capacity, size = table.capacity, table.spec.record_size
        self.table = table
        self._before_image_rows = before_image_rows
        self._links = np.full(capacity + 2, 0, np.uint32)  # written to, so that no page is missing at the cut
        self._generations = np.full(capacity, 0, np.uint32)
        self._priorities = np.full(capacity, 0.0)
        self._times = np.full(capacity if table.consuming else 0, 0, np.uint32)
        self._pending = np.full(capacity, False)  # live at the cut and neither read nor kept aside
        self._image_of = np.full(capacity, 0, np.uint32)  # of a slot kept aside, its row in `_images`
        self._images = np.empty((before_image_rows, size), np.uint8)
        self._spare = np.arange(before_image_rows, dtype=np.uint32)  # a stack, `_spare_count` high
        self._spare_count = before_image_rows
        self._block = np.empty((max(min(BLOCK_BYTES // size, capacity), 1), size), np.uint8)
        self._read = 0
        self._size = 0
        self._used = 0
        self._incarnation = 0
        self._rng: Mapping[str, Any] = {}
        self.awaited = False

    def begin(self) -> None:
        """The cut: from here on the table tells this capture which rows it is about to overwrite."""
        table, slots = self.table, self.table.slots
        used = self._used = slots.used
        self._size = slots.size
        self._links[:] = slots.next
        self._generations[:used] = slots.generations[:used]
        self._priorities[:used] = table.priorities[:used]
        if table.times_sampled is not None:
            self._times[:used] = table.times_sampled[:used]
        np.bitwise_and(self._generations[:used], 1, out=self._pending[:used], casting="unsafe")
        self._incarnation = table.incarnation
        self._rng = table.rng_state
        table.capture = self

    def end(self) -> None:
        """The table goes on alone; for `finally`, also without a `begin`."""
        self.table.capture = None

    @cached_property
    def state(self) -> TableState:
        """The table at the cut. It walks the lists, so the first look needs no lock and should be taken without."""
        capacity, used = self.table.capacity, self._used
        return TableState(
            order=order_of(self._links, capacity, self._size),
            free=order_of(self._links, capacity + 1, used - self._size),
            priorities=self._priorities[:used],
            times_sampled=self._times[:used] if self.table.consuming else None,
            generations=self._generations[:used],
            incarnation=self._incarnation,
            rng=self._rng,
        )

    @property
    def finished(self) -> bool:
        """Every row has been read."""
        return self._read == self._size

    def room_for(self, slots: NDArray[np.int64]) -> bool:
        """Whether the rows in `slots` may be overwritten now; when not, `awaited` says so until the next block."""
        fits = int(np.count_nonzero(self._pending[slots])) <= self._spare_count
        self.awaited |= not fits
        return fits

    def keep(self, slots: NDArray[np.int64]) -> None:
        """Copy aside what is still to be read of these slots, which are about to be overwritten; needs `room_for`."""
        pending = np.unique(slots[self._pending[slots]])
        if len(pending) == 0:
            return
        assert len(pending) <= self._spare_count, "a row was overwritten before it was read"
        self._spare_count -= len(pending)
        images = self._spare[self._spare_count : self._spare_count + len(pending)]
        self._images[images] = self.table.records[pending]
        self._image_of[pending] = images
        self._pending[pending] = False

    def next_block(self) -> Block | None:
        """The next rows, at most BLOCK_BYTES or one; None when all have been read."""
        if self.finished:
            return None
        first = self._read
        slots = self.state.order[first : first + len(self._block)]
        records = self._block[: len(slots)]
        np.take(self.table.records, slots, axis=0, out=records, mode="clip")
        kept = np.flatnonzero(~self._pending[slots])
        if len(kept):
            images = self._image_of[slots[kept]]
            records[kept] = self._images[images]
            self._spare[self._spare_count : self._spare_count + len(kept)] = images
            self._spare_count += len(kept)
        self._pending[slots] = False
        self._read = first + len(slots)
        self.awaited = False
        return Block(first, records)
