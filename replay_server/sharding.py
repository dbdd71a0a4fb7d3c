"""Which shard a draw comes from, and which shard's rate limiter pays for it.

**Draws.** Shard j is chosen with probability m_j / sum(m), m_j the sum of p^alpha it last reported; inside it a record
with p^alpha / (mass at the moment of serving). The probability stated for a record is the product of the two numbers
actually used, so importance weights are right even while masses move.

**Credits.** A batch of B spends B credits over all shards, in proportion to the inserts each shard's limiter has to
match with samples, not to what it happened to serve: else limiting and drawing by mass would fight. In cumulative
form, with E_j the inserts beyond the shard's min_size and S_j the credits it got so far, shard j is owed

    max(0, (sum(S) + B) * E_j / sum(E) - S_j)

scaled to B in total. A shard whose writers stopped is owed less and less and never blocks for ever; one that joins
late starts level, since its first min_size inserts ask for no samples.

A shard whose limiter waits for inserts gets no credits until it has had some, unless all wait: inserts into the others
could otherwise wait for samples that wait for this one. Rows are drawn from it all the same, the others pay, and it is
owed the difference when its writers go on. Every limiter still keeps its own bounds, so the whole keeps theirs.

A shard below its min_size is not drawn from and gets no credits until it has filled up, so it holds nobody up. Nor is
one that does not answer: shares and credits are then spread over the others as if it had never been, and when it comes
back it is owed what it missed, within what its own limiter allows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from replay_server.messages import View

Floats = NDArray[np.float64]

ShareFunction = Callable[[Floats], Floats]
"""From float64[N] masses, zero for shards not to be drawn from, to float64[N] shares that sum to 1."""


def mass_shares(masses: Floats) -> Floats:
    """Shares in proportion to mass: the one rule under which sharded replay equals one large table."""
    shares: Floats = masses / masses.sum()
    return shares


class ShardViews:
    """The last seen state of N shards and the credits under way to them."""

    def __init__(self, min_sizes: Sequence[int]) -> None:
        count = len(min_sizes)
        self._min_size = np.asarray(min_sizes, np.int64)
        self._mass = np.zeros(count)
        self._size = np.zeros(count, np.int64)
        self._inserted = np.zeros(count, np.int64)
        self._sampled = np.zeros(count)
        self._under_way = np.zeros(count)
        self._earlier = np.zeros(count, np.int64)  # inserted in earlier lives and forgotten since
        self._forgotten = np.zeros(count, np.bool_)
        self._starved = np.zeros(count, np.bool_)

    def add_shard(self, min_size: int) -> None:
        """One more shard, at the end."""
        self._min_size = np.append(self._min_size, np.int64(min_size))
        self._mass, self._sampled, self._under_way = (
            np.append(array, 0.0) for array in (self._mass, self._sampled, self._under_way)
        )
        self._size, self._inserted, self._earlier = (
            np.append(array, np.int64(0)) for array in (self._size, self._inserted, self._earlier)
        )
        self._forgotten, self._starved = np.append(self._forgotten, np.False_), np.append(self._starved, np.False_)

    def adopt(self, shard: int, min_size: int) -> None:
        """It came back, perhaps with other settings."""
        self._min_size[shard] = min_size

    @property
    def sizes(self) -> NDArray[np.int64]:
        return self._size

    @property
    def inserted(self) -> int:
        """Records ever inserted over all shards, those included that do not answer or have lost records."""
        return int(self._inserted.sum() + self._earlier.sum())

    @property
    def open(self) -> NDArray[np.bool_]:
        """bool[N], shards that hold their min_size and may be drawn from."""
        return self._size >= self._min_size

    @property
    def masses(self) -> Floats:
        """float64[N], mass of the open shards, 0 for the others."""
        return np.where(self.open, self._mass, 0.0)

    @property
    def starved(self) -> NDArray[np.bool_]:
        """bool[N], shards whose limiter waits for inserts, as far as is known."""
        return self._starved

    @property
    def payable(self) -> NDArray[np.bool_]:
        """bool[N], open shards whose limiter may take credits now."""
        return self.open & ~self._starved

    def starve(self, shard: int) -> None:
        """Its limiter waits for inserts; true until a view shows some, or credits given back."""
        self._starved[shard] = True

    def see(self, shard: int, view: View) -> None:
        """Take over what a shard replied."""
        if view.inserted != self._inserted[shard] or view.sampled < self._sampled[shard]:
            self._starved[shard] = False
        if self._forgotten[shard]:
            self._forgotten[shard] = False
            self._earlier[shard] += max(self._inserted[shard] - view.inserted, 0)
        self._mass[shard], self._size[shard] = view.mass, view.size
        self._inserted[shard], self._sampled[shard] = view.inserted, view.sampled

    def forget(self, shard: int) -> None:
        """It does not answer: it is not drawn from before it has said what it holds."""
        self._mass[shard], self._size[shard], self._under_way[shard] = 0.0, 0, 0.0
        self._forgotten[shard], self._starved[shard] = True, False

    def send(self, shard: int, credit: float) -> None:
        """Credits are on their way to a shard."""
        self._under_way[shard] += credit

    def arrive(self, shard: int, credit: float) -> None:
        """They arrived (the next `see` shows them) or were lost."""
        self._under_way[shard] = max(self._under_way[shard] - credit, 0.0)

    def credits(self, amount: float) -> Floats:
        """float64[N] credits, `amount` in total, for the next draws."""
        if len(self._mass) == 1:
            return np.array([amount])
        able = self.payable
        if not able.any():
            able = self.open
        asked = np.where(able, self._inserted - self._min_size, 0).astype(np.float64)
        if asked.sum() <= 0.0:
            asked = able.astype(np.float64)
        spent = np.where(able, self._sampled + self._under_way, 0.0)
        owed = np.maximum((spent.sum() + amount) * asked / asked.sum() - spent, 0.0)
        credits: Floats = owed * (amount / owed.sum())
        return credits

    def state(self) -> dict[str, list[Any]]:
        """JSON-able state; credits under way are not part of it."""
        return {
            "mass": self._mass.tolist(),
            "size": self._size.tolist(),
            "inserted": self._inserted.tolist(),
            "sampled": self._sampled.tolist(),
        }

    def load(self, state: dict[str, list[Any]]) -> None:
        rows = zip(state["mass"], state["size"], state["inserted"], state["sampled"], strict=True)
        for shard, (mass, size, inserted, sampled) in enumerate(rows):
            self.see(shard, View(float(mass), int(size), int(inserted), float(sampled)))
        self._under_way[:] = 0.0
