"""One shard: a table that many threads share, its rate limiter, its memory of writers and its journal."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from replay_server.capture import Capture, before_image_rows
from replay_server.clock import Clock, SystemClock
from replay_server.errors import (
    CheckpointError,
    ConfigError,
    Deadlocked,
    InvalidRecord,
    ReplayTimeout,
    StaleEpoch,
)
from replay_server.journal import Journal, Recovered
from replay_server.messages import (
    InsertReply,
    InsertRequest,
    SampleReply,
    SampleRequest,
    Stamp,
    UpdateReply,
    UpdateRequest,
    View,
)
from replay_server.rate_limiter import RateLimiter
from replay_server.replay import ShardStats, SnapshotStats
from replay_server.resharding import read_share
from replay_server.segments import Counters
from replay_server.snapshot import PACE, Rests, ShardMeta, read_snapshot, write_snapshot
from replay_server.stand_still import StandStill
from replay_server.table import Checked, Drawn, Table
from replay_server.waiting import WaitingRoom
from replay_server.writer_marks import Standing, WriterMarks

_OTHER_SAVE_S = 60.0
_DURABLE_S = 2.0
"""How long an acknowledgement waits for the disk at level `fsync`; the writer then asks again."""
_MOST_CREDIT = 2.0**40
"""Of one call: far beyond any batch, and far below where adding one more to a float64 is lost."""
_NOTHING = np.zeros(0, np.int64)


class _Cut(NamedTuple):
    """The moment a snapshot stands for, and how long everybody had to stand still for it."""

    capture: Capture
    meta: ShardMeta
    begin: float
    pause_s: float


class Shard:
    """Thread-safe; every wait has a deadline and a stated reason.

    At most `max_waiters` inserts, for the limiter or for the disk, and as many samples wait at a time, so that blocked
    callers never take every thread of a server; one more is answered `blocked` at once and has to come back.

    With a journal every insert, opened epoch and removal is written to it before it is acknowledged; `recover` first.

    Args:
        table: owned by the shard from now on.
        limiter: who may go on; by default one record is enough to sample and inserts never wait.
        journal: opened for this table's spec, capacity and shard; None keeps everything in memory only.
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
        journal: Journal | None = None,
        address: str = "in-process",
        max_waiters: int = 12,
        clock: Clock | None = None,
    ) -> None:
        self.limiter = limiter or RateLimiter()
        self.limiter.check_table(table.capacity, table.max_times_sampled)
        self.table = table
        self.address = address
        self._journal = journal
        self._clock: Clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._inserts = WaitingRoom(self._lock, max_waiters, self._clock)
        self._samples = WaitingRoom(self._lock, max_waiters, self._clock)
        self._saving = threading.Lock()
        self._stopping = threading.Event()
        self._writers = WriterMarks()
        self._stand_still = StandStill()
        self._inserted = 0
        self._sampled = 0.0
        self._fenced = 0
        self._snapshots = SnapshotStats()
        self._duplicates = self._drawn = self._updated = self._stale = 0

    @property
    def durability(self) -> str:
        """The level at which inserts are acknowledged."""
        return "checkpoint" if self._journal is None else self._journal.level

    def insert(self, request: InsertRequest) -> InsertReply:
        """Store a chunk as soon as the limiter lets it, within `wait_s`.

        A reply blocked on `disk` (level `fsync`) leaves open whether it is stored: send it again to know.

        Raises:
            InvalidRecord: the chunk is wrong in some way; nothing was changed.
            StaleEpoch: its writer was replaced by a newer epoch; counted in `fenced`.
            WriterEvicted: its writer is no longer remembered.
            StorageFull: the journal's disk is full; nothing was changed.
            JournalError: the journal takes nothing any more.
            Deadlocked: inserts and samples wait for each other.
        """
        rows = self.table.check(request.records, request.priorities)
        count = len(rows.records)
        with self._lock:
            known = False
            if self._inserts.elsewhere and self._inserts.full:
                return InsertReply(0, 0, self._inserts.reason or "disk", self._view(), turned_away=True)

            def blocked() -> str | None:
                nonlocal known
                known = request.stamp is not None and not self._admit(request.stamp, count)
                return None if known else self._blocks_insert(count)

            full = self._inserts.full
            reason = self._wait(self._inserts, blocked, request.wait_s)
            if reason is not None:
                return InsertReply(0, 0, reason, self._view(), turned_away=full)
            if known:
                self._duplicates += count
            else:
                self._store(rows, request.stamp)
            reply = InsertReply(0 if known else count, count if known else 0, None, self._view())
            if self._journal is None or self._journal.level != "fsync":
                return reply
            written = self._journal.position
            self._inserts.elsewhere += 1
        try:
            self._journal.wait_durable(written, _DURABLE_S)
        except ReplayTimeout:
            return InsertReply(0, 0, "disk", reply.view)
        finally:
            with self._lock:
                self._inserts.elsewhere -= 1
        return reply

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
        _check_credit("sample credit", request.credit)
        counts = request.counts.tolist()  # lists are faster for so few numbers
        if min(counts, default=0) < 0:
            raise InvalidRecord("a batch of a sample request has a negative count")
        rows = sum(counts)
        with self._lock:
            applied, stale = self._update(request.updates.keys, request.updates.priorities)

            def blocked() -> str | None:
                return self._blocks_sample(rows, request.credit)

            massless = self.table.size >= self.limiter.min_size and self.table.mass <= 0.0
            wait_s = 0.0 if massless else request.wait_s  # its client then turns to the other shards
            reason = self._wait(self._samples, blocked, wait_s)
            view = self._view()
            drawn = self._draw(request.counts, rows, into) if reason is None else self._draw(_NOTHING, 0, into)
            if reason is None and request.credit > 0.0:
                self._sampled += request.credit
                view = view._replace(sampled=self._sampled)
                self._moved(self._inserts)
            return SampleReply(drawn.records, drawn.keys, drawn.probabilities, applied, stale, reason, view)

    def update(self, request: UpdateRequest) -> UpdateReply:
        """Apply priorities; take back credits of samples nobody will read."""
        _check_credit("returned credit", request.returned)
        with self._lock:
            applied, stale = self._update(request.updates.keys, request.updates.priorities)
            if request.returned > 0.0:
                self._sampled = max(self._sampled - request.returned, 0.0)
                self._moved(self._samples)
            return UpdateReply(applied, stale, self._view())

    def stats(self) -> ShardStats:
        with self._lock:
            return ShardStats(
                address=self.address,
                size=self.table.size,
                capacity=self.table.capacity,
                inserted=self._inserted,
                sampled=self._sampled,
                priority_mass=self.table.mass,
                fenced=self._fenced,
                blocked_on=self._samples.reason or self._inserts.reason,
                shard=self.table.shard,
                level=self.durability,
                duplicates=self._duplicates,
                drawn=self._drawn,
                updated=self._updated,
                stale=self._stale,
                waits={**self._inserts.waits(), **self._samples.waits()},
                snapshots=self._snapshots,
                journal=None if self._journal is None else self._journal.stats(),
            )

    def clear(self) -> View:
        """Remove every record; counters and writer marks stay.

        Raises:
            StorageFull: the journal's disk is full; nothing was changed.
        """
        with self._lock:
            if self._journal is not None:
                self._journal.clear(self._counters())
            self.table.clear()
            self._moved(self._inserts)
            return self._view()

    def check_valid(self) -> None:
        with self._lock:
            self.table.check_valid()

    def save(self, path: str, *, pace: float = 0.0) -> None:
        """Write everything as of now into one HDF5 file, while inserts and samples go on.

        Inserts wait, with the reason `snapshot`, only where they would overwrite more than can be kept aside.

        Args:
            path: of the file, made beside and renamed.
            pace: seconds of rest for every second of work; 0 where nobody else wants the processor.

        Raises:
            CheckpointError: it cannot be written, or another one is being written.
        """
        self.begin_save(path, pace=pace)()

    def begin_save(self, path: str, *, pace: float = 0.0, patience_s: float = _OTHER_SAVE_S) -> Callable[[], None]:
        """The moment of a `save`; what is returned writes it and has to be called once, from any thread.

        Args:
            path, pace: as of `save`.
            patience_s: how long another snapshot is waited for.

        Raises:
            CheckpointError: another one is being written.
        """
        return self._begin_snapshot(path, pace, patience_s=patience_s)

    def preload(self, records: NDArray[np.uint8]) -> None:
        """Take in records of a log, uint8[B, record_size], with equal priorities.

        They count neither as inserted nor as sampled: the law, and schedules, are about what this shard's writers do.
        A shard with a journal has to be empty, and has `journal_preloaded` called before anything else.

        Raises:
            InvalidRecord: they are wrong in some way; nothing was changed.
            ConfigError: there is no room for them, or the journal holds something already.
        """
        self._refuse_used_journal("init_from")
        rows = self.table.check(records, None)
        with self._lock:
            if self.table.size + len(records) > self.table.capacity:
                raise ConfigError(
                    f"init_from: holds more records than the shard's capacity of {self.table.capacity}; raise capacity"
                )
            self.table.store(rows, self.table.room_for(len(records)))
            self._moved(self._samples)

    def restore(self, path: str, *, keep_incarnation: bool = False) -> None:
        """Become what was saved. A shard with a journal has to be empty, and starts its journal from there.

        Args:
            path: a file made by `save`, of the same spec, settings and shard.
            keep_incarnation: keys handed out before the save stay good; only when nothing happened to that shard
                after it (resume of a serial run).

        Raises:
            CheckpointError: missing, damaged, or of another kind; nothing was changed.
            ConfigError: the journal holds something already.
        """
        self._restore(lambda: read_snapshot(path, self.table, keep_incarnation=keep_incarnation), path)

    def restore_share(self, paths: Sequence[str], *, part: int, parts: int) -> None:
        """Become one share of what another number of shards saved together; see `read_share`.

        Raises:
            CheckpointError: a file is missing, damaged or of another kind; nothing was changed.
            ConfigError: the journal holds something already.
        """
        self._restore(lambda: read_share(paths, self.table, part=part, parts=parts), paths[0])

    def journal_preloaded(self) -> None:
        """Have the journal, still empty, begin with what was preloaded."""
        assert self._journal is not None
        with self._lock:
            self._journal.adopt(self.table.slots.holding(), self._counters())
        self.compact()

    def recover(self) -> Recovered:
        """Become what the journal, and the base snapshot it builds on, say. Before anything else, also when empty.

        Raises:
            JournalError, CheckpointError: damaged or of another kind.
        """
        assert self._journal is not None
        base, after = self._journal.base, 0
        with self._lock:
            if base.exists():
                meta = read_snapshot(str(base), self.table)
                self._become(meta)
                after = meta.position
            recovered = self._journal.recover(self.table, self._writers, after, self._counters())
            if recovered.counters is not None:
                self._inserted, self._sampled, self._fenced = recovered.counters
        if recovered.damaged:  # the damage must not be met again
            self.compact()
        return recovered

    def compact(self) -> None:
        """Take a snapshot for the journal to build on, and delete the segments it makes needless.

        Raises:
            CheckpointError: it cannot be written; the journal stays as it is, and its stats say why until one can.
        """
        assert self._journal is not None
        try:
            self._begin_snapshot(str(self._journal.base), PACE, self._journal)()
        except Exception as error:
            self._journal.trouble = f"cannot be shortened: {str(error) or type(error).__name__}"
            raise
        self._journal.trouble = None
        deleted = True
        while deleted:
            with self._lock:
                deleted = self._journal.collect()

    def journal_is_mostly_dead(self, least_bytes: int, dead_share: float) -> bool:
        """Whether more than this share of a journal of at least so many bytes is not needed any more."""
        journal = self._journal
        return journal is not None and journal.bytes >= least_bytes and journal.garbage_ratio > dead_share

    @property
    def failed(self) -> bool:
        """The journal takes nothing any more, whatever happens: this shard has to be restarted."""
        return self._journal is not None and self._journal.failed

    def stop_saving(self) -> None:
        """A snapshot under way ends soon, with CheckpointError, and none is begun any more: the shard is stopping."""
        self._stopping.set()

    def close(self) -> None:
        """Let go of the journal."""
        if self._journal is not None:
            self._journal.close()

    def _refuse_used_journal(self, asked: str) -> None:
        if self._journal is not None and self._journal.position > 0:
            raise ConfigError(
                f"{asked}: the journal of this shard holds data already; start without it to go on with the journal, "
                "or with another, empty directory"
            )

    def _restore(self, read: Callable[[], ShardMeta], path: str) -> None:
        self._refuse_used_journal(f"restore_from: {path}")
        with self._lock:
            self._become(read())
            if self._journal is not None:
                self._journal.adopt(self.table.slots.holding(), self._counters())
            self._moved(self._inserts, self._samples)
        if self._journal is not None:
            self.compact()

    def _begin_snapshot(
        self, path: str, pace: float, base_of: Journal | None = None, patience_s: float = _OTHER_SAVE_S
    ) -> Callable[[], None]:
        """The cut; what is returned writes it, once."""
        if not self._saving.acquire(timeout=patience_s):
            raise CheckpointError(f"{path}: this shard has been saving itself elsewhere for {patience_s:g} s")
        try:
            capture = Capture(self.table, before_image_rows(self.table.capacity, self.table.spec.record_size))
            with self._lock:
                begin = self._clock.now()
                position = 0 if base_of is None else base_of.begin_snapshot()
                capture.begin()
                meta = ShardMeta(*self._counters(), self._writers.to_json(), position)
                cut = _Cut(capture, meta, begin, self._clock.now() - begin)
        except BaseException:
            self._saving.release()
            raise
        return partial(self._write_snapshot, path, pace, cut, base_of)

    def _write_snapshot(self, path: str, pace: float, cut: _Cut, base_of: Journal | None) -> None:
        written, rests = False, Rests(pace, self._clock, self._stopping)
        try:
            write_snapshot(path, cut.capture, self._inserts.changed, cut.meta, rests)
            written = True
        finally:
            with self._lock:
                cut.capture.end()
                self._inserts.notify()
                if written:
                    self._note_snapshot(self._clock.now() - cut.begin, cut.pause_s)
                if base_of is not None:
                    base_of.forget_before(cut.meta.position) if written else base_of.abandon_snapshot()
            self._saving.release()

    def _note_snapshot(self, seconds: float, pause_s: float) -> None:
        last = self._snapshots
        longest = max(last.longest_pause_s, pause_s)
        self._snapshots = SnapshotStats(last.taken + 1, last.seconds + seconds, longest)

    def _become(self, meta: ShardMeta) -> None:
        self._writers.load(meta.writers)
        self._inserted, self._sampled, self._fenced = meta.inserted, meta.sampled, meta.fenced

    def _store(self, rows: Checked, stamp: Stamp | None) -> None:
        """The journal first: when it refuses, nothing has changed."""
        count = len(rows.records)
        slots = self.table.room_for(count)
        if self._journal is not None:
            after = self._counters()._replace(inserted=self._inserted + count)
            self._journal.insert(slots, rows, stamp, after, priority=self.table.default_priority)
        self.table.store(rows, slots)
        if stamp is not None:
            self._writers.add(stamp)
        self._inserted += count
        self._moved(self._samples)

    def _draw(self, counts: np.ndarray, rows: int, into: Callable[[int], Drawn] | None) -> Drawn:
        self._drawn += rows
        drawn = self.table.sample(counts, into(rows) if into is not None and rows else None)
        if len(drawn.removed):
            if self._journal is not None:
                self._journal.remove(drawn.removed.astype(np.int64), self._counters())
            self._moved(self._inserts)
        return drawn

    def _admit(self, stamp: Stamp, rows: int) -> bool:
        """False for a chunk stored already; opens the writer of a first chunk."""
        try:
            standing = self._writers.standing(stamp)
        except StaleEpoch:
            self._fenced += rows
            raise
        if standing is Standing.OPENING:
            if self._journal is not None:
                self._journal.open_epoch(stamp.writer_id, stamp.epoch, self._counters())
            self._writers.open(stamp.writer_id, stamp.epoch)
        return standing is not Standing.STORED

    def _update(self, keys: np.ndarray, priorities: np.ndarray) -> tuple[int, int]:
        if len(keys) == 0 and len(priorities) == 0:
            return 0, 0
        applied, stale = self.table.update_priorities(keys, priorities)
        self._updated += applied
        self._stale += stale
        if applied:  # a record may have got its first priority above zero
            self._moved(self._samples)
        return applied, stale

    def _blocks_insert(self, rows: int) -> str | None:
        reason = self.limiter.blocks_insert(self.table.size, self._inserted, self._sampled, rows)
        if (
            reason is None
            and self.table.capture is not None
            and not self.table.capture.room_for(self.table.room_for(rows))
        ):
            return "snapshot"
        return reason

    def _blocks_sample(self, rows: int, credit: float) -> str | None:
        if rows == 0 and credit == 0.0:
            return None
        reason = self.limiter.blocks_sample(self.table.size, self._inserted, self._sampled, rows)
        if reason == "inserts" and credit == 0.0:
            reason = None
        if reason is None and rows and (self.table.mass <= 0.0 or rows > self.table.draws_left):
            return "inserts"
        return reason

    def _wait(self, side: WaitingRoom, blocked: Callable[[], str | None], wait_s: float) -> str | None:
        reason = side.wait(blocked, wait_s)
        if reason is not None and self._stand_still.blocked(reason, self._clock.now()):
            raise Deadlocked(
                f"the shard at {self.address} can neither insert (waits for samples) nor sample (waits for inserts), "
                f"and nothing has moved for seconds: {self.table.size} records of priority mass {self.table.mass:g}; "
                "raise a priority above zero, ask for smaller batches, or clear it"
            )
        return reason

    def _moved(self, *sides: WaitingRoom) -> None:
        self._stand_still.moved()
        for side in sides:
            side.notify()

    def _counters(self) -> Counters:
        return Counters(self._inserted, self._sampled, self._fenced)

    def _view(self) -> View:
        return View(self.table.mass, self.table.size, self._inserted, self._sampled)


def _check_credit(name: str, credit: float) -> None:
    if not 0.0 <= credit <= _MOST_CREDIT:
        raise InvalidRecord(f"{name} is {credit}, must be between 0 and {_MOST_CREDIT:g}")
