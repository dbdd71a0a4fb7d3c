"""Keeps rounds of batches under way ahead of a learner."""

from __future__ import annotations

from collections import deque

import numpy as np

from replay_server.batches import SampleBatch
from replay_server.clock import Clock
from replay_server.drawing import Plan, Round
from replay_server.errors import HeadraceError, ReplayTimeout
from replay_server.members import Members
from replay_server.reasons import WaitTimes
from replay_server.sharding import ShareFunction
from replay_server.strays import Strays

_ROUND_BYTES = 16 << 20
_POLL_S = 0.02


class Sampling:
    """A bounded number of batches, asked for ahead in rounds of several, so that several calls are under way.

    A shard that dies takes its part of every round along: those rounds are planned anew over the others, and credits
    the others were to spend on them are given back.

    Args:
        members: the shards.
        prefetch: batches ahead, in two rounds; 0 asks for one batch at a time, when it is wanted. Over several shards
            it is twice as many: a call then brings as many rows as one to a single shard, and calls cost most of all.
        shares: how draws are spread over shards.
        rng: of the choice of shards.
        jitter: of pauses.
        clock: of waits.
        waits: where the time spent waiting is noted.
    """

    def __init__(
        self,
        members: Members,
        *,
        prefetch: int,
        shares: ShareFunction,
        rng: np.random.Generator,
        jitter: np.random.Generator,
        clock: Clock,
        waits: WaitTimes,
    ) -> None:
        self._members = members
        self._prefetch = prefetch
        self._shares = shares
        self._rng = rng
        self._jitter = jitter
        self._clock = clock
        self._waits = waits
        self._strays = Strays(members)
        self._rounds: deque[Round] = deque()
        self._ahead = 0
        self._together = self._depth = 1
        self._batch_size = 0  # none yet
        self._views_round: Round | None = None
        self.share_deviation = 0.0
        """Total variation distance between the shard shares of the last batch and those when it was served."""

    def next(self, batch_size: int, deadline: float) -> SampleBatch:
        """The next batch.

        Raises:
            ReplayTimeout: with the reason; what is under way is kept for the next call.
            Unavailable: no shard answers.
            InvalidRecord: a batch size below 1 or too large for a message.
        """
        if batch_size != self._batch_size or batch_size < 1:
            self._resize(batch_size)
        if self._strays or not self._members.complete:
            self._strays.poll()
            self._members.look()
        while True:
            if not self._rounds:
                self.await_mass(deadline)
                self._plan_round(deadline)
                self._top_up(deadline)
            first = self._rounds[0]
            if self._finish(first, deadline):
                break
            if first.lost:
                self.drop()
            else:
                self._drop_first()
                self._strays.poll()
        batch = first.batch()
        self._ahead -= 1
        if first.left == 0:
            self._rounds.popleft()
            self.share_deviation = first.share_deviation()
            self._top_up(deadline)
        return batch

    def drop(self) -> None:
        """Forget what was asked for ahead; its credits are given back."""
        while self._rounds:
            self._drop_first()
        if self._views_round is not None:
            self._views_round.abandon()
            self._views_round = None
        self._strays.poll()

    def restart(self) -> None:
        """Drop everything and look at the shards anew: there may be more of them."""
        self.drop()
        self._batch_size = 0

    def settle(self, deadline: float) -> None:
        """Wait until everything dropped is accounted for; raises ReplayTimeout at the deadline."""
        self._strays.settle(deadline)

    def await_mass(self, deadline: float) -> None:
        """Until some shard may be drawn from, by what it last said; asks them again meanwhile."""
        members, answered = self._members, False
        while not any(members.views.masses):
            members.await_live(deadline)
            try:
                self._refresh(deadline)
            except ReplayTimeout:
                if answered:
                    raise self._nothing_to_sample() from None
                raise
            answered = True
            remaining = deadline - self._clock.now()
            if not any(members.views.masses):
                if remaining <= 0.0:
                    raise self._nothing_to_sample()
                pause = min(remaining, _POLL_S)
                self._clock.sleep(pause)
                self._waits.add("inserts" if any(members.views.open) else "min_size", pause)

    def _resize(self, batch_size: int) -> None:
        size = self._members.check_batch(batch_size)
        self.drop()
        self._batch_size = batch_size
        self._depth = self._prefetch * min(len(self._members), 2)
        self._together = max(1, min(self._depth // 2, _ROUND_BYTES // size))

    def _drop_first(self) -> None:
        dropped = self._rounds.popleft()
        self._ahead -= dropped.left
        dropped.abandon()

    def _top_up(self, deadline: float) -> None:
        """Ask ahead for as many batches as there is room for; never waits."""
        while self._ahead + self._together <= self._depth and any(self._members.views.masses):
            self._plan_round(deadline)

    def _plan_round(self, deadline: float) -> None:
        views, batches = self._members.views, self._together
        credits = views.credits(float(batches * self._batch_size))
        if len(credits) == 1:
            plan = Plan([[self._batch_size] * batches], [1.0], credits, [0])
        else:
            shares = self._shares(np.array(views.masses))
            counts = self._rng.multinomial(self._batch_size, shares, size=batches).T.tolist()
            wanted = zip(self._members.live.tolist(), counts, credits, views.payable, strict=True)
            asked = [  # some only for a fresh view
                position
                for position, (live, rows, credit, payable) in enumerate(wanted)
                if live and (any(rows) or credit > 0.0 or not payable)
            ]
            plan = Plan(counts, shares.tolist(), credits, asked)
        self._rounds.append(Round(self._members, self._strays, plan, deadline, self._clock))
        self._ahead += batches

    def _finish(self, round_: Round, deadline: float) -> bool:
        begin = self._clock.now()
        try:
            return round_.finish(deadline, self._jitter)
        except ReplayTimeout:
            raise
        except HeadraceError:
            self.drop()
            raise
        finally:
            self._waits.add(round_.waits_for, self._clock.now() - begin)

    def _refresh(self, deadline: float) -> None:
        """Ask every shard that answers what it holds; answers that do not come in time are read at the next call."""
        if self._views_round is None:
            nothing = [0.0] * len(self._members)
            plan = Plan([[] for _ in nothing], nothing, nothing, np.flatnonzero(self._members.live).tolist())
            self._views_round = Round(self._members, self._strays, plan, deadline, self._clock)
        while not self._finish(self._views_round, deadline):
            pass
        self._views_round = None

    def _nothing_to_sample(self) -> ReplayTimeout:
        views = self._members.views
        if any(views.open):
            return ReplayTimeout("nothing to sample: every record has priority zero", "inserts")
        held = ", ".join(
            f"shard {port.hello.shard} holds {size} of {port.hello.min_size}"
            for port, size, live in zip(self._members.ports, views.sizes, self._members.live, strict=True)
            if live
        )
        return ReplayTimeout(f"too few records to sample yet: {held}", "min_size")
