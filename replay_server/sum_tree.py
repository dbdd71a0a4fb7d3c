"""A tree of priorities: exact sums to draw from and the largest priority, both over float64.

Every node has eight children, one cache line, so a tree over 2^20 leaves is seven levels deep and costs one seventh
more than its leaves. A descent mostly waits for memory, so it asks for a node's line long before it reads it.

A parent is always recomputed from its children, left to right, never adjusted by a difference: the sums cannot drift,
`check_valid` proves them exactly equal to a rebuild, and none is ever needed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

_FANOUT = 8
_BLOCK = 256
"""Positions that go down together: their nodes, and the lines asked for, fit the smallest cache."""

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
            first = np.uint64(below + node * _FANOUT)
            total, top = 0.0, 0.0
            for child in range(_FANOUT):
                total += sums[first + np.uint64(child)]
                top = max(top, largest[first + np.uint64(child)])
            sums[here + node] = total
            largest[here + node] = top
        count = kept


def _ask_for_line(typing: Any, array: Any, index: Any) -> Any:
    """Types and code of `_prefetch(array, index)`: LLVM's hint, which numba has no name for."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        start = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        line = builder.bitcast(builder.gep(start, [arguments[1]]), cgutils.voidptr_t)
        i32 = ir.IntType(32)
        hint = ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t, i32, i32, i32])
        functions: Any = cgutils
        function = functions.get_or_insert_function(builder.module, hint, "llvm.prefetch.p0")
        builder.call(function, [line, i32(0), i32(3), i32(1)])  # to read, into every cache, data
        return context.get_dummy_value()

    return types.void(array, types.intp), generate


_prefetch: Any = intrinsic(_ask_for_line)
"""Ask for the cache line of array[index] and go on."""


@njit(cache=True, nogil=True)
def _descend(sums: Floats, levels: Ints, positions: Floats) -> tuple[Ints, Floats]:
    """Slots whose share of the mass holds each position, and their masses; uses the positions up.

    A block of positions goes down one level at a time, so that the waits for its nodes overlap.
    """
    slots, masses = np.zeros(positions.shape[0], np.int64), np.empty(positions.shape[0])
    ends = np.zeros(_FANOUT + 1)  # of a node's children, in the order in which their parent was summed
    for start in range(0, positions.shape[0], _BLOCK):
        stop = min(start + _BLOCK, positions.shape[0])
        for level in range(levels.shape[0] - 2, -1, -1):
            for i in range(start, stop):
                first = np.uint64(levels[level] + slots[i] * _FANOUT)  # unsigned: no index counts from the end
                # No branch depends on x, which a processor could not foresee: count the children that end at or before
                # it. The first after them has mass.
                x, end, chosen = positions[i], 0.0, np.uint64(0)
                for child in range(_FANOUT):
                    end += sums[first + np.uint64(child)]
                    ends[child + 1] = end
                    chosen += np.uint64(x >= end)
                rest = x - ends[chosen]
                if chosen == np.uint64(_FANOUT):  # x was rounded to or past the last end: the last child with mass
                    for child in range(_FANOUT):
                        if sums[first + np.uint64(child)] > 0.0:
                            chosen = np.uint64(child)
                    rest = np.nextafter(sums[first + chosen], 0.0)
                positions[i] = rest
                slots[i] = slots[i] * _FANOUT + np.int64(chosen)
                if level:
                    _prefetch(sums, levels[level - 1] + slots[i] * _FANOUT)
                else:
                    masses[i] = sums[first + chosen]
    return slots, masses


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
        chosen, mass = _descend(sums, levels, position)
        slot = chosen[0]
        slots[i] = slot
        shares[i] = mass[0] / total
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


@njit(cache=True, nogil=True)
def _draw(sums: Floats, levels: Ints, uniforms: Floats, counts: Ints, stratified: bool) -> tuple[Ints, Floats]:
    """Draws from the tree as it is. Slots and their shares of the mass."""
    total = sums[-1]
    if stratified:
        positions = _stratify(uniforms, counts, total)
    else:
        positions = np.minimum(uniforms * total, np.nextafter(total, 0.0))
    slots, masses = _descend(sums, levels, positions)
    return slots, masses / total


def _aligned_zeros(count: int) -> Floats:
    """float64[count] from the start of a cache line on, where a node's children are in one and not in two."""
    memory = np.zeros(count + _FANOUT)
    start = -memory.ctypes.data % 64 // memory.itemsize
    return memory[start : start + count]


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
        self._sums: Floats = _aligned_zeros(end + 1)
        self._largest: Floats = _aligned_zeros(end + 1)

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

    def assign(self, slots: Ints, priorities: Floats) -> None:
        """Set priorities (finite, >= 0) of slots in [0, capacity); of equal slots the last wins."""
        _assign(self._sums, self._largest, self._levels, slots, priorities, self._exponent)

    def draw(self, uniforms: Floats, counts: Ints, stratified: bool) -> tuple[Ints, Floats]:
        """Draw slots in proportion to their mass; needs `total` > 0. Slots without mass are never drawn.

        Args:
            uniforms: float64[sum(counts)] in [0, 1).
            counts: int64[G], draws of each group; strata span one group.
            stratified: one draw from each of a group's equal strata, else independent draws.

        Returns:
            int64[B] slots, float64[B] probabilities.
        """
        slots, shares = _draw(self._sums, self._levels, uniforms, counts, stratified)
        return slots, shares

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
