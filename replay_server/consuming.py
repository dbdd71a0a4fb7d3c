"""Batches from shards whose records leave when they are sampled (`max_times_sampled`): queues, for most uses."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections import deque
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from replay_server.batches import KEY_DTYPE, SampleBatch
from replay_server.clock import Clock
from replay_server.drawing import patience
from replay_server.errors import HeadraceError, ReplayTimeout, Unavailable
from replay_server.members import Asked, Members
from replay_server.messages import Call, SampleReply, SampleRequest, ShardPort
from replay_server.reasons import timed_out

_LATE_S = 0.5
"""An answer later than this, beyond what its shard may hold the call, is what a timeout blames."""


@dataclass(frozen=True)
class _Drawn:
    """Rows taken and not handed out yet; probabilities over all shards."""

    records: NDArray[np.uint8]
    keys: NDArray[Any]
    probabilities: NDArray[np.float64]


class _Drawing(NamedTuple):
    """A request under way: its rows, its shard's share of the draws, and the updates it carries."""

    asked: Asked[SampleReply]
    rows: int
    share: float
    updates: int


class Consumption:
    """Nothing is drawn ahead of need, and nothing that was drawn is dropped: it waits here for the next batch.

    Rows are spread over shards by what each can serve, as if drawn without replacement from all their records together
    (multivariate hypergeometric), and the credits of a request are its rows. A shard that ends takes along what it was
    asked for; its part is asked of the others. One that is only late has removed the records all the same: they are
    handed out when its answer comes. What has been drawn but not handed out at `close` is lost.

    Args:
        members: the shards.
        rng: of the choice of shards.
        clock: of waits.
    """

    def __init__(self, members: Members, rng: np.random.Generator, clock: Clock) -> None:
        self._members = members
        self._rng = rng
        self._clock = clock
        self._pool: deque[_Drawn] = deque()
        self._pooled = 0
        self._under_way: dict[int, _Drawing] = {}
        self._late: list[_Drawing] = []
        self._reason: tuple[str, int] | None = None  # what which shard last waited for, in this call of `next`

    def next(self, batch_size: int, deadline: float) -> SampleBatch:
        """The next batch.

        Raises:
            ReplayTimeout: with the reason; what has been drawn is kept for the next call.
            Unavailable: no shard answers.
            InvalidRecord: a batch size below 1 or too large for a message.
        """
        self._members.check_batch(batch_size)
        self._reason = None
        self._take_late()
        while self._pooled < batch_size:
            self._members.await_live(deadline)
            missing = batch_size - self._pooled - sum(drawing.rows for drawing in self._under_way.values())
            if missing > 0:
                self._spread(missing, deadline)
            self._collect(deadline)
        return self._cut(batch_size)

    def clear(self) -> None:
        """Forget rows that were drawn: their records have been removed on purpose."""
        self._pool.clear()
        self._pooled = 0

    def state(self) -> list[list[str]]:
        """JSON-able: what was drawn and not handed out yet."""
        return [
            [b64encode(part.tobytes()).decode() for part in (drawn.records, drawn.keys, drawn.probabilities)]
            for drawn in self._pool
        ]

    def load(self, state: list[list[str]]) -> None:
        """Inverse of `state`."""
        self.clear()
        for parts in state:
            records, keys, probabilities = (b64decode(part) for part in parts)
            drawn = _Drawn(
                np.frombuffer(records, np.uint8).reshape(-1, self._members.spec.record_size),
                np.frombuffer(keys, KEY_DTYPE),
                np.frombuffer(probabilities, np.float64),
            )
            self._pool.append(drawn)
            self._pooled += len(drawn.keys)

    def _spread(self, missing: int, deadline: float) -> None:
        """Ask for rows of shards that have no request under way; where none is known to hold any, for one row each."""
        free = self._members.live.copy()
        free[list(self._under_way)] = False
        views = self._members.views
        sizes = np.where(free & np.array(views.open), views.sizes, 0)
        total = int(sizes.sum())
        if total == 0:
            sizes = np.where(free, 1, 0)
            total = int(sizes.sum())
        if total == 0:
            return
        counts = sizes
        if missing < total:
            counts = self._rng.multivariate_hypergeometric(sizes, missing, method="marginals")
        wait_s = patience(deadline, self._clock)
        for position in np.flatnonzero(counts).tolist():
            rows = int(counts[position])
            updates = self._members.updates.take(position)
            request = SampleRequest(np.array([rows], np.int64), float(rows), updates, wait_s)
            asked = self._members.ask(position, partial(_sample, request), wait_s)
            self._under_way[position] = _Drawing(asked, rows, float(sizes[position] / total), len(updates))

    def _collect(self, deadline: float) -> None:
        """Wait for the requests under way; raises ReplayTimeout at the deadline."""
        blocked = True
        for position, drawing in list(self._under_way.items()):
            try:
                reply = self._members.answer(drawing.asked, deadline)
            except ReplayTimeout:
                late_s = self._clock.now() - drawing.asked.sent - drawing.asked.held_s
                if self._reason is None or late_s > _LATE_S:
                    raise
                raise timed_out(*self._reason) from None  # it was asked again only just before the deadline
            except Unavailable:
                self._late.append(self._under_way.pop(position))
                continue
            except HeadraceError:
                self._members.updates.count(0, self._under_way.pop(position).updates)
                raise
            del self._under_way[position]
            blocked = not self._arrived(drawing, reply) and blocked
        self._take_late()
        if blocked:
            remaining = deadline - self._clock.now()
            if remaining <= 0.0:
                raise timed_out(*(self._reason or ("reply", 0)))
            self._clock.sleep(min(remaining, 0.002))

    def _arrived(self, drawing: _Drawing, reply: SampleReply) -> bool:
        """Pool what was drawn; False when nothing was."""
        self._members.saw(drawing.asked, reply.view)
        self._members.updates.count(reply.applied, reply.stale)
        if reply.blocked_on is not None:
            self._reason = (reply.blocked_on, self._members.ports[drawing.asked.position].hello.shard)
            return False
        self._pool.append(_Drawn(reply.records, reply.keys, reply.probabilities * drawing.share))
        self._pooled += len(reply.keys)
        return True

    def _take_late(self) -> None:
        """What shards that were given up have answered after all; never waits."""
        late, self._late = self._late, []
        for drawing in late:
            if not drawing.asked.call.done():
                self._late.append(drawing)
                continue
            try:
                reply = drawing.asked.call.result(0.0)
            except HeadraceError:
                self._members.updates.count(0, drawing.updates)
                continue
            self._arrived(drawing, reply)

    def _cut(self, batch_size: int) -> SampleBatch:
        taken: list[_Drawn] = []
        missing = batch_size
        while missing:
            head = self._pool.popleft()
            if len(head.keys) > missing:
                rest = slice(missing, None)
                self._pool.appendleft(_Drawn(head.records[rest], head.keys[rest], head.probabilities[rest]))
                head = _Drawn(head.records[:missing], head.keys[:missing], head.probabilities[:missing])
            taken.append(head)
            missing -= len(head.keys)
        self._pooled -= batch_size
        views = self._members.views
        return SampleBatch(
            self._members.spec,
            taken[0].records if len(taken) == 1 else np.concatenate([d.records for d in taken]),
            taken[0].keys if len(taken) == 1 else np.concatenate([d.keys for d in taken]),
            taken[0].probabilities if len(taken) == 1 else np.concatenate([d.probabilities for d in taken]),
            sum(views.sizes),
            views.inserted,
            consumed=True,
        )


def _sample(request: SampleRequest, port: ShardPort) -> Call[SampleReply]:
    return port.sample(request)
