"""The table: packed records in a ring, drawn by priority. No I/O, no thread, no clock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from replay_server.batches import KEY_DTYPE, checked_priorities
from replay_server.errors import ConfigError, InvalidRecord
from replay_server.specs import RecordSpec
from replay_server.sum_tree import SumTree

_MAX_CAPACITY = 2**32 - 1


class Checked(NamedTuple):
    """Records uint8[B, record_size] and priorities float64[B] | None that passed every check of a table."""

    records: NDArray[np.uint8]
    priorities: NDArray[np.float64] | None


class Drawn(NamedTuple):
    """Sampled rows: records uint8[B, record_size], keys KEY_DTYPE[B], float64[B] probabilities within the table."""

    records: NDArray[np.uint8]
    keys: NDArray[Any]
    probabilities: NDArray[np.float64]


@dataclass(frozen=True)
class TableState:
    """All of a table that is not configuration; rows run over slots from 0.

    Attributes:
        records: uint8[size, record_size].
        priorities: float64[size], raw.
        generations: uint32[slots ever used].
        cursor: the slot the next record goes to.
        incarnation: the life of the table its keys belong to.
        rng: state of the bit generator.
    """

    records: NDArray[np.uint8]
    priorities: NDArray[np.float64]
    generations: NDArray[np.uint32]
    cursor: int
    incarnation: int
    rng: Mapping[str, Any]


class Table:
    """A ring of `capacity` packed records; the oldest is overwritten first.

    Records are drawn in proportion to p^priority_exponent; a record of priority zero is never drawn. A new record
    without a priority gets the largest one now in the table, 1 if there is none above zero.

    Args:
        spec: layout of the records.
        capacity: records held at most.
        priority_exponent: alpha in [0, 1]; applied in the sum tree and nowhere else. 0 draws uniformly.
        seed: of the table's own generator.
        shard: index of the shard this table is.
        incarnation: the life of this table; keys of another one are stale.
    """

    def __init__(
        self,
        spec: RecordSpec,
        capacity: int,
        *,
        priority_exponent: float = 0.6,
        seed: int | np.random.SeedSequence = 0,
        shard: int = 0,
        incarnation: int = 0,
    ) -> None:
        if not 1 <= capacity <= _MAX_CAPACITY:
            raise ConfigError(f"capacity is {capacity}, must lie in [1, {_MAX_CAPACITY}]")
        if not 0.0 <= priority_exponent <= 1.0:
            raise ConfigError(f"priority_exponent is {priority_exponent}, must lie in [0, 1]")
        self.spec = spec
        self.capacity = capacity
        self.priority_exponent = priority_exponent
        self.shard = shard
        self.incarnation = incarnation
        self._floats = [f.name for f in spec.fields if f.numpy_dtype.kind == "f"]
        self._bools = [f.name for f in spec.fields if f.numpy_dtype.kind == "b"]
        self._records = np.zeros((capacity, spec.record_size), np.uint8)
        self._generations = np.zeros(capacity, np.uint32)
        self._tree = SumTree(capacity, priority_exponent)
        self._rng = np.random.Generator(np.random.PCG64(seed))
        self._cursor = 0
        self._size = 0
        self._used = 0  # slots ever written: their generations say which keys are stale, also after a clear

    @property
    def size(self) -> int:
        """Records held now."""
        return self._size

    @property
    def mass(self) -> float:
        """The sum of p^alpha."""
        return self._tree.total

    @property
    def overhead_bytes(self) -> int:
        """Bytes beyond the records themselves, at any fill."""
        return self._tree.nbytes + self._generations.nbytes

    def check(self, records: NDArray[np.uint8], priorities: NDArray[np.float64] | None) -> Checked:
        """Check rows for `store`; changes nothing and reads nothing that changes.

        Raises:
            InvalidRecord: wrong shape or dtype, a float that is not finite, a bool byte other than 0 and 1, a
                priority that is not finite or below zero, more rows than the table holds.
        """
        if len(records) > self.capacity:
            raise InvalidRecord(f"{len(records)} records in one insert, the table holds {self.capacity}: send fewer")
        columns = self.spec.columns(records)
        for name in self._floats:
            if not np.isfinite(columns[name]).all():
                raise InvalidRecord(f"column {name!r} holds a value that is not finite")
        for name in self._bools:
            if (columns[name].view(np.uint8) > 1).any():
                raise InvalidRecord(f"column {name!r} holds a byte that is neither 0 nor 1")
        if priorities is not None:
            priorities = checked_priorities(priorities, len(records))
        return Checked(records, priorities)

    def store(self, rows: Checked) -> None:
        """Write checked rows over the oldest ones."""
        count = len(rows.records)
        priorities = rows.priorities
        if priorities is None:
            priorities = np.full(count, self._tree.largest or 1.0)
        first = min(count, self.capacity - self._cursor)
        for start, stop, slot in ((0, first, self._cursor), (first, count, 0)):
            self._records[slot : slot + stop - start] = rows.records[start:stop]
            self._generations[slot : slot + stop - start] += np.uint32(1)
        self._tree.assign((self._cursor + np.arange(count)) % self.capacity, priorities)
        self._cursor = (self._cursor + count) % self.capacity
        self._size = min(self._size + count, self.capacity)
        self._used = max(self._used, self._size)

    def insert(self, records: NDArray[np.uint8], priorities: NDArray[np.float64] | None = None) -> None:
        """Check uint8[B, record_size] rows with float64[B] priorities, then store them: all or nothing."""
        self.store(self.check(records, priorities))

    def sample(self, counts: Sequence[int] | NDArray[np.int64], *, method: str = "stratified") -> Drawn:
        """Draw with replacement.

        Args:
            counts: rows of each group; groups follow one another in the result. Strata span one group.
            method: `stratified` or `multinomial` (independent draws).

        Raises:
            InvalidRecord: nothing can be drawn, an unknown method or a negative count.
        """
        groups = np.asarray(counts, np.int64)
        if method not in ("stratified", "multinomial"):
            raise InvalidRecord(f"sampling method {method!r} is unknown: use stratified or multinomial")
        if (groups < 0).any():
            raise InvalidRecord("a group of a sample has a negative count")
        rows = int(groups.sum())
        if rows and self.mass <= 0.0:
            raise InvalidRecord("nothing to sample: the table holds no record of priority above zero")
        uniforms = self._rng.random(rows)
        slots = self._tree.draw(uniforms, groups, method == "stratified") if rows else np.zeros(0, np.int64)
        keys = np.empty(rows, KEY_DTYPE)
        keys["slot"] = slots
        keys["shard"] = self.shard
        keys["incarnation"] = self.incarnation
        keys["generation"] = self._generations[slots]
        probabilities = self._tree.masses(slots) / self.mass if rows else np.zeros(0)
        return Drawn(self._records.take(slots, axis=0), keys, probabilities)

    def update_priorities(self, keys: NDArray[Any], priorities: NDArray[np.float64]) -> tuple[int, int]:
        """Set priorities of the records `keys` name; of equal keys the last wins.

        A key is stale when its record is gone (overwritten, cleared) or belongs to another shard or another life of
        this one; it changes nothing.

        Returns:
            How many keys were applied and how many were stale.

        Raises:
            InvalidRecord: wrong dtype, shape or value; nothing was changed.
        """
        if keys.dtype != KEY_DTYPE or keys.ndim != 1:
            raise InvalidRecord("keys are not a one-dimensional array of the keys a sample returned")
        priorities = checked_priorities(priorities, len(keys))
        slots = keys["slot"].astype(np.int64)
        known = (keys["shard"] == self.shard) & (keys["incarnation"] == self.incarnation) & (slots < self._size)
        slots[~known] = 0
        known &= self._generations[slots] == keys["generation"]
        applied = int(np.count_nonzero(known))
        if applied == len(keys):
            self._tree.assign(slots, priorities)
        elif applied:
            self._tree.assign(slots[known], priorities[known])
        return applied, len(keys) - applied

    def clear(self) -> None:
        """Remove every record; every key handed out before is stale from now on."""
        self._generations[: self._used] += np.uint32(1)
        self._tree.clear()
        self._cursor = 0
        self._size = 0

    def check_valid(self) -> None:
        """Check every invariant, exactly; raises AssertionError naming the first that is broken."""
        self._tree.check_valid()
        if self._size < self.capacity and self._cursor != self._size:
            raise AssertionError(f"cursor at {self._cursor} with {self._size} records in a ring not yet full")
        if (self._tree.priorities[self._size :] != 0.0).any():
            raise AssertionError("an empty slot has a priority")
        if (self._generations[: self._size] == 0).any():
            raise AssertionError("a stored record has generation 0")
        if self._generations[self._used :].any() or self._size > self._used:
            raise AssertionError("a slot never used has a generation")

    def export_state(self) -> TableState:
        """The table as it is; the arrays are views, valid until the next change."""
        return TableState(
            records=self._records[: self._size],
            priorities=self._tree.priorities[: self._size],
            generations=self._generations[: self._used],
            cursor=self._cursor,
            incarnation=self.incarnation,
            rng=self._rng.bit_generator.state,
        )

    def import_state(self, state: TableState) -> None:
        """Become the table that was exported, except for the incarnation; needs the same spec and capacity."""
        size, used = len(state.records), len(state.generations)
        if not (size <= used <= self.capacity and 0 <= state.cursor < self.capacity and len(state.priorities) == size):
            raise InvalidRecord("the state of a table does not fit itself or this table's capacity")
        rows = self.check(state.records, state.priorities)
        self.clear()
        self._records[:size] = rows.records
        self._generations[:] = 0
        self._generations[:used] = state.generations
        self._tree.assign(np.arange(size), state.priorities)
        self._cursor, self._size, self._used = state.cursor, size, used
        self._rng.bit_generator.state = dict(state.rng)
