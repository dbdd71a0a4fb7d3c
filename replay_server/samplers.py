"""Who is drawn next. No sampler ever draws a record of priority zero."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
from numba import njit
from numpy.typing import NDArray

from replay_server.errors import ConfigError
from replay_server.slots import Slots
from replay_server.sum_tree import SumTree

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Choice(NamedTuple):
    """int64[B] slots in the order they were drawn and float64[B] probabilities of those draws."""

    slots: Ints
    probabilities: Floats


class Sampler(Protocol):
    """Draws B slots from a table that allows as many draws; reads its tree and its slots and changes neither the
    table's lists nor its records."""

    def draw(self, rows: int, counts: Ints, rng: np.random.Generator) -> Choice:
        """With replacement, `counts[g]` of the rows for each group, all from the table as it is."""

    def take(self, rows: int, rng: np.random.Generator, times: NDArray[np.uint32], limit: int) -> Choice:
        """One after the other, counting `times` (uint32[capacity]) up; a slot is not drawn more than `limit` times.

        The caller removes the slots that have reached the limit.
        """


class ByMass:
    """In proportion to p^alpha (Schaul et al. 2016).

    Args:
        tree: of the table.
        stratified: one draw from each of a group's equal strata, else independent draws. Draws that are made one
            after the other are always independent.
    """

    def __init__(self, tree: SumTree, stratified: bool) -> None:
        self._tree = tree
        self._stratified = stratified

    def draw(self, rows: int, counts: Ints, rng: np.random.Generator) -> Choice:
        return Choice(*self._tree.draw(rng.random(rows), counts, self._stratified))

    def take(self, rows: int, rng: np.random.Generator, times: NDArray[np.uint32], limit: int) -> Choice:
        return Choice(*self._tree.take(rng.random(rows), times, limit))


@njit(cache=True, nogil=True)
def _take_in_order(
    links: NDArray[np.uint32], sentinel: int, priorities: Floats, times: NDArray[np.uint32], limit: int, out: Ints
) -> None:
    """Each record of priority above zero in turn, as often as it may still be drawn."""
    at, row = links[sentinel], 0
    while row < out.shape[0] and at != sentinel:
        while row < out.shape[0] and priorities[at] > 0.0 and times[at] < limit:
            out[row] = at
            times[at] += np.uint32(1)
            row += 1
        at = links[at]


@njit(cache=True, nogil=True)
def _first_above_zero(links: NDArray[np.uint32], sentinel: int, priorities: Floats) -> int:
    at = links[sentinel]
    while at != sentinel and not priorities[at] > 0.0:
        at = links[at]
    return int(at)


class InOrder:
    """Every draw takes the oldest record (FIFO) or the newest (LIFO); its probability is 1.

    The same one again and again, until it is removed: with `max_times_sampled` this is a queue or a stack. Records of
    priority zero are passed over one by one.

    Args:
        tree, slots: of the table.
        newest: LIFO.
    """

    def __init__(self, tree: SumTree, slots: Slots, newest: bool) -> None:
        self._tree = tree
        self._links = slots.prev if newest else slots.next
        self._sentinel = slots.live

    def draw(self, rows: int, counts: Ints, rng: np.random.Generator) -> Choice:
        slot = _first_above_zero(self._links, self._sentinel, self._tree.priorities)
        return Choice(np.full(rows, slot, np.int64), np.ones(rows))

    def take(self, rows: int, rng: np.random.Generator, times: NDArray[np.uint32], limit: int) -> Choice:
        slots = np.empty(rows, np.int64)
        _take_in_order(self._links, self._sentinel, self._tree.priorities, times, limit, slots)
        return Choice(slots, np.ones(rows))


SAMPLERS = ("stratified", "multinomial", "uniform", "fifo", "lifo")


def mass_exponent(name: str, priority_exponent: float) -> float:
    """The exponent of the table's tree: only the prioritized samplers care how large a priority above zero is.

    Raises:
        ConfigError: an unknown name.
    """
    if name not in SAMPLERS:
        raise ConfigError(f"sampler {name!r} is unknown: use one of {', '.join(SAMPLERS)}")
    return priority_exponent if name in ("stratified", "multinomial") else 0.0


def make_sampler(name: str, tree: SumTree, slots: Slots) -> Sampler:
    """One of SAMPLERS; `uniform` draws independently from a tree of exponent 0, where every mass is 1."""
    if name in ("fifo", "lifo"):
        return InOrder(tree, slots, newest=name == "lifo")
    return ByMass(tree, stratified=name == "stratified")
