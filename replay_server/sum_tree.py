"""A tree of priorities: exact sums to draw from and the largest priority, both over float64.

Every node has eight children, one cache line, so a tree over 2^20 leaves is seven levels deep and costs one seventh
more than its leaves. A parent is always recomputed from its children, left to right, never adjusted by a difference:
the sums cannot drift, `check_valid` proves them exactly equal to a rebuild, and none is ever needed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

_FANOUT = 8

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@njit(cache=True, nogil=True)
def _mass_of(priority: float, exponent: float) -> float:
    """The only place where the priority exponent is applied; zero stays zero under exponent 0 too."""
    return priority**exponent if priority > 0.0 else 0.0


@njit(cache=True, nogil=True)
def _assign(sums: Floats, largest: Floats, levels: Ints, slots: Ints, priorities: Floats, exponent: float) -> None:
    """Write leaves in order (the last of equal slots wins), then recompute their ancestors level by level."""
    count = slots.shape[0]
    nodes = np.empty(count, np.int64)
    for i in range(count):
        largest[slots[i]] = priorities[i]
        sums[slots[i]] = _mass_of(priorities[i], exponent)
        nodes[i] = slots[i]
    for level in range(1, levels.shape[0]):
        below, here = levels[level - 1], levels[level]
        kept, previous = 0, -1
        for i in range(count):
            node = nodes[i] // _FANOUT
            if node == previous:  # neighbours share parents; a repeat further off is only recomputed
                continue
            previous = node
            nodes[kept] = node
            kept += 1
            first = below + node * _FANOUT
            total, top = 0.0, 0.0
            for child in range(first, first + _FANOUT):
                total += sums[child]
                top = max(top, largest[child])
            sums[here + node] = total
            largest[here + node] = top
        count = kept


@njit(cache=True, nogil=True)
def _descend(sums: Floats, levels: Ints, positions: Floats) -> Ints:
    """Slots whose share of the mass holds each position; all positions go down one level at a time."""
    count = positions.shape[0]
    slots = np.zeros(count, np.int64)
    rest = positions.copy()
    for level in range(levels.shape[0] - 2, -1, -1):
        for i in range(count):
            first = levels[level] + slots[i] * _FANOUT
            x = rest[i]
            # No branch depends on x, which a processor could not foresee: count the children whose end, in the order in
            # which their parent was summed, lies at or before x. The first after them has mass.
            chosen, end, before = 0, 0.0, 0.0
            for child in range(_FANOUT):
                end += sums[first + child]
                passed = x >= end
                chosen += passed
                before = end if passed else before
            if chosen == _FANOUT:  # rounding left x at or past the children's sum: the end of the last child with mass
                chosen = 0
                for child in range(_FANOUT):
                    if sums[first + child] > 0.0:
                        chosen = child
                x = np.nextafter(sums[first + chosen], 0.0)
            else:
                x -= before
            slots[i] = slots[i] * _FANOUT + chosen
            rest[i] = x
    return slots


@njit(cache=True, nogil=True)
def _take(
    sums: Floats, largest: Floats, levels: Ints, uniforms: Floats, times: NDArray[np.uint32], limit: int
) -> tuple[Ints, Floats]:
    """Independent draws one after the other; a slot's priority becomes zero with its `limit`-th. Slots and masses."""
    count = uniforms.shape[0]
    slots, shares = np.empty(count, np.int64), np.empty(count)
    position, nothing = np.empty(1), np.zeros(1)
    for i in range(count):
        total = sums[-1]
        position[0] = min(uniforms[i] * total, np.nextafter(total, 0.0))
        chosen = _descend(sums, levels, position)
        slot = chosen[0]
        slots[i] = slot
        shares[i] = sums[slot] / total
        times[slot] += np.uint32(1)
        if times[slot] >= limit:
            _assign(sums, largest, levels, chosen, nothing, 1.0)
    return slots, shares


