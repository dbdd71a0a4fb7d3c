"""One round of sampling over all shards: planned at once, under way, then cut into batches."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from replay_server.batches import KEY_DTYPE, SampleBatch
from replay_server.clock import Clock
from replay_server.errors import ReplayTimeout, Unavailable
from replay_server.members import Asked, Members
from replay_server.messages import LONGEST_WAIT_S, NO_UPDATES, SampleReply, SampleRequest, Updates
from replay_server.reasons import timed_out
from replay_server.strays import Strays

_SHARE_OF_WAIT = 0.8
_KEY_BYTES = np.dtype((np.void, KEY_DTYPE.itemsize))


def patience(deadline: float, clock: Clock) -> float:
    """How long a shard may let a call wait, in seconds, so that its answer is there before the deadline."""
    return min(max(deadline - clock.now(), 0.0) * _SHARE_OF_WAIT, LONGEST_WAIT_S)


@dataclass(frozen=True)
class Plan:
    """What is asked of N shards: of each its rows of each of K batches, the share it was drawn with and its credits;
    and the positions of those that are asked at all (for rows, credits or only what they hold)."""

    counts: list[list[int]]
    shares: list[float]
    credits: list[float]
    asked: list[int]

    @property
    def batches(self) -> int:
        return len(self.counts[0])


@dataclass(frozen=True)
class _Drawing:
    """A request under way and the number of updates it carries."""

    asked: Asked[SampleReply]
    updates: int


class Round:
    """K batches on their way from N shards; queued updates of the shards that are asked travel along.

    Args:
        members: the shards; told what every reply says.
        strays: takes over calls whose answers are no longer wanted.
        plan: what to ask.
        deadline: until when a shard may let the first request wait.
        clock: of waits.
    """

    def __init__(self, members: Members, strays: Strays, plan: Plan, deadline: float, clock: Clock) -> None:
        self._members = members
        self._strays = strays
        self._plan = plan
        self._clock = clock
        self._drawings: dict[int, _Drawing] = {}
        self._replies: dict[int, SampleReply] = {}
        self._blocked: list[int] = []
        self._reasons: dict[int, str] = {}
        self._next = 0
        self._cut: _Cut | None = None
        self.lost = False
        """A shard was lost while it was asked."""
        wait_s = patience(deadline, clock)
        for position in plan.asked:
            self._ask(position, members.updates.take(position), wait_s)

    @property
    def left(self) -> int:
        """Batches not yet handed out."""
        return self._plan.batches - self._next

    def finish(self, deadline: float, jitter: np.random.Generator) -> bool:
        """Wait for every shard; False when one can no longer serve its part, so that the round has to be planned anew.

        Raises:
            ReplayTimeout: the deadline passed; the round goes on and `finish` may be called again.
            HeadraceError: what a shard refused; the round is lost.
        """
        for position in self._blocked:
            self._ask(position, NO_UPDATES, patience(deadline, self._clock))
        self._blocked.clear()
        whole = True
        while self._drawings:
            position, drawing = next(iter(self._drawings.items()))
            try:
                reply = self._members.answer(drawing.asked, deadline)
            except ReplayTimeout:
                if position in self._reasons:
                    raise self._timeout(position) from None
                raise
            except Unavailable:
                self.lost = True
                self._stray(position)
                return False
            self._arrived(position, reply)
            if reply.blocked_on is None:
                self._replies[position] = reply
            elif not whole or self._is_hopeless(position, reply):
                whole = False
            else:
                self._reasons[position] = reply.blocked_on
                self._ask_again(position, deadline, jitter)
        return whole

    def batch(self) -> SampleBatch:
        """The next batch of a finished round; a zero-copy slice when all its rows come from one shard."""
        if self._cut is None:
            self._cut = _Cut(self._members, self._plan, self._replies)
        self._next += 1
        return self._cut.batch(self._next - 1)

    def share_deviation(self) -> float:
        """Total variation distance between the shares used and the masses the shards had when they served."""
        shares = self._plan.shares
        if len(shares) == 1:
            return 0.0
        masses = self._members.views.masses[: len(shares)]
        for position, reply in self._replies.items():
            masses[position] = reply.view.mass
        total = sum(masses)
        return 0.5 * sum(abs(s - m / total) for s, m in zip(shares, masses, strict=True)) if total > 0.0 else 0.0

    @property
    def waits_for(self) -> str:
        """What the shard that was blocked last waited for; `reply` when none was."""
        return next(reversed(self._reasons.values()), "reply")

    def abandon(self) -> None:
        """Nobody wants what is left: its credits go back to the shards that took them, now or when they answer."""
        share = self.left / max(self._plan.batches, 1)
        self._next = self._plan.batches
        for position in self._replies:
            self._strays.give_back(position, self._plan.credits[position] * share)
        for position in list(self._drawings):
            self._stray(position)
        self._blocked.clear()

    def _is_hopeless(self, position: int, reply: SampleReply) -> bool:
        """Whether a blocked shard is better not waited for."""
        if reply.blocked_on == "min_size" or reply.view.mass <= 0.0:
            return True
        return reply.blocked_on == "inserts" and self._others_pay(position)

    def _others_pay(self, position: int) -> bool:
        """Whether a shard whose limiter waits for inserts can be left out of the credits.

        What the others hold may have grown since they answered this round, and their writers may wait for samples: they
        are asked, and their answers are known at the latest when this shard has been asked once more.
        """
        views = self._members.views
        views.starve(position)
        for other in np.flatnonzero(self._members.live).tolist():
            if other != position:
                self._strays.ask_view(other)
        self._strays.poll()
        return any(live and payable for live, payable in zip(self._members.live, views.payable, strict=True))

    def _stray(self, position: int) -> None:
        drawing = self._drawings.pop(position)
        self._strays.take(drawing.asked, self._plan.credits[position], drawing.updates)

    def _timeout(self, position: int) -> ReplayTimeout:
        return timed_out(self._reasons[position], self._members.ports[position].hello.shard)

    def _ask_again(self, position: int, deadline: float, jitter: np.random.Generator) -> None:
        remaining = deadline - self._clock.now()
        if not self._members.ports[position].synchronous and remaining > 0.0:
            # it may have been sent back at once, with too many waiting
            self._clock.sleep(min(remaining, jitter.uniform(0.002, 0.02)))
            remaining = deadline - self._clock.now()
        if remaining <= 0.0:
            self._blocked.append(position)
            raise self._timeout(position)
        self._ask(position, NO_UPDATES, patience(deadline, self._clock))

    def _ask(self, position: int, updates: Updates, wait_s: float) -> None:
        credit = self._plan.credits[position]
        request = SampleRequest(np.array(self._plan.counts[position], np.int64), credit, updates, wait_s)
        self._members.views.send(position, credit)
        asked = self._members.ask(position, lambda port: port.sample(request), wait_s)
        self._drawings[position] = _Drawing(asked, len(updates))

    def _arrived(self, position: int, reply: SampleReply) -> None:
        asked = self._drawings.pop(position).asked
        if self._members.current(asked):
            self._members.views.arrive(position, self._plan.credits[position])
        self._members.saw(asked, reply.view)
        self._members.updates.count(reply.applied, reply.stale)


class _Part(NamedTuple):
    """What one shard drew for all K batches: those of batch k are rows bounds[k] to bounds[k + 1]."""

    bounds: list[int]
    records: NDArray[np.uint8]
    keys: NDArray[Any]
    probabilities: NDArray[np.float64]


class _Cut:
    """Replies of a finished round as K batches; what is the same for all of them is worked out once."""

    def __init__(self, members: Members, plan: Plan, replies: dict[int, SampleReply]) -> None:
        self._spec = members.spec
        self._parts: list[_Part] = []
        sizes = members.views.sizes
        for position, reply in sorted(replies.items()):
            sizes[position] = reply.view.size
            if len(reply.keys):
                share = plan.shares[position]
                probabilities = reply.probabilities if share == 1.0 else reply.probabilities * share
                bounds = list(accumulate(plan.counts[position], initial=0))
                self._parts.append(_Part(bounds, reply.records, reply.keys, probabilities))
        self._table_size = sum(size for size, share in zip(sizes, plan.shares, strict=False) if share > 0.0)
        self._inserted = members.views.inserted

    def batch(self, index: int) -> SampleBatch:
        spans = [(part, part.bounds[index], part.bounds[index + 1]) for part in self._parts]
        spans = [span for span in spans if span[2] > span[1]]
        if len(spans) == 1:
            part, start, stop = spans[0]
            records, keys = part.records[start:stop], part.keys[start:stop]
            probabilities = part.probabilities[start:stop]
        else:
            count = sum(stop - start for _, start, stop in spans)
            records = np.empty((count, self._spec.record_size), np.uint8)
            keys, probabilities = np.empty(count, KEY_DTYPE), np.empty(count)
            plain = keys.view(_KEY_BYTES)  # numpy copies those ten times as fast as records of named fields
            done = 0
            for part, start, stop in spans:
                here = slice(done, done + stop - start)
                records[here] = part.records[start:stop]
                plain[here] = part.keys[start:stop].view(_KEY_BYTES)
                probabilities[here] = part.probabilities[start:stop]
                done = here.stop
        return SampleBatch(self._spec, records, keys, probabilities, self._table_size, self._inserted)
