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
from replay_server.errors import (
    HeadraceError,
    JournalError,
    ReplayTimeout,
    StaleEpoch,
    StorageFull,
    Unavailable,
    WriterEvicted,
)
from replay_server.messages import LONGEST_WAIT_S, Call, InsertReply, InsertRequest, ShardPort, Stamp
from replay_server.reasons import WaitTimes, timed_out
from replay_server.replay import Ack, Rows
from replay_server.specs import RecordSpec
from replay_server.writer_marks import MOST_IN_FLIGHT

_CHUNK_ROWS = 4096
_CHUNK_BYTES = 4 << 20
SMALL_ROWS = 256
_CLOSE_S = 1.0
_BACKOFF_S = 0.05
_LONGEST_BACKOFF_S = 1.0
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
    stamp: Stamp
    call: Call[InsertReply] | None = None
    lost: bool = False
    """A call ended without a reply: the chunk may be stored."""

    @property
    def rows(self) -> int:
        return len(self.request.records)


class StreamWriter:
    """Packs rows into stamped chunks and keeps a bounded window of them under way.

    Rows of several small appends travel in one chunk while an earlier chunk is under way, so a fast writer of few rows
    does not pay for a call each time. A chunk that was blocked or lost is sent again, to this shard only and with the
    same stamp; the shard stores it once, also when it ended meanwhile and came back under its address. Not thread-safe.

    Args:
        port: the shard.
        stamp: writer id, epoch and the sequence number of the first chunk.
        max_in_flight: chunks under way at most, 1 to 1024 (one append may exceed it by its own length).
        gather_rows: rows of small appends gathered for one chunk; with the window it bounds how far the shard lags.
        clock: of waits.
        waits: where the time spent waiting is noted.
    """

    def __init__(
        self,
        port: ShardPort,
        stamp: Stamp,
        *,
        max_in_flight: int = 8,
        gather_rows: int = SMALL_ROWS,
        clock: Clock | None = None,
        waits: WaitTimes | None = None,
    ) -> None:
        self._port = port
        self._spec = port.hello.spec
        self._stamp = stamp
        self._window = min(max(max_in_flight, 1), MOST_IN_FLIGHT)
        self._small_rows = gather_rows
        self._clock: Clock = clock or SystemClock()
        self._waits = waits or WaitTimes()
        size = self._spec.record_size
        most = port.hello.capacity if port.synchronous else min(_CHUNK_ROWS, max(_CHUNK_BYTES // size, 1))
        self._chunk_rows = min(most, port.hello.capacity)
        self._backoff = np.random.default_rng([stamp.writer_id & 0xFFFFFFFF, stamp.epoch])
        self._pending: deque[_Chunk] = deque()
        self._gathered: list[tuple[NDArray[np.uint8], NDArray[np.float64] | None]] = []
        self._gathered_rows = 0
        self._accepted = self._duplicates = 0
        self._opened = False
        self._failure: HeadraceError | None = None
        self._trouble: HeadraceError | None = None
        self._turned_away = 0
        self._not_before = 0.0
        self.blocked_on: str | None = None
        """What a chunk last waited for: a shard's reason, `disk`, or `reply` when the shard could not be reached."""
        self.refused = 0
        """Of the records that were given up last, those known not to be stored."""
        self.gave_up_for: HeadraceError | None = None
        """Why records were given up last; None when the shard had only not answered yet."""

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
            StorageFull: no room because the shard's disk is full; nothing was taken.
            JournalError: the shard's disk failed; chunks stay under way, until the shard is restarted or `abandon`.
            Unavailable: no room because the shard cannot be reached; nothing was taken.
            StaleEpoch: a newer epoch of this writer exists.
            WriterEvicted: the shard has forgotten this writer: what it has not acknowledged stays unknown.
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
            StorageFull: the shard's disk took none of what was left; it is given up and not stored.
            JournalError, StaleEpoch, WriterEvicted, InvalidRecord: as `append`.
        """
        deadline = self._clock.now() + timeout_s
        try:
            self._collect()
            self._cut()
            self._send(deadline)
            self._wait(deadline, lambda: not self._pending)
        except StorageFull:
            if all(chunk.call is None and not chunk.lost for chunk in self._pending):
                self._give_up()
                raise
        except (ReplayTimeout, Unavailable):
            pass
        return self.abandon()

    def abandon(self) -> Ack:
        """Give up what is still under way, without waiting; counts of records since the last flush."""
        unknown = self._give_up()
        ack = Ack(self._accepted, self._duplicates, unknown, self._port.hello.durability)
        self._accepted = self._duplicates = 0
        return ack

    def close(self) -> None:
        """Flush with a deadline of one second and end; does not raise."""
        try:
            self.flush(timeout_s=_CLOSE_S)
        except HeadraceError:
            self._give_up()

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
            lost = any(chunk.lost for chunk in self._pending)
            if (partly or lost) and isinstance(error, (ReplayTimeout, Unavailable)):
                return  # the rest stays in the window
            if lost:
                raise
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
        parts = [r for r, _ in self._gathered]
        records = parts[0] if len(parts) == 1 else np.concatenate(parts)
        given = [p for _, p in self._gathered if p is not None]
        priorities = np.concatenate(given) if given else None
        self._gathered.clear()
        self._gathered_rows = 0
        for start in range(0, len(records), self._chunk_rows):
            part = slice(start, start + self._chunk_rows)
            values = priorities[part] if priorities is not None else None
            self._pending.append(_Chunk(InsertRequest(records[part], values, self._stamp, 0.0), self._stamp))
            self._stamp = self._stamp._replace(sequence=self._stamp.sequence + 1)

    def _send(self, deadline: float) -> None:
        """Send what has not been sent; while something is in trouble only the oldest, so that it does not pile up.

        The shard lets a chunk wait no longer than the caller would, and answers before the caller gives up. It tells
        apart no more than a few thousand chunks beyond the oldest without an answer, so none is sent further ahead.
        """
        if not self._pending or self._pausing:
            return
        oldest = self._pending[0].stamp.sequence
        wait_s = min(max(deadline - self._clock.now(), 0.0) * _SHARE_OF_WAIT, LONGEST_WAIT_S)
        for chunk in self._pending:
            if chunk.stamp.sequence - oldest >= MOST_IN_FLIGHT:
                break
            if chunk.call is None:
                stamp = chunk.stamp._replace(opens=not self._opened)
                chunk.call = self._port.insert(replace(chunk.request, stamp=stamp, wait_s=wait_s))
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
                chunk.lost = True
                self._put_off(chunk, error, "reply")
                continue
            except StorageFull as error:
                self._put_off(chunk, error, "disk")
                continue
            except (StaleEpoch, WriterEvicted) as error:
                chunk.call, self._failure = None, error
                raise
            except JournalError:  # it was stored before the disk failed, or not: only the shard's next life knows
                chunk.call, chunk.lost = None, True
                raise
            except HeadraceError:
                self._pending.remove(chunk)
                raise
            if reply.blocked_on is not None:
                chunk.lost |= reply.blocked_on == "disk"  # it may be stored
                self._turned_away += reply.turned_away
                self._put_off(chunk, timed_out(reply.blocked_on, self.shard), reply.blocked_on)
                continue
            self._trouble, self._opened = None, True
            self._turned_away = 0
            self._pending.remove(chunk)
            self._accepted += reply.accepted
            self._duplicates += reply.duplicates

    def _put_off(self, chunk: _Chunk, trouble: HeadraceError, reason: str) -> None:
        """It is to be sent again, after a pause that doubles whenever so many wait that the shard turns more away."""
        chunk.call, self._trouble, self.blocked_on = None, trouble, reason
        if not self._port.synchronous:
            longest = min(_BACKOFF_S * 2.0 ** min(max(self._turned_away - 1, 0), 16), _LONGEST_BACKOFF_S)
            self._not_before = self._clock.now() + self._backoff.uniform(0.2, 1.0) * longest

    @property
    def _pausing(self) -> bool:
        return self._trouble is not None and self._clock.now() < self._not_before

    def _give_up(self) -> int:
        """Forget what is not acknowledged; the number of records."""
        gathered, self._gathered_rows = self._gathered_rows, 0
        self._gathered.clear()
        self.refused = gathered + sum(c.rows for c in self._pending if c.call is None and not c.lost)
        unknown = gathered + sum(c.rows for c in self._pending)
        self.gave_up_for, self._trouble = self._trouble, None
        self._pending.clear()
        return unknown

    def _wait(self, deadline: float, ready: Callable[[], bool]) -> None:
        """Until ready; raises ReplayTimeout, StorageFull or Unavailable at the deadline."""
        while True:
            begin = self._clock.now()
            self._collect()
            if ready():
                return
            remaining = deadline - begin
            if remaining <= (_LAST_S if self._trouble is not None else 0.0):
                raise self._trouble or ReplayTimeout(
                    f"shard {self.shard} has not acknowledged {len(self._pending)} chunks yet", "reply"
                )
            reason = self.blocked_on if self._trouble is not None else None
            if self._pausing:
                self._clock.sleep(min(remaining, self._not_before - begin))
            self._send(deadline)
            self._await_head(deadline)
            self._waits.add(reason or "reply", self._clock.now() - begin)

    def _await_head(self, deadline: float) -> None:
        call: Call[Any] | None = self._pending[0].call if self._pending else None
        if call is None:
            return
        try:
            call.result(max(deadline - self._clock.now(), 0.0))
        except HeadraceError:
            return  # `_collect` looks at every finished call, this one too