@njit(cache=True, nogil=True)
def _stratify(uniforms: Floats, counts: Ints, total: float) -> Floats:
    """Positions in [0, total): every group of `counts[g]` draws has one in each of its equal strata."""
    below = np.nextafter(total, 0.0)
    positions = np.empty(uniforms.shape[0])
    row = 0
    for group in range(counts.shape[0]):
        width = total / counts[group] if counts[group] > 0 else 0.0
        for stratum in range(counts[group]):
            positions[row] = min((stratum + uniforms[row]) * width, below)
            row += 1
    return positions


class SumTree:
    """Priorities of `capacity` slots, all zero at first.

    A slot's mass is p^exponent, and 0 for p = 0. About 18.3 bytes a slot.

    Args:
        capacity: number of slots, >= 1.
        exponent: the priority exponent alpha in [0, 1] (Schaul et al. 2016).
    """

    def __init__(self, capacity: int, exponent: float) -> None:
        self._capacity = capacity
        self._exponent = exponent
        levels, end, width = [], 0, capacity
        while True:
            levels.append(end)
            if width == 1 and len(levels) > 1:
                break
            end += -(-width // _FANOUT) * _FANOUT
            width = -(-width // _FANOUT)
        self._levels: Ints = np.array(levels, np.int64)
        self._sums: Floats = np.zeros(end + 1)
        self._largest: Floats = np.zeros(end + 1)

    @property
    def total(self) -> float:
        """The sum of all masses."""
        return float(self._sums[-1])

    @property
    def largest(self) -> float:
        """The largest raw priority, 0 if there is none."""
        return float(self._largest[-1])

    @property
    def nbytes(self) -> int:
        return self._sums.nbytes + self._largest.nbytes

    @property
    def priorities(self) -> Floats:
        """float64[capacity], the raw priorities; a view, not to be written to."""
        return self._largest[: self._capacity]

    def masses(self, slots: Ints) -> Floats:
        """float64[B], p^exponent of each slot."""
        return self._sums[slots]

    def assign(self, slots: Ints, priorities: Floats) -> None:
        """Set priorities (finite, >= 0) of slots in [0, capacity); of equal slots the last wins."""
        _assign(self._sums, self._largest, self._levels, slots, priorities, self._exponent)

    def draw(self, uniforms: Floats, counts: Ints, stratified: bool) -> Ints:
        """Slots drawn in proportion to their mass; needs `total` > 0. Slots without mass are never drawn.

        Args:
            uniforms: float64[sum(counts)] in [0, 1).
            counts: int64[G], draws of each group; strata span one group.
            stratified: one draw from each of a group's equal strata, else independent draws.
        """
        if stratified:
            positions = _stratify(uniforms, counts, self.total)
        else:
            positions = np.minimum(uniforms * self.total, np.nextafter(self.total, 0.0))
        slots: Ints = _descend(self._sums, self._levels, positions)
        return slots

    def take(self, uniforms: Floats, times: NDArray[np.uint32], limit: int) -> tuple[Ints, Floats]:
        """Draw independently, one after the other; a slot leaves with its `limit`-th draw: its priority becomes zero.

        Args:
            uniforms: float64[B] in [0, 1).
            times: uint32[capacity], draws of every slot so far; counted up.
            limit: draws a slot allows. Those still allowed by slots of priority above zero must be B or more.

        Returns:
            int64[B] slots, float64[B] probabilities at the moment of each draw.
        """
        slots, shares = _take(self._sums, self._largest, self._levels, uniforms, times, limit)
        return slots, shares

    def clear(self) -> None:
        self._sums[:] = 0.0
        self._largest[:] = 0.0

    def check_valid(self) -> None:
        """Compare every node with an exact rebuild; raises AssertionError naming the first that differs."""
        rebuilt = SumTree(self._capacity, self._exponent)
        rebuilt.assign(np.arange(self._capacity), self.priorities.copy())
        for name, ours, exact in (
            ("sum", self._sums, rebuilt._sums),
            ("largest priority", self._largest, rebuilt._largest),
        ):
            wrong: Any = np.flatnonzero(ours != exact)
            if len(wrong):
                node = int(wrong[0])
                raise AssertionError(f"{name} at node {node} is {ours[node]!r}, a rebuild gives {exact[node]!r}")
        if not np.isfinite(self._sums).all() or (self._sums < 0.0).any():
            raise AssertionError("a sum is negative or not finite")
