"""Which slots of a table hold a record, how old it is, and which keys are still good.

Every slot is in one of two circular doubly linked lists over the same two arrays: `live`, the oldest record first, or
`free`, the slot to use next first. Their ends are two sentinels behind the last slot, so a slot is taken, freed or
moved in O(1) wherever it is. A stretch of neighbours in a list moves as one splice, and slots that went out in order
come back in order: a plain ring of overwrites is contiguous memory without a second scheme for it.

Freed slots are used first, so that memory never touched stays so as long as it can: the slots that have never held a
record are the end of the free list, in ascending order.

A slot's generation is odd while it holds a record and even while it is free: it grows by one when a record is stored in
a free slot or removed, by two when one is overwritten. So no two records of a slot share a generation, and a key, which
carries its record's, is known to be stale by comparing one number.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

Links = NDArray[np.uint32]
Ints = NDArray[np.int64]


@njit(cache=True, nogil=True)
def _walk(links: Links, sentinel: int, out: NDArray[Any]) -> int:
    """Fill `out` from the list's head on; how many there were, at most its length."""
    at, found = links[sentinel], 0
    while found < out.shape[0] and at != sentinel:
        out[found] = at
        found += 1
        at = links[at]
    return found


@njit(cache=True, nogil=True)
def _move(next: Links, prev: Links, slots: Ints, sentinel: int, at_end: bool) -> None:
    """Move slots, of whichever list, in order to the end or the beginning of the sentinel's; neighbours at a stroke."""
    start, count, behind = 0, slots.shape[0], sentinel
    while start < count:
        stop = start + 1
        while stop < count and next[slots[stop - 1]] == slots[stop]:
            stop += 1
        first, last = slots[start], slots[stop - 1]
        before, after = prev[first], next[last]
        next[before] = after
        prev[after] = before
        if at_end:
            behind = int(prev[sentinel])
        after = next[behind]
        next[behind] = first
        prev[first] = behind
        next[last] = after
        prev[after] = last
        start, behind = stop, last


@njit(cache=True, nogil=True)
def _mark_stored(generations: Links, slots: Ints) -> int:
    """Odd generations for all; how many of the slots were free."""
    was_free = 0
    for i in range(slots.shape[0]):
        if generations[slots[i]] & np.uint32(1):
            generations[slots[i]] += np.uint32(2)
        else:
            generations[slots[i]] += np.uint32(1)
            was_free += 1
    return was_free


@njit(cache=True, nogil=True)
def _fresh(keys: Links, shard: int, incarnation: int, generations: Links, slots: Ints, rows: Ints) -> int:
    """Slots and row numbers of the keys whose record is still there; how many there are."""
    found = 0
    for i in range(keys.shape[0]):
        slot, generation = np.int64(keys[i, 0]), keys[i, 3]
        if (
            keys[i, 1] == shard
            and keys[i, 2] == incarnation
            and slot < generations.shape[0]
            and generations[slot] == generation
            and generation & np.uint32(1)
        ):
            slots[found] = slot
            rows[found] = i
            found += 1
    return found


@njit(cache=True, nogil=True)
def _write_keys(keys: Links, slots: Ints, shard: int, incarnation: int, generations: Links) -> None:
    """The keys of the records in these slots now."""
    for i in range(slots.shape[0]):
        slot = np.uint64(slots[i])
        keys[i, 0] = slot
        keys[i, 1] = shard
        keys[i, 2] = incarnation
        keys[i, 3] = generations[slot]


@njit(cache=True, nogil=True)
def starts_of_runs(slots: Ints) -> Ints:
    """int64[R], where in `slots`, which are not empty, a run of neighbouring slots begins; the first is 0."""
    starts = np.zeros(slots.shape[0], np.int64)
    found = 1
    for i in range(1, slots.shape[0]):
        if slots[i] != slots[i - 1] + 1:
            starts[found] = i
            found += 1
    return starts[:found]


def order_of(links: Links, sentinel: int, count: int) -> NDArray[np.uint32]:
    """uint32[count], the first `count` slots of the list that starts at `sentinel`; `links` is a copy of `next`."""
    order = np.empty(count, np.uint32)
    found = _walk(links, sentinel, order)
    assert found == count, f"a list of {found} slots was to have {count}"
    return order


