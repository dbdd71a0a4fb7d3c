"""The table: packed records, drawn by a sampler and thrown out by a remover. No I/O, no thread, no clock."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import inf
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from replay_server.batches import KEY_DTYPE, checked_priorities
from replay_server.errors import ConfigError, InvalidRecord
from replay_server.removers import make_remover
from replay_server.samplers import Choice, make_sampler, mass_exponent
from replay_server.slots import Slots, starts_of_runs
from replay_server.specs import Field, RecordSpec
from replay_server.sum_tree import SumTree
from replay_server.table_state import TableState

_MAX_CAPACITY = 2**32 - 3  # slots and the two ends of lists have uint32 numbers
_NONE: NDArray[np.uint32] = np.zeros(0, np.uint32)
_NONE.flags.writeable = False
_WORTH_A_SLICE = 2048
"""Bytes of a run of neighbouring slots from which on one slice copy a run beats one gather of all rows."""


class Checked(NamedTuple):
    """Records uint8[B, record_size] and priorities float64[B] | None that passed every check of a table."""

    records: NDArray[np.uint8]
    priorities: NDArray[np.float64] | None


class Drawn(NamedTuple):
    """Sampled rows.

    Attributes:
        records: uint8[B, record_size].
        keys: KEY_DTYPE[B].
        probabilities: float64[B], of each draw within the table.
        removed: uint32[R], slots that are free now because these were their records' last draws.
    """

    records: NDArray[np.uint8]
    keys: NDArray[Any]
    probabilities: NDArray[np.float64]
    removed: NDArray[np.uint32] = _NONE


class RowKeeper(Protocol):
    """A snapshot under way."""

    def room_for(self, slots: NDArray[np.int64]) -> bool:
        """Whether the rows of these slots may be overwritten now."""

    def keep(self, slots: NDArray[np.int64]) -> None:
        """Rows of these slots are about to be overwritten, and may be."""


class Table:
    """`capacity` packed records; the remover makes room when it is full.

    A record of priority zero is never drawn. A new record without a priority gets the largest one now in the table, 1
    if there is none above zero.

    Args:
        spec: layout of the records.
        capacity: records held at most.
        priority_exponent: alpha in [0, 1], of the prioritized samplers; applied in the sum tree and nowhere else.
        sampler: `stratified` or `multinomial` draw in proportion to p^alpha, with one draw from each of a group's
            equal strata or independently; `uniform` draws all alike; `fifo` draws the oldest, `lifo` the newest.
        remover: `fifo` overwrites the oldest record, `lowest_priority` that of lowest priority, of equals the oldest.
        max_times_sampled: a record is removed by its draw of this number; None never. Draws are then made one after
            the other, independently.
        seed: of the table's own generator.
        shard: index of the shard this table is.
        incarnation: the life of this table; keys of another one are stale.

    Attributes:
        records: uint8[capacity, record_size], row i is slot i.
        slots: which of them hold a record, in which order, and their generations.
        times_sampled: uint32[capacity], None without `max_times_sampled`.
        capture: told which rows are about to be overwritten, while it is set.
    """

    def __init__(  # noqa: PLR0913  a table's settings are its own; nothing else passes them on as one
        self,
        spec: RecordSpec,
        capacity: int,
        *,
        priority_exponent: float = 0.6,
        sampler: str = "stratified",
        remover: str = "fifo",
        max_times_sampled: int | None = None,
        seed: int | np.random.SeedSequence = 0,
        shard: int = 0,
        incarnation: int = 0,
    ) -> None:
        if not 1 <= capacity <= _MAX_CAPACITY:
            raise ConfigError(f"capacity is {capacity}, must lie in [1, {_MAX_CAPACITY}]")
        if not 0.0 <= priority_exponent <= 1.0:
            raise ConfigError(f"priority_exponent is {priority_exponent}, must lie in [0, 1]")
        if max_times_sampled is not None and not 1 <= max_times_sampled < 2**32:
            raise ConfigError(f"max_times_sampled is {max_times_sampled}, must be at least 1, or null for no limit")
        self.spec = spec
        self.capacity = capacity
        self.priority_exponent = priority_exponent
        self.sampler = sampler
        self.remover = remover
        self.max_times_sampled = max_times_sampled
        self.shard = shard
        self.incarnation = incarnation
        self.capture: RowKeeper | None = None
        self._floats = [f.name for f in spec.fields if f.numpy_dtype.kind == "f"]
        self._bools = [f.name for f in spec.fields if f.numpy_dtype.kind == "b"]
        self._tree = SumTree(capacity, mass_exponent(sampler, priority_exponent))
        self.slots = Slots(capacity)
        self._sampler = make_sampler(sampler, self._tree, self.slots)
        self._remover = make_remover(remover, self._tree, self.slots)
        self._rng = np.random.Generator(np.random.PCG64(seed))
        self.records: NDArray[np.uint8] = np.zeros((capacity, spec.record_size), np.uint8)
        self.times_sampled: NDArray[np.uint32] | None = None
        if max_times_sampled is not None:
            self.times_sampled = np.zeros(capacity, np.uint32)
        self._draws_left = 0

    @property
    def size(self) -> int:
        """Records held now."""
        return self.slots.size

    @property
    def mass(self) -> float:
        """What the table weighs in a draw over shards: the sum of p^alpha for the prioritized samplers, the number of
        records of priority above zero for the others."""
        return self._tree.total

    @property
    def priorities(self) -> NDArray[np.float64]:
        """float64[capacity], raw, 0 for free slots; a view, not to be written to."""
        return self._tree.priorities

    @property
    def rng_state(self) -> Mapping[str, Any]:
        """State of the bit generator."""
        return self._rng.bit_generator.state

    @property
    def default_priority(self) -> float:
        """Of a new record that comes without one."""
        return self._tree.largest or 1.0

    @property
    def consuming(self) -> bool:
        """Records are removed by being sampled."""
        return self.max_times_sampled is not None

    @property
    def draws_left(self) -> float:
        """Rows that `max_times_sampled` still allows the records of priority above zero; inf without it."""
        return self._draws_left if self.consuming else inf

    @property
    def overhead_bytes(self) -> int:
        """Bytes beyond the records themselves, at any fill."""
        times = 0 if self.times_sampled is None else self.times_sampled.nbytes
        return self._tree.nbytes + self.slots.nbytes + self._remover.nbytes + times

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
            priorities = _own(checked_priorities(priorities, len(records)), np.float64)
        return Checked(records, priorities)

    def room_for(self, count: int) -> NDArray[np.int64]:
        """int64[count], the slots the next `count` <= capacity rows belong in: free ones, then the remover's choice.

        Changes nothing.
        """
        free = self.slots.next_free(count)
        if len(free) == count:
            return free
        chosen = self._remover.choose(count - len(free))
        return np.concatenate([free, chosen]) if len(free) else chosen

    def store(self, rows: Checked, slots: NDArray[np.int64]) -> None:
        """Write checked rows into any slots; what these held is gone, and of equal slots the last row wins.

        Raises:
            InvalidRecord: not one slot of this table a row; nothing was changed.
        """
        count = len(rows.records)
        slots = _own(slots, np.int64)
        if slots.shape != (count,) or (count and not 0 <= slots.min() <= slots.max() < self.capacity):
            raise InvalidRecord(f"{len(slots)} slots for {count} records, or a slot beyond capacity {self.capacity}")
        if count == 0:
            return
        if self.capture is not None:
            self.capture.keep(slots)
        priorities = rows.priorities
        if priorities is None:
            priorities = np.full(count, self.default_priority)
        self._draws_left -= self._draws_of(slots)
        self._write(rows.records, slots)
        if self.times_sampled is not None:
            self.times_sampled[slots] = 0
        self._tree.assign(slots, priorities)
        self.slots.store(slots)
        self._remover.stored(slots)
        self._draws_left += self._draws_of(slots)

    def insert(self, records: NDArray[np.uint8], priorities: NDArray[np.float64] | None = None) -> None:
        """Check uint8[B, record_size] rows with float64[B] priorities, then store them: all or nothing."""
        rows = self.check(records, priorities)
        self.store(rows, self.room_for(len(rows.records)))

    def sample(self, counts: Sequence[int] | NDArray[np.int64], out: Drawn | None = None) -> Drawn:
        """Draw with replacement.

        Args:
            counts: rows of each group; groups follow one another in the result. Strata span one group.
            out: C-contiguous arrays to fill; what is returned holds them.

        Raises:
            InvalidRecord: nothing can be drawn, fewer draws are left than asked for, or a negative count.
        """
        groups = _own(counts, np.int64)
        sizes = groups.tolist()  # a few numbers: Python adds them up before NumPy has begun
        if min(sizes, default=0) < 0:
            raise InvalidRecord("a group of a sample has a negative count")
        rows = sum(sizes)
        if rows and self.mass <= 0.0:
            raise InvalidRecord("nothing to sample: the table holds no record of priority above zero")
        if rows > self.draws_left:
            raise InvalidRecord(f"{rows} rows to sample, the table's records allow {self.draws_left} more draws")
        if out is None:
            records = np.empty((rows, self.spec.record_size), np.uint8)
            out = Drawn(records, np.empty(rows, KEY_DTYPE), np.empty(rows))
        if rows == 0:
            return out._replace(removed=_NONE)
        choice = self._choose(rows, groups)
        # "clip" because take copies through a buffer of its own to be able to raise; every slot is good
        self.records.take(choice.slots, axis=0, out=out.records, mode="clip")
        self.slots.write_keys(out.keys, choice.slots, self.shard, self.incarnation)
        out.probabilities[:] = choice.probabilities
        return out._replace(removed=self._remove_drawn(choice.slots))

    def update_priorities(self, keys: NDArray[Any], priorities: NDArray[np.float64]) -> tuple[int, int]:
        """Set priorities of the records `keys` name; of equal keys the last wins.

        A key is stale when its record is gone (overwritten, removed, cleared) or belongs to another shard or another
        life of this one; it changes nothing.

        Returns:
            How many keys were applied and how many were stale.

        Raises:
            InvalidRecord: wrong dtype, shape or value; nothing was changed.
        """
        if keys.dtype != KEY_DTYPE or keys.ndim != 1:
            raise InvalidRecord("keys are not a one-dimensional array of the keys a sample returned")
        priorities = checked_priorities(priorities, len(keys))
        slots, rows = self.slots.fresh(keys, self.shard, self.incarnation)
        if len(slots):
            self._draws_left -= self._draws_of(slots)
            self._tree.assign(slots, priorities[rows])
            self._remover.changed(slots)
            self._draws_left += self._draws_of(slots)
        return len(slots), len(keys) - len(slots)

    def remove(self, slots: NDArray[Any]) -> None:
        """Free slots in [0, capacity); keys of their records are stale. Those that are free already stay so."""
        distinct = np.unique(slots).astype(np.int64)
        distinct = distinct[self.slots.generations[distinct] & np.uint32(1) == 1]
        if len(distinct):
            self._draws_left -= self._draws_of(distinct)
            self._tree.assign(distinct, np.zeros(len(distinct)))
            self.slots.remove(distinct)
            self._remover.changed(distinct)

    def clear(self) -> None:
        """Remove every record; every key handed out before is stale from now on."""
        self._tree.clear()
        self.slots.clear()
        self._remover.reset()
        self._draws_left = 0

    def check_valid(self) -> None:
        """Check every invariant, exactly; raises AssertionError naming the first that is broken."""
        self._tree.check_valid()
        self.slots.check_valid()
        self._remover.check_valid()
        live = self.slots.holding()
        free = np.ones(self.capacity, np.bool_)
        free[live] = False
        if self.priorities[free].any():
            raise AssertionError("an empty slot has a priority")
        if (
            self.times_sampled is not None
            and (self.times_sampled[live] >= np.uint32(self.max_times_sampled or 0)).any()
        ):
            raise AssertionError("a record is still there after its last draw")
        if self._draws_left != self._draws_of(live):
            raise AssertionError(f"{self._draws_left} draws left, the records allow {self._draws_of(live)}")

    def export_state(self) -> TableState:
        """The table as it is, without its records; some arrays are views, valid until the next change."""
        used = self.slots.used
        return TableState(
            order=self.slots.order(),
            free=self.slots.free_order(),
            priorities=self.priorities[:used],
            times_sampled=None if self.times_sampled is None else self.times_sampled[:used],
            generations=self.slots.generations[:used],
            incarnation=self.incarnation,
            rng=self.rng_state,
        )

    def import_state(
        self, state: TableState, records: Iterable[NDArray[np.uint8]], places: NDArray[np.int64] | None = None
    ) -> None:
        """Become the table that was exported, except for the incarnation; needs the same settings.

        Args:
            state: of the table.
            records: its records, the oldest first, in blocks uint8[n > 0, record_size]; checked when inserted.
            places: int64[size], the slots of the records as they come, where that is not the oldest first.

        Raises:
            InvalidRecord: the state contradicts itself or this table's settings; nothing was changed.
        """
        state.check(self.capacity, self.max_times_sampled)
        slots, written = state.order.astype(np.int64) if places is None else places, 0
        for block in records:
            self._write(block, slots[written : written + len(block)])
            written += len(block)
        assert written == len(slots), f"{written} records for {len(slots)} slots"
        self._tree.clear()
        self._tree.assign(slots, state.priorities[slots])
        if self.times_sampled is not None and state.times_sampled is not None:
            self.times_sampled[slots] = state.times_sampled[slots]
        self.slots.restore(state.order, state.free, state.generations)
        self._remover.reset()
        self._draws_left = self._draws_of(slots)
        self._rng.bit_generator.state = dict(state.rng)

    def _choose(self, rows: int, groups: NDArray[np.int64]) -> Choice:
        if self.times_sampled is None or self.max_times_sampled is None:
            return self._sampler.draw(rows, groups, self._rng)
        return self._sampler.take(rows, self._rng, self.times_sampled, self.max_times_sampled)

    def _remove_drawn(self, slots: NDArray[np.int64]) -> NDArray[np.uint32]:
        """Free the slots whose last draw this was."""
        if self.times_sampled is None:
            return _NONE
        self._draws_left -= len(slots)
        removed = np.unique(slots[self.times_sampled[slots] >= np.uint32(self.max_times_sampled or 0)])
        self._tree.assign(removed, np.zeros(len(removed)))
        self.slots.remove(removed)
        self._remover.changed(removed)
        return removed.astype(np.uint32)

    def _draws_of(self, slots: NDArray[np.int64]) -> int:
        """Draws that the records in these slots, each counted once, still allow; 0 where they are not counted."""
        if self.times_sampled is None or self.max_times_sampled is None:
            return 0
        distinct = np.unique(slots)
        drawable = distinct[self.priorities[distinct] > 0.0]
        return self.max_times_sampled * len(drawable) - int(self.times_sampled[drawable].sum(dtype=np.int64))

    def _write(self, records: NDArray[np.uint8], slots: NDArray[np.int64]) -> None:
        """Copy rows, run by run where neighbours are many or rows are long."""
        starts = starts_of_runs(slots)
        if len(starts) > 1 and len(starts) * _WORTH_A_SLICE > records.nbytes:
            self.records[slots] = records
            return
        for start, stop in zip(starts, [*starts[1:], len(slots)], strict=True):
            self.records[slots[start] : slots[start] + stop - start] = records[start:stop]


def _own(values: Any, dtype: Any) -> NDArray[Any]:
    """The array as compiled kernels know it: contiguous, aligned and writable; a copy if it is not, as off the wire."""
    return np.require(values, dtype, ["C", "A", "W"])


def warm_up() -> None:
    """Compile (or load from the cache) every kernel, so that no timed path ever does."""
    spec = RecordSpec((Field("number", "int64"),))
    rows = np.zeros((4, spec.record_size), np.uint8)
    for sampler, limit in (("stratified", None), ("multinomial", 3), ("fifo", None), ("lifo", 3)):
        table = Table(spec, 9, sampler=sampler, remover="lowest_priority", max_times_sampled=limit)
        for _ in range(3):
            table.insert(rows)
        drawn = table.sample([2, 2])
        table.update_priorities(drawn.keys, np.ones(4))
        table.import_state(table.export_state(), [table.records[table.slots.order()]])
