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
    """The last seen state of N shards and the credits under way to them.

    Plain lists: for a handful of shards they are many times as fast as arrays.
    """

    def __init__(self, min_sizes: Sequence[int]) -> None:
        count = len(min_sizes)
        self._min_size = list(min_sizes)
        self._mass = [0.0] * count
        self._size = [0] * count
        self._inserted = [0] * count
        self._sampled = [0.0] * count
        self._under_way = [0.0] * count
        self._earlier = [0] * count  # inserted in earlier lives and forgotten since
        self._forgotten = [False] * count
        self._starved = [False] * count

    def add_shard(self, min_size: int) -> None:
        """One more shard, at the end."""
        self._min_size.append(min_size)
        for floats in (self._mass, self._sampled, self._under_way):
            floats.append(0.0)
        for counts in (self._size, self._inserted, self._earlier):
            counts.append(0)
        for marks in (self._forgotten, self._starved):
            marks.append(False)

    def adopt(self, shard: int, min_size: int) -> None:
        """It came back, perhaps with other settings."""
        self._min_size[shard] = min_size

    @property
    def sizes(self) -> list[int]:
        """Records each shard holds; a copy."""
        return self._size.copy()

    @property
    def inserted(self) -> int:
        """Records ever inserted over all shards, those included that do not answer or have lost records."""
        return sum(self._inserted) + sum(self._earlier)

    @property
    def open(self) -> list[bool]:
        """Shards that hold their min_size and may be drawn from."""
        return [size >= least for size, least in zip(self._size, self._min_size, strict=True)]

    @property
    def payable(self) -> list[bool]:
        """Open shards whose limiter may take credits now."""
        return [is_open and not starved for is_open, starved in zip(self.open, self._starved, strict=True)]

    @property
    def masses(self) -> list[float]:
        """Mass of the open shards, 0 for the others."""
        return [mass if is_open else 0.0 for mass, is_open in zip(self._mass, self.open, strict=True)]

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
        self._mass[shard], self._size[shard], self._inserted[shard], self._sampled[shard] = view

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

    def credits(self, amount: float) -> list[float]:
        """Credits of each shard, `amount` in total, for the next draws."""
        if len(self._mass) == 1:
            return [amount]
        able = self.payable
        if not any(able):
            able = self.open
        asked = [max(i - m, 0) if a else 0 for i, m, a in zip(self._inserted, self._min_size, able, strict=True)]
        if not any(asked):
            asked = [int(a) for a in able]
        spent = [s + u if a else 0.0 for s, u, a in zip(self._sampled, self._under_way, able, strict=True)]
        share = (sum(spent) + amount) / sum(asked)
        owed = [max(share * a - s, 0.0) for a, s in zip(asked, spent, strict=True)]
        scale = amount / sum(owed)
        return [o * scale for o in owed]

    def state(self) -> dict[str, list[Any]]:
        """JSON-able state; credits under way are not part of it."""
        return {
            "mass": self._mass.copy(),
            "size": self._size.copy(),
            "inserted": self._inserted.copy(),
            "sampled": self._sampled.copy(),
            "starved": self._starved.copy(),
        }

    def load(self, state: dict[str, list[Any]]) -> None:
        rows = zip(state["mass"], state["size"], state["inserted"], state["sampled"], strict=True)
        for shard, (mass, size, inserted, sampled) in enumerate(rows):
            self.see(shard, View(float(mass), int(size), int(inserted), float(sampled)))
        self._under_way = [0.0] * len(self._under_way)
        self._starved = [bool(starved) for starved in state["starved"]]
