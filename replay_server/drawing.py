"""One round of sampling over all shards: planned at once, under way, then cut into batches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from replay_server.batches import KEY_DTYPE, SampleBatch
from replay_server.clock import Clock
from replay_server.errors import ReplayTimeout
from replay_server.messages import (
    LONGEST_WAIT_S,
    Call,
    SampleReply,
    SampleRequest,
    ShardPort,
    UpdateReply,
    UpdateRequest,
    Updates,
)
from replay_server.replay import UpdateReport
from replay_server.sharding import ShardViews
from replay_server.specs import RecordSpec

_SHARE_OF_WAIT = 0.8


def patience(deadline: float, clock: Clock) -> float:
    """How long a shard may let a call wait, in seconds, so that its answer is there before the deadline."""
    return min(max(deadline - clock.now(), 0.0) * _SHARE_OF_WAIT, LONGEST_WAIT_S)


@dataclass(frozen=True)
class Plan:
    """What is asked of N shards: int64[K, N] rows of each of K batches, shares float64[N] they were drawn with,
    credits float64[N], and the updates by shard; those of shards that are asked are taken out."""

    counts: NDArray[np.int64]
    shares: NDArray[np.float64]
    credits: NDArray[np.float64]
    updates: dict[int, Updates]


class Round:
    """K batches on their way from N shards.

    Args:
        ports: the shards.
        views: told what every reply says.
        plan: what to ask.
        wait_s: how long a synchronous shard may wait inside the first call.
        clock: of waits.
    """

    def __init__(self, ports: list[ShardPort], views: ShardViews, plan: Plan, wait_s: float, clock: Clock) -> None:
        self._ports = ports
        self._views = views
        self._plan = plan
        self._clock = clock
        self._calls: dict[int, Call[SampleReply]] = {}
        self._replies: dict[int, SampleReply] = {}
        self._blocked: list[int] = []
        self._reasons: dict[int, str] = {}
        self._closed = False
        self._applied = 0
        self._stale = 0
        self._next = 0
        asked = plan.counts.any(axis=0) | (plan.credits > 0.0) | ~views.open  # a closed one only for a fresh view
        for shard in np.flatnonzero(asked).tolist():
            self._ask(shard, plan.updates.pop(shard, Updates()), wait_s)

    @property
    def left(self) -> int:
        """Batches not yet handed out."""
        return len(self._plan.counts) - self._next

    def take_report(self) -> UpdateReport:
        """Updates applied and stale since the last call."""
        report = UpdateReport(self._applied, self._stale)
        self._applied = self._stale = 0
        return report

    def finish(self, deadline: float, jitter: np.random.Generator) -> bool:
        """Wait for every shard; False when a shard closed meanwhile and the round has to be planned anew.

        Raises:
            ReplayTimeout: the deadline passed; the round goes on and `finish` may be called again.
            HeadraceError: what a shard refused, or Unavailable; the round is lost.
        """
        for shard in self._blocked:
            self._ask(shard, Updates(), patience(deadline, self._clock))
        self._blocked.clear()
        while self._calls:
            shard, call = next(iter(self._calls.items()))
            try:
                reply = call.result(deadline - self._clock.now())
            except ReplayTimeout:
                if shard in self._reasons:
                    raise self._timeout(shard) from None
                raise
            del self._calls[shard]
            self._arrived(shard, reply)
            if reply.blocked_on is None:
                self._replies[shard] = reply
            elif self._closed or reply.blocked_on == "min_size" or reply.view.mass <= 0.0:
                self._closed = True
            else:
                self._reasons[shard] = reply.blocked_on
                self._ask_again(shard, deadline, jitter)
        return not self._closed

    def _timeout(self, shard: int) -> ReplayTimeout:
        index, reason = self._ports[shard].hello.shard, self._reasons[shard]
        return ReplayTimeout(f"the rate limiter of shard {index} waits for more {reason}", reason)

    def _ask_again(self, shard: int, deadline: float, jitter: np.random.Generator) -> None:
        port = self._ports[shard]
        remaining = deadline - self._clock.now()
        if not port.synchronous and remaining > 0.0:  # it may have been sent back at once, with too many waiting
            self._clock.sleep(min(remaining, jitter.uniform(0.002, 0.02)))
            remaining = deadline - self._clock.now()
        if remaining <= 0.0:
            self._blocked.append(shard)
            raise self._timeout(shard)
        self._ask(shard, Updates(), patience(deadline, self._clock))

    def batch(self, spec: RecordSpec) -> SampleBatch:
        """The next batch of a finished round; a zero-copy slice when all its rows come from one shard."""
        plan = self._plan
        starts = plan.counts[: self._next].sum(axis=0)
        stops = starts + plan.counts[self._next]
        self._next += 1
        parts = []
        for shard, reply in sorted(self._replies.items()):
            if stops[shard] > starts[shard]:
                rows = slice(int(starts[shard]), int(stops[shard]))
                parts.append((reply.records[rows], reply.keys[rows], plan.shares[shard] * reply.probabilities[rows]))
        if not parts:
            parts.append((np.zeros((0, spec.record_size), np.uint8), np.zeros(0, KEY_DTYPE), np.zeros(0)))
        records, keys, probabilities = (
            columns[0] if len(columns) == 1 else np.concatenate(columns) for columns in zip(*parts, strict=True)
        )
        drawn_from = plan.shares > 0.0
        return SampleBatch(
            spec=spec,
            records=records,
            keys=keys,
            probabilities=probabilities,
            table_size=int(self._views.sizes[drawn_from].sum()),
            inserted=self._views.inserted,
        )

    def share_deviation(self) -> float:
        """Total variation distance between the shares used and the masses the shards had when they served."""
        masses = self._views.masses
        for shard, reply in self._replies.items():
            masses[shard] = reply.view.mass
        return float(0.5 * np.abs(self._plan.shares - masses / masses.sum()).sum()) if masses.sum() > 0.0 else 0.0

    def give_back(self) -> list[Call[UpdateReply]]:
        """Return the credits of batches not handed out to the shards that served them."""
        share = self.left / len(self._plan.counts)
        self._next = len(self._plan.counts)
        return [
            self._ports[shard].update(UpdateRequest(Updates(), float(self._plan.credits[shard]) * share))
            for shard in self._replies
            if self._plan.credits[shard] * share > 0.0
        ]

    def abandon(self, deadline: float, jitter: np.random.Generator) -> list[Call[UpdateReply]]:
        """Collect what is under way without asking again, and give its credits back; raises as `finish`."""
        self._closed = True
        self._blocked.clear()
        self.finish(deadline, jitter)
        return self.give_back()

    def forget(self) -> None:
        """The round is lost: nothing of it counts as under way any longer."""
        for shard in self._calls:
            self._views.arrive(shard, float(self._plan.credits[shard]))
        self._calls.clear()

    def _ask(self, shard: int, updates: Updates, wait_s: float) -> None:
        credit = float(self._plan.credits[shard])
        self._views.send(shard, credit)
        request = SampleRequest(self._plan.counts[:, shard], credit, updates, wait_s)
        self._calls[shard] = self._ports[shard].sample(request)

    def _arrived(self, shard: int, reply: SampleReply) -> None:
        self._views.arrive(shard, float(self._plan.credits[shard]))
        self._views.see(shard, reply.view)
        self._applied += reply.applied
        self._stale += reply.stale
