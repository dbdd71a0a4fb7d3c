"""A stream of inserts to one shard: stored in any order, each chunk once."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from replay_server.batches import checked_priorities
from replay_server.clock import Clock, SystemClock
from replay_server.errors import HeadraceError, ReplayTimeout, StaleEpoch, Unavailable
from replay_server.messages import LONGEST_WAIT_S, Call, InsertReply, InsertRequest, ShardPort, Stamp
from replay_server.replay import Ack, Rows
from replay_server.specs import RecordSpec

_CHUNK_ROWS = 4096
_CHUNK_BYTES = 4 << 20
SMALL_ROWS = 256
_CLOSE_S = 1.0
_BACKOFF_S = 0.05
_SHARE_OF_WAIT = 0.8
_LAST_S = 0.02
"""With so little left a refused chunk is not sent again, so that at the deadline its fate is known."""


def packed(spec: RecordSpec, rows: Rows) -> NDArray[np.uint8]:
    """A copy of rows as records uint8[B, record_size]; raises InvalidRecord on rows of another layout."""
    if isinstance(rows, np.ndarray):
        spec.columns(rows[:0])
        return np.array(rows, order="C")
    return spec.pack(rows)


@dataclass(eq=False)
class _Chunk:
    request: InsertRequest
    call: Call[InsertReply] | None = None
    lost: bool = False
    """A call ended without a reply: the chunk may be stored."""

    @property
    def rows(self) -> int:
        return len(self.request.records)


class StreamWriter:
    """Packs rows into stamped chunks and keeps a bounded window of them under way.

    Rows of several small appends travel in one chunk while an earlier chunk is under way, so a fast writer of few rows
    does not pay for a call each time. A chunk that was blocked or lost is sent again with the same stamp; the shard
    stores it once. Not thread-safe.

    Args:
        port: the shard.
        stamp: writer id, epoch and the sequence number of the first chunk.
        max_in_flight: chunks under way at most (one append may exceed it by its own length).
        gather_rows: rows of small appends gathered for one chunk; with the window it bounds how far the shard lags.
        clock: of waits.
    """

    def __init__(
        self,
        port: ShardPort,
        stamp: Stamp,
        *,
        max_in_flight: int = 8,
        gather_rows: int = SMALL_ROWS,
        clock: Clock | None = None,
    ) -> None:
        self._port = port
        self._spec = port.hello.spec
        self._stamp = stamp
        self._window = max(max_in_flight, 1)
        self._small_rows = gather_rows
        self._clock: Clock = clock or SystemClock()
        size = self._spec.record_size
        most = port.hello.capacity if port.synchronous else min(_CHUNK_ROWS, max(_CHUNK_BYTES // size, 1))
        self._chunk_rows = min(most, port.hello.capacity)
        self._backoff = np.random.default_rng([stamp.writer_id & 0xFFFFFFFF, stamp.epoch])
        self._pending: deque[_Chunk] = deque()
        self._gathered: list[tuple[NDArray[np.uint8], NDArray[np.float64] | None]] = []
        self._gathered_rows = 0
        self._accepted = self._duplicates = 0
        self._failure: HeadraceError | None = None
        self._trouble: HeadraceError | None = None
        self.seconds_blocked = 0.0
        """Time spent waiting so far."""
        self.blocked_on: str | None = None
        """What a chunk last waited for: `samples`, or `reply` when the shard could not be reached."""
        self.refused = 0
        """Of the records the last flush gave up, those known not to be stored."""

    @property
    def sequence(self) -> int:
        """Sequence number of the next chunk; a later writer of the same epoch has to start there."""
        return self._stamp.sequence

    @property
    def acknowledged(self) -> int:
        """Records stored since the last flush, as far as the replies that have come in tell."""
        return self._accepted + self._duplicates

    @property
    def shard(self) -> int:
        """Index of the shard this writer inserts into."""
        return self._port.hello.shard

    def append(self, rows: Rows, priorities: NDArray[np.float64] | None = None, *, timeout_s: float = 5.0) -> None:
        """Copy rows and send them on; waits only while the window is full.

        Args:
            rows: columns {name: [B, *shape]} or packed records uint8[B, record_size].
            priorities: float64[B], finite and >= 0; None for the largest in the table.
            timeout_s: how long to wait for room.

        Raises:
            ReplayTimeout: no room in time; nothing was taken, call again with the same rows.
            Unavailable: no room because the shard cannot be reached; nothing was taken.
            StaleEpoch: a newer epoch of this writer exists.
            InvalidRecord: rows of wrong layout; or the shard refused the chunk of an earlier append, which is lost.
        """
        records = packed(self._spec, rows)
        if priorities is not None:
            priorities = checked_priorities(priorities, len(records)).copy()
        deadline = self._clock.now() + timeout_s
        self._collect()
        if len(records) == 0:
            return
        if self._port.synchronous:
            self._append_now(records, priorities, deadline)
            return
        if len(self._pending) >= self._window and self._gathered_rows + len(records) >= self._small_rows:
            self._wait(deadline, lambda: len(self._pending) < self._window)
        self._gather(records, priorities)
        self._send(deadline)

    def flush(self, *, timeout_s: float = 5.0) -> Ack:
        """Wait until everything appended is acknowledged.

        At the deadline the writer gives up what is still under way and counts it as unknown: it may or may not be
        stored, and is never sent again.

        Returns:
            Counts of records since the last flush.

        Raises:
            StaleEpoch, InvalidRecord: as `append`.
        """
        deadline = self._clock.now() + timeout_s
        unknown = 0
        try:
            self._collect()
            self._cut()
            self._send(deadline)
            self._wait(deadline, lambda: not self._pending)
        except (ReplayTimeout, Unavailable):
            unknown = sum(chunk.rows for chunk in self._pending)
            self.refused = sum(chunk.rows for chunk in self._pending if chunk.call is None and not chunk.lost)
            self._pending.clear()
        ack = Ack(self._accepted, self._duplicates, unknown)
        self._accepted = self._duplicates = 0
        return ack

    def close(self) -> None:
        """Flush with a deadline of one second and end; does not raise."""
        try:
            self.flush(timeout_s=_CLOSE_S)
        except HeadraceError:
            self._pending.clear()

    def __enter__(self) -> StreamWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _append_now(self, records: NDArray[np.uint8], priorities: NDArray[np.float64] | None, deadline: float) -> None:
        """The shard is in this process: everything is stored on return, or nothing was taken."""
        before, stored = self._stamp, self._accepted + self._duplicates
        self._gather(records, priorities)
        self._cut()
        self._send(deadline)
        try:
            self._wait(deadline, lambda: not self._pending)
        except HeadraceError as error:
            partly = self._accepted + self._duplicates > stored
            if partly and isinstance(error, ReplayTimeout):
                return  # the rest stays in the window
            self._pending.clear()
            if not partly:
                self._stamp = before
            raise

    def _gather(self, records: NDArray[np.uint8], priorities: NDArray[np.float64] | None) -> None:
        if self._gathered and (self._gathered[0][1] is None) != (priorities is None):
            self._cut()
        self._gathered.append((records, priorities))
        self._gathered_rows += len(records)
        idle = len(self._pending) < self._window and all(chunk.call is None for chunk in self._pending)
        if idle or self._gathered_rows >= self._small_rows:
            self._cut()

    def _cut(self) -> None:
        """Turn what was gathered into chunks."""
        if not self._gathered:
            return
        records = np.concatenate([r for r, _ in self._gathered])
        given = [p for _, p in self._gathered if p is not None]
        priorities = np.concatenate(given) if given else None
        self._gathered.clear()
        self._gathered_rows = 0
        for start in range(0, len(records), self._chunk_rows):
            part = slice(start, start + self._chunk_rows)
            values = priorities[part] if priorities is not None else None
            self._pending.append(_Chunk(InsertRequest(records[part], values, self._stamp, 0.0)))
            self._stamp = self._stamp._replace(sequence=self._stamp.sequence + 1)

    def _send(self, deadline: float) -> None:
        """Send what has not been sent; while something is in trouble only the oldest, so that it does not pile up.

        The shard lets a chunk wait no longer than the caller would, and answers before the caller gives up.
        """
        wait_s = min(max(deadline - self._clock.now(), 0.0) * _SHARE_OF_WAIT, LONGEST_WAIT_S)
        for chunk in self._pending:
            if chunk.call is None:
                chunk.call = self._port.insert(replace(chunk.request, wait_s=wait_s))
            if self._trouble is not None:
                break

    def _collect(self) -> None:
        """Take in every reply that is there; raises what ends the writer."""
        if self._failure is not None:
            raise self._failure
        for chunk in list(self._pending):
            if chunk.call is None or not chunk.call.done():
                continue
            try:
                reply = chunk.call.result(0.0)
            except Unavailable as error:
                chunk.call, chunk.lost, self._trouble, self.blocked_on = None, True, error, "reply"
                continue
            except StaleEpoch as error:
                self._failure = error
                self._pending.clear()
                raise
            except HeadraceError:
                self._pending.remove(chunk)
                raise
            if reply.blocked_on is not None:
                chunk.call, self.blocked_on = None, reply.blocked_on
                self._trouble = ReplayTimeout(
                    f"the rate limiter of shard {self.shard} waits for more {reply.blocked_on}", reply.blocked_on
                )
                continue
            self._trouble = None
            self._pending.remove(chunk)
            self._accepted += reply.accepted
            self._duplicates += reply.duplicates

    def _wait(self, deadline: float, ready: Callable[[], bool]) -> None:
        """Until ready; raises ReplayTimeout or Unavailable at the deadline."""
        started = self._clock.now()
        try:
            while True:
                self._collect()
                if ready():
                    return
                remaining = deadline - self._clock.now()
                if remaining <= (_LAST_S if self._trouble is not None else 0.0):
                    raise self._trouble or ReplayTimeout(
                        f"shard {self.shard} has not acknowledged {len(self._pending)} chunks yet", "reply"
                    )
                if self._trouble is not None and not self._port.synchronous:
                    self._clock.sleep(min(remaining, self._backoff.uniform(0.2, 1.0) * _BACKOFF_S))
                self._send(deadline)
                self._await_head(deadline)
        finally:
            self.seconds_blocked += self._clock.now() - started

    def _await_head(self, deadline: float) -> None:
        call: Call[Any] | None = self._pending[0].call if self._pending else None
        if call is None:
            return
        try:
            call.result(max(deadline - self._clock.now(), 0.0))
        except HeadraceError:
            return  # `_collect` looks at every finished call, this one too
