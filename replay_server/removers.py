"""Who makes room for new records when no slot is free."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numba import njit
from numpy.typing import NDArray

from replay_server.errors import ConfigError
from replay_server.slots import Slots
from replay_server.sum_tree import SumTree

_FANOUT = 8

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Remover(Protocol):
    """Chooses victims; told of every change of the table's slots and priorities, after it has happened."""

    @property
    def nbytes(self) -> int: ...

    def choose(self, count: int) -> Ints:
        """int64[count] live slots, the first to go first; changes nothing. There are at least `count`."""

    def stored(self, slots: Ints) -> None: ...

    def changed(self, slots: Ints) -> None:
        """Priorities of live slots have changed, or the slots are free now."""

    def reset(self) -> None:
        """The table has been cleared or restored."""

    def check_valid(self) -> None: ...


class Fifo:
    """The oldest record goes first."""

    nbytes = 0

    def __init__(self, slots: Slots) -> None:
        self._slots = slots

    def choose(self, count: int) -> Ints:
        return self._slots.oldest(count)

    def stored(self, slots: Ints) -> None:
        pass

    def changed(self, slots: Ints) -> None:
        pass

    def reset(self) -> None:
        pass

    def check_valid(self) -> None:
        pass


@njit(cache=True, nogil=True)
def _play(
    winners: NDArray[np.uint32],
    lowest: Floats,
    levels: Ints,
    priorities: Floats,
    births: NDArray[np.uint64],
    slots: Ints,
) -> None:
    """Play again, level by level, every match above these slots; a slot without birth never plays."""
    nobody = np.uint32(priorities.shape[0])
    nodes = slots.copy()
    count = slots.shape[0]
    for level in range(levels.shape[0] - 1):
        here = levels[level]
        below = levels[level - 1] if level > 0 else 0
        width = here - below if level > 0 else priorities.shape[0]
        kept, last = 0, -1
        for i in range(count):
            node = nodes[i] // _FANOUT
            if node == last:
                continue
            last = node
            nodes[kept] = node
            kept += 1
            best, best_priority = nobody, np.inf
            for child in range(node * _FANOUT, min(node * _FANOUT + _FANOUT, width)):
                if level == 0:
                    player = np.uint32(child) if births[child] > 0 else nobody
                    priority = priorities[child]
                else:
                    player, priority = winners[below + child], lowest[below + child]
                if player != nobody and (
                    priority < best_priority or (priority == best_priority and births[player] < births[best])
                ):
                    best, best_priority = player, priority
            winners[here + node] = best
            lowest[here + node] = best_priority
        count = kept


@njit(cache=True, nogil=True)
def _leave(
    winners: NDArray[np.uint32],
    lowest: Floats,
    levels: Ints,
    priorities: Floats,
    births: NDArray[np.uint64],
    out: Ints,
) -> None:
    """Let the winner of all step aside again and again, then put everybody back."""
    kept = np.empty(out.shape[0], np.uint64)
    for i in range(out.shape[0]):
        out[i] = winners[-1]
        kept[i] = births[out[i]]
        births[out[i]] = 0
        _play(winners, lowest, levels, priorities, births, out[i : i + 1])
    for i in range(out.shape[0]):
        births[out[i]] = kept[i]
    _play(winners, lowest, levels, priorities, births, np.sort(out))


class LowestPriority:
    """The record of lowest raw priority goes first, of equal ones the oldest.

    A tournament over the slots, eight players a match: every match keeps its winner and the winner's priority, 1.7
    bytes a slot together, and the order of births, 8 bytes a slot, decides between equals.
    """

    def __init__(self, tree: SumTree, slots: Slots) -> None:
        self._priorities = tree.priorities
        self._slots = slots
        levels, width = [0], slots.capacity
        while width > 1 or len(levels) == 1:
            width = -(-width // _FANOUT)
            levels.append(levels[-1] + width)
        self._levels: Ints = np.array(levels, np.int64)
        self._winners: NDArray[np.uint32] = np.full(levels[-1], slots.capacity, np.uint32)
        self._lowest: Floats = np.full(levels[-1], np.inf)
        self._births: NDArray[np.uint64] = np.zeros(slots.capacity, np.uint64)
        self._born = 0

    @property
    def nbytes(self) -> int:
        return self._winners.nbytes + self._lowest.nbytes + self._births.nbytes

    def choose(self, count: int) -> Ints:
        out = np.empty(count, np.int64)
        _leave(self._winners, self._lowest, self._levels, self._priorities, self._births, out)
        return out

    def stored(self, slots: Ints) -> None:
        self._births[slots] = np.arange(self._born + 1, self._born + 1 + len(slots), dtype=np.uint64)
        self._born += len(slots)
        self._replay(slots)

    def changed(self, slots: Ints) -> None:
        free = self._slots.generations[slots] & np.uint32(1) == 0
        self._births[slots[free]] = 0
        self._replay(slots)

    def reset(self) -> None:
        self._births[:] = 0
        self._winners[:] = self._slots.capacity
        self._lowest[:] = np.inf
        self._born = 0
        self.stored(self._slots.order().astype(np.int64))

    def check_valid(self) -> None:
        live = self._slots.order().astype(np.int64)
        if (np.diff(self._births[live].astype(np.int64)) <= 0).any() or np.count_nonzero(self._births) != len(live):
            raise AssertionError("births do not follow the age of the records")
        winners, lowest = self._winners.copy(), self._lowest.copy()
        self._replay(np.arange(self._slots.capacity))
        if not (np.array_equal(winners, self._winners) and np.array_equal(lowest, self._lowest)):
            raise AssertionError("a match of the tournament has another winner when it is played again")

    def _replay(self, slots: Ints) -> None:
        _play(self._winners, self._lowest, self._levels, self._priorities, self._births, slots)


REMOVERS = ("fifo", "lowest_priority")


def make_remover(name: str, tree: SumTree, slots: Slots) -> Remover:
    """One of REMOVERS.

    Raises:
        ConfigError: an unknown name.
    """
    if name == "fifo":
        return Fifo(slots)
    if name == "lowest_priority":
        return LowestPriority(tree, slots)
    raise ConfigError(f"remover {name!r} is unknown: use one of {', '.join(REMOVERS)}")
