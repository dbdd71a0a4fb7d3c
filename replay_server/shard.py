"""One shard: a table that many threads share, its rate limiter and its memory of writers."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from replay_server.capture import Capture, before_image_rows
from replay_server.clock import Clock, SystemClock
from replay_server.errors import CheckpointError, Deadlocked, InvalidRecord, StaleEpoch
from replay_server.messages import (
    InsertReply,
    InsertRequest,
    SampleReply,
    SampleRequest,
    UpdateReply,
    UpdateRequest,
    View,
)
from replay_server.rate_limiter import RateLimiter
from replay_server.replay import ShardStats
from replay_server.snapshot import ShardMeta, read_snapshot, write_snapshot
from replay_server.stand_still import StandStill
from replay_server.table import Drawn, Table
from replay_server.writer_marks import Standing, WriterMarks

_OTHER_SAVE_S = 60.0


@dataclass(eq=False)
class _Waiter:
    """A call that waits, and the reason it last found."""

    reason: str


class Shard:
    """Thread-safe; every wait has a deadline and a stated reason.

    At most `max_waiters` inserts and as many samples wait at a time, so that blocked callers never take every thread
    of a server; one more is answered `blocked` at once and has to come back.

    Args:
        table: owned by the shard from now on.
        limiter: who may go on; by default one record is enough to sample and inserts never wait.
        address: what `stats` shows.
        max_waiters: waiting calls of each kind.
        clock: of waits.

    Raises:
        ConfigError: inserting and sampling could dead-lock with this limiter and this table.
    """

    def __init__(
        self,
        table: Table,
        limiter: RateLimiter | None = None,
        *,
        address: str = "in-process",
        max_waiters: int = 12,
        clock: Clock | None = None,
    ) -> None:
        self.limiter = limiter or RateLimiter()
        self.limiter.check_table(table.capacity, table.max_times_sampled)
        self.table = table
        self.address = address
        self._max_waiters = max_waiters
        self._clock: Clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._may_insert = threading.Condition(self._lock)
        self._may_sample = threading.Condition(self._lock)
        self._waiting_inserts: list[_Waiter] = []
        self._waiting_samples: list[_Waiter] = []
        self._writers = WriterMarks()
        self._stand_still = StandStill()
        self._saving = threading.Lock()
        self._inserted = 0
        self._sampled = 0.0
        self._fenced = 0
        self._duplicates = self._drawn = self._updated = self._stale = 0

    def insert(self, request: InsertRequest) -> InsertReply:
        """Store a chunk as soon as the limiter lets it, within `wait_s`.

        Raises:
            InvalidRecord: the chunk is wrong in some way; nothing was changed.
            StaleEpoch: its writer was replaced by a newer epoch; counted in `fenced`.
            WriterEvicted: its writer is no longer remembered.
            Deadlocked: inserts and samples wait for each other.
        """
        rows = self.table.check(request.records, request.priorities)
        count = len(rows.records)
        with self._lock:
            known = False

            def blocked() -> str | None:
                nonlocal known
                known = request.stamp is not None and not self._admit(request, count)
                return None if known else self._blocks_insert(count)

            reason = self._wait(self._may_insert, self._waiting_inserts, blocked, request.wait_s)
            if reason is not None:
                return InsertReply(0, 0, reason, self._view())
            if known:
                self._duplicates += count
                return InsertReply(0, count, None, self._view())
            self.table.store(rows, self.table.room_for(count))
            if request.stamp is not None:
                self._writers.add(request.stamp)
            self._inserted += count
            self._moved(self._may_sample)
            return InsertReply(count, 0, None, self._view())

    def sample(self, request: SampleRequest, into: Callable[[int], Drawn] | None = None) -> SampleReply:
        """Apply the updates, then draw as soon as the limiter lets it, within `wait_s`.

        A request that asks for nothing never waits, nor one to a shard whose records all have priority zero. One
        that asks for rows without spending credit waits for `min_size` only.

        Args:
            request: what to draw.
            into: given the number of rows, the arrays to draw them into; asked, under the lock, when nothing blocks.

        Raises:
            InvalidRecord: nothing was changed.
            Deadlocked: inserts and samples wait for each other.
        """
        if not (np.isfinite(request.credit) and request.credit >= 0.0):
            raise InvalidRecord(f"sample credit is {request.credit}, must be finite and >= 0")
        if (request.counts < 0).any():
            raise InvalidRecord("a batch of a sample request has a negative count")
        rows = int(request.counts.sum())
        with self._lock:
            applied, stale = self._update(request.updates.keys, request.updates.priorities)

            def blocked() -> str | None:
                return self._blocks_sample(rows, request.credit)

            massless = self.table.size >= self.limiter.min_size and self.table.mass <= 0.0
            wait_s = 0.0 if massless else request.wait_s  # its client then turns to the other shards
            reason = self._wait(self._may_sample, self._waiting_samples, blocked, wait_s)
            counts = request.counts if reason is None else np.zeros(0, np.int64)
            view = self._view()
            drawn = self._draw(counts, into)
            self._drawn += len(drawn.keys)
            if len(drawn.removed):
                self._moved(self._may_insert)
            if reason is None and request.credit > 0.0:
                self._sampled += request.credit
                view = view._replace(sampled=self._sampled)
                self._moved(self._may_insert)
            return SampleReply(drawn.records, drawn.keys, drawn.probabilities, applied, stale, reason, view)

    def update(self, request: UpdateRequest) -> UpdateReply:
        """Apply priorities; take back credits of samples nobody will read."""
        if not (np.isfinite(request.returned) and request.returned >= 0.0):
            raise InvalidRecord(f"returned credit is {request.returned}, must be finite and >= 0")
        with self._lock:
            applied, stale = self._update(request.updates.keys, request.updates.priorities)
            if request.returned > 0.0:
                self._sampled = max(self._sampled - request.returned, 0.0)
                self._moved(self._may_sample)
            return UpdateReply(applied, stale, self._view())

    def stats(self) -> ShardStats:
        with self._lock:
            waiting = [*self._waiting_samples, *self._waiting_inserts]
            return ShardStats(
                address=self.address,
                size=self.table.size,
                capacity=self.table.capacity,
                inserted=self._inserted,
                sampled=self._sampled,
                priority_mass=self.table.mass,
                fenced=self._fenced,
                blocked_on=waiting[0].reason if waiting else None,
                shard=self.table.shard,
                duplicates=self._duplicates,
                drawn=self._drawn,
                updated=self._updated,
                stale=self._stale,
            )

    def clear(self) -> View:
        """Remove every record; counters and writer marks stay."""
        with self._lock:
            self.table.clear()
            self._moved(self._may_insert)
            return self._view()

    def check_valid(self) -> None:
        with self._lock:
            self.table.check_valid()

    def save(self, path: str, *, pace: float = 0.0) -> None:
        """Write the shard as it is now into one HDF5 file, while inserts and samples go on.

        Args:
            path: of the file, see `snapshot`.
            pace: seconds of rest for every second of work; 0 where nobody else wants the processor.

        Raises:
            CheckpointError: the file cannot be written, or another one is being written.
        """
        if not self._saving.acquire(timeout=_OTHER_SAVE_S):
            raise CheckpointError(f"{path}: this shard has been saving itself elsewhere for {_OTHER_SAVE_S:g} s")
        try:
            table = self.table
            capture = Capture(table, before_image_rows(table.capacity, table.spec.record_size))
            with self._lock:
                capture.begin()
                meta = ShardMeta(self._inserted, self._sampled, self._fenced, self._writers.to_json())
            try:
                write_snapshot(path, capture, self._may_insert, meta, pace, self._clock)
            finally:
                with self._lock:
                    capture.end()
                    self._may_insert.notify_all()
        finally:
            self._saving.release()

    def restore(self, path: str, *, keep_incarnation: bool = False) -> None:
        """Become what was saved.

        Args:
            path: a file made by `save`, of the same spec, settings and shard.
            keep_incarnation: keys handed out before the save stay good; only when nothing happened to that shard
                after it (resume of a serial run).

        Raises:
            CheckpointError: missing, damaged, or of another kind; nothing was changed.
        """
        with self._lock:
            meta = read_snapshot(path, self.table, keep_incarnation=keep_incarnation)
            self._writers.load(meta.writers)
            self._inserted, self._sampled, self._fenced = meta.inserted, meta.sampled, meta.fenced
            self._moved(self._may_insert, self._may_sample)

    def _draw(self, counts: np.ndarray, into: Callable[[int], Drawn] | None) -> Drawn:
        rows = int(counts.sum())
        return self.table.sample(counts, None if into is None or rows == 0 else into(rows))

    def _admit(self, request: InsertRequest, rows: int) -> bool:
        """False for a chunk stored already; opens the writer of a first chunk."""
        assert request.stamp is not None
        try:
            standing = self._writers.standing(request.stamp)
        except StaleEpoch:
            self._fenced += rows
            raise
        if standing is Standing.OPENING:
            self._writers.open(request.stamp.writer_id, request.stamp.epoch)
        return standing is not Standing.STORED

    def _update(self, keys: np.ndarray, priorities: np.ndarray) -> tuple[int, int]:
        if len(keys) == 0 and len(priorities) == 0:
            return 0, 0
        applied, stale = self.table.update_priorities(keys, priorities)
        self._updated += applied
        self._stale += stale
        if applied:  # a record may have got its first priority above zero
            self._moved(self._may_sample)
        return applied, stale

    def _blocks_insert(self, rows: int) -> str | None:
        capture = self.table.capture
        if capture is not None and not capture.room_for(self.table.room_for(rows)):
            return "snapshot"
        return self.limiter.blocks_insert(self.table.size, self._inserted, self._sampled, rows)

    def _blocks_sample(self, rows: int, credit: float) -> str | None:
        if rows == 0 and credit == 0.0:
            return None
        reason = self.limiter.blocks_sample(self.table.size, self._inserted, self._sampled, rows)
        if reason == "inserts" and credit == 0.0:
            reason = None
        if reason is None and rows and (self.table.mass <= 0.0 or rows > self.table.draws_left):
            return "inserts"
        return reason

    def _wait(
        self,
        condition: threading.Condition,
        waiting: list[_Waiter],
        blocked: Callable[[], str | None],
        wait_s: float,
    ) -> str | None:
        """None as soon as nothing blocks, else the reason after `wait_s` or with too many waiting already."""
        reason = blocked()
        if reason is None:
            return None
        if wait_s <= 0.0 or len(waiting) >= self._max_waiters:
            return self._still_blocked(reason)
        deadline = self._clock.now() + wait_s
        waiter = _Waiter(reason)
        waiting.append(waiter)
        try:
            while (remaining := deadline - self._clock.now()) > 0.0:
                condition.wait(remaining)
                reason = blocked()
                if reason is None:
                    return None
                waiter.reason = reason
            return self._still_blocked(reason)
        finally:
            waiting.remove(waiter)

    def _still_blocked(self, reason: str) -> str:
        if self._stand_still.blocked(reason, self._clock.now()):
            raise Deadlocked(
                f"the shard at {self.address} can neither insert (waits for samples) nor sample (waits for inserts), "
                f"and nothing has moved for seconds: {self.table.size} records of priority mass {self.table.mass:g}; "
                "raise a priority above zero, ask for smaller batches, or clear it"
            )
        return reason

    def _moved(self, *conditions: threading.Condition) -> None:
        self._stand_still.moved()
        for condition in conditions:
            condition.notify_all()

    def _view(self) -> View:
        return View(self.table.mass, self.table.size, self._inserted, self._sampled)