class Slots:
    """The slots of a table, all free at first, in ascending order.

    Attributes:
        next, prev: uint32[capacity + 2], the links of both lists.
        live, free: the sentinels' indices.
        generations: uint32[capacity].
        size: live slots.
        used: no slot from here on has ever held a record.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.live, self.free = capacity, capacity + 1
        self.next: Links = np.empty(capacity + 2, np.uint32)
        self.prev: Links = np.empty(capacity + 2, np.uint32)
        self.generations: NDArray[np.uint32] = np.zeros(capacity, np.uint32)
        self.size = 0
        self.used = 0
        self._link(self.live, np.zeros(0, np.uint32))
        self._link(self.free, np.arange(capacity, dtype=np.uint32))

    @property
    def nbytes(self) -> int:
        return self.next.nbytes + self.prev.nbytes + self.generations.nbytes

    def next_free(self, count: int) -> Ints:
        """int64[at most count], the free slots to use next."""
        return self._first(self.free, count, self.capacity - self.size)

    def oldest(self, count: int) -> Ints:
        """int64[at most count], the oldest live slots, oldest first."""
        return self._first(self.live, count, self.size)

    def order(self) -> NDArray[np.uint32]:
        """uint32[size], live slots, oldest first."""
        return order_of(self.next, self.live, self.size)

    def free_order(self) -> NDArray[np.uint32]:
        """uint32[used - size], free slots in the order of their use; those from `used` on follow, ascending."""
        return order_of(self.next, self.free, self.used - self.size)

    def holding(self) -> Ints:
        """int64[size], live slots ascending."""
        return np.flatnonzero(self.generations[: self.used] & np.uint32(1))

    def store(self, slots: Ints) -> None:
        """Make slots, live or free, the newest live ones, in order; keys of what they held are stale."""
        if len(slots):
            _move(self.next, self.prev, slots, self.live, True)
            self.size += _mark_stored(self.generations, slots)
            self.used = max(self.used, int(slots.max()) + 1)

    def remove(self, slots: Ints) -> None:
        """Free distinct live slots; they are used before all that are free now, in this order."""
        if len(slots):
            _move(self.next, self.prev, slots, self.free, False)
            self.generations[slots] += np.uint32(1)
            self.size -= len(slots)

    def clear(self) -> None:
        """Free every slot, in ascending order; every key is stale from now on."""
        self.generations[: self.used] += self.generations[: self.used] & np.uint32(1)
        self.size = 0
        self._link(self.live, np.zeros(0, np.uint32))
        self._link(self.free, np.arange(self.capacity, dtype=np.uint32))

    def write_keys(self, keys: NDArray[Any], slots: Ints, shard: int, incarnation: int) -> None:
        """Fill KEY_DTYPE[B], C-contiguous, with the keys of the records that are in int64[B] slots now."""
        _write_keys(keys.view(np.uint32).reshape(-1, 4), slots, shard, incarnation, self.generations)

    def fresh(self, keys: NDArray[Any], shard: int, incarnation: int) -> tuple[Ints, Ints]:
        """Slots and row numbers, int64[F] both, of the KEY_DTYPE[B] keys whose record is still there."""
        fields = np.require(keys, requirements=["C", "A", "W"]).view(np.uint32).reshape(-1, 4)
        slots, rows = np.empty(len(keys), np.int64), np.empty(len(keys), np.int64)
        found = _fresh(fields, shard, incarnation, self.generations, slots, rows)
        return slots[:found], rows[:found]

    def restore(self, order: NDArray[np.uint32], free: NDArray[np.uint32], generations: NDArray[np.uint32]) -> None:
        """Become the slots whose `order()`, `free_order()` and generations of used slots these were."""
        self.generations[: len(generations)] = generations
        self.generations[len(generations) :] = 0
        self.used = len(generations)
        self.size = len(order)
        self._link(self.live, order)
        self._link(self.free, np.concatenate([free, np.arange(self.used, self.capacity, dtype=np.uint32)]))

    def check_valid(self) -> None:
        """Check every invariant; raises AssertionError naming the first that is broken."""
        live = self.order()
        free = order_of(self.next, self.free, self.capacity - self.size)
        if self.next[self.prev[self.live]] != self.live or self.next[self.prev[self.free]] != self.free:
            raise AssertionError("a list does not end where it begins")
        if not np.array_equal(np.sort(np.concatenate([live, free])), np.arange(self.capacity)):
            raise AssertionError("a slot is in neither list or in both")
        if not (self.prev[self.next] == np.arange(self.capacity + 2)).all():
            raise AssertionError("a slot's successor does not lead back to it")
        if not (self.generations[live] & np.uint32(1)).all() or (self.generations[free] & np.uint32(1)).any():
            raise AssertionError("a generation is even for a live slot or odd for a free one")
        if self.generations[self.used :].any():
            raise AssertionError("a slot never used has a generation")
        if not np.array_equal(free[self.used - self.size :], np.arange(self.used, self.capacity)):
            raise AssertionError("slots never used are not the end of the free list")

    def _first(self, sentinel: int, count: int, there: int) -> Ints:
        out = np.empty(min(count, there), np.int64)
        _walk(self.next, sentinel, out)
        return out

    def _link(self, sentinel: int, order: NDArray[np.uint32]) -> None:
        ring = np.full(len(order) + 2, sentinel, np.uint32)
        ring[1:-1] = order
        self.next[ring[:-1]] = ring[1:]
        self.prev[ring[1:]] = ring[:-1]
