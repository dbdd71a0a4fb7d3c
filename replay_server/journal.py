"""The journal of a shard: what changed it, on disk before it is acknowledged."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from replay_server.disk import Disk, OsDisk, Part
from replay_server.errors import ConfigError, JournalError, StorageFull
from replay_server.group_commit import GroupCommit
from replay_server.messages import Stamp
from replay_server.occupancy import Occupancy
from replay_server.recovery import RecoveredMarks, RecoveredTable, Recovery
from replay_server.replay import JournalStats
from replay_server.retention import Retention, Segment
from replay_server.segment_file import SegmentFile
from replay_server.segments import (
    LEVELS,
    Counters,
    Head,
    Identity,
    Kind,
    State,
    pack_entry,
    pack_epoch,
    pack_head,
    pack_insert,
    pack_slots,
    pack_state,
)
from replay_server.specs import RecordSpec
from replay_server.table import Checked

_DIRECTORY = "journal"
_NAME = re.compile(r"(\d{10})\.log")
_LARGEST, _SMALLEST = 64 * 2**20, 2**18
_MOSTLY_ENTRIES = 4
"""A segment grows to this many times its first entry at least: the state of many writers is large."""


@dataclass(frozen=True)
class Recovered:
    """What a journal gave back.

    Attributes:
        counters: as of the last entry; None when none was later than the snapshot, whose counters then hold.
        records: live ones now in the table.
        truncated_bytes: of a write that was under way when the shard ended, cut off the last segment.
        skipped_entries, skipped_bytes: left out by salvage: entries known to be missing, and bytes.
        damaged: names of segments salvage left something out of. While there are any, the next start without salvage
            refuses the journal: take a snapshot at once (`begin_snapshot`, `forget_before`).
    """

    counters: Counters | None
    records: int
    truncated_bytes: int
    skipped_entries: int
    skipped_bytes: int
    damaged: tuple[str, ...]


class Journal:
    """An append-only log in segment files. One caller at a time (the shard's lock); `wait_durable` from any thread.

    Use: `open`, then `recover` (also of an empty directory), then the rest, `close` at the end.

    Attributes:
        level: `journal` (entries survive the process) or `fsync` (also a power loss, once `wait_durable` returns).
        position: lsn of the last entry, 0 when there is none.
        trouble: why its shard could not take the last snapshot of it; None after one that it could.
    """

    def __init__(self, directory: str, identity: Identity, level: str, disk: Disk, *, salvage: bool, size: int) -> None:
        self.level = level
        self.position = 0
        self.trouble: str | None = None
        self._directory = directory
        self._identity = identity
        self._disk = disk
        self._salvage = salvage
        self._segment_bytes = size
        self._full_at = size  # of the segment being written
        self._occupancy = Occupancy(identity.capacity)
        self._kept = Retention(self._occupancy)
        self._file: SegmentFile | None = None  # the newest segment, once something was written
        self._marks: RecoveredMarks | None = None
        self._counters = Counters()  # of the last entry
        self._held_back = Counters()  # after the last removal that waits to be written
        self._number = 0  # of the newest segment, there or deleted
        self._commit: GroupCommit | None = None
        self._lock = self._take()

    @staticmethod
    def open(
        directory: str,
        spec: RecordSpec,
        shard: int,
        capacity: int,
        level: str = "journal",
        *,
        disk: Disk | None = None,
        salvage: bool = False,
        segment_bytes: int | None = None,
    ) -> Journal:
        """Take `directory`/journal (made when missing) for this process.

        Args:
            segment_bytes: a new file is begun beyond this; by default an eighth of the full table, within
                256 KiB and 64 MiB.

        Raises:
            ConfigError: an unknown level, or another process holds the directory.
            StorageFull: the directory cannot be made.
        """
        if level not in LEVELS:
            raise ConfigError(f"durability level {level!r} is unknown to a journal: use {' or '.join(LEVELS)}")
        size = min(max(capacity * spec.record_size // 8, _SMALLEST), _LARGEST)
        return Journal(
            os.path.join(directory, _DIRECTORY),
            Identity(spec, shard, capacity),
            level,
            disk or OsDisk(),
            salvage=salvage,
            size=segment_bytes or size,
        )

    @property
    def base(self) -> Path:
        """Where its shard keeps the snapshot that the segments build on."""
        return Path(self._directory).parent / "base.h5"

    @property
    def bytes(self) -> int:
        """Of the segments that no snapshot makes needless."""
        return self._kept.bytes

    @property
    def garbage_ratio(self) -> float:
        """The share of `bytes` that tells of records nobody can draw any more; 0 for an empty journal."""
        return self._kept.garbage_ratio

    @property
    def overhead_bytes(self) -> int:
        """Memory held for as long as the journal is open."""
        return self._occupancy.nbytes

    @property
    def pending_removals(self) -> int:
        """Removed records whose removal waits for the disk: after a crash they would be there again."""
        return self._occupancy.pending

    @property
    def failed(self) -> bool:
        """Nothing is accepted any more until a restart."""
        return self._commit is not None and self._commit.failure is not None

    def recover(
        self, table: RecoveredTable, marks: RecoveredMarks, after: int = 0, counters: Counters | None = None
    ) -> Recovered:
        """Apply every entry later than lsn `after`: 0, or the position of the snapshot that was read into both.

        The journal asks `marks` for its contents whenever it begins a segment; `counters` are the snapshot's.

        Raises:
            JournalError: damaged (the message names segment, offset and remedy), incomplete, or of another spec,
                shard or format. Table and marks are then to be thrown away.
        """
        recovery = Recovery(
            self._disk, self._identity, table, marks, self._occupancy, after, self.level == "fsync", self._salvage
        )
        if after:
            self._occupancy.from_snapshot(table.slots.holding())
        numbers = self._numbers()
        for number in numbers:
            newest = number == numbers[-1]
            if number - 1 not in numbers and number != numbers[0] and not self._salvage:
                raise JournalError(
                    f"{self._path(number - 1)}: missing; bring it back, or to go on without: "
                    "headrace serve-replay CONFIG --salvage"
                )
            segment = recovery.read(self._path(number), number, oldest=number == numbers[0], newest=newest)
            if segment is not None:
                self._kept.segments.append(segment)
                self._number = number
        missing = recovery.missing(self._directory)
        if missing is not None and not self._salvage:
            raise JournalError(missing)
        if missing is not None and self._kept.segments and not any(s.damaged for s in self._kept.segments):
            self._kept.segments[0].damaged = True  # what it continues is not there
        self.position = max(recovery.lsn, after)
        self._marks, self._kept.base, self._kept.last_removal = marks, after, recovery.last_removal
        self._counters = recovery.counters or counters or Counters()
        self._number = max(self._number, numbers[-1] - 1 if numbers else 0)
        if self.level == "fsync":
            self._sync_recovered()
            self._commit = GroupCommit(self._disk, self.position)
        return Recovered(
            recovery.counters,
            self._occupancy.size,
            recovery.truncated_bytes,
            recovery.skipped_entries,
            recovery.skipped_bytes,
            tuple(os.path.basename(s.path) for s in self._kept.segments if s.damaged),
        )

    def insert(
        self, slots: NDArray[np.int64], rows: Checked, stamp: Stamp | None, counters: Counters, *, priority: float
    ) -> int:
        """Write an insert of B checked rows into `slots` int64[B]; `priority` is for rows without priorities.

        Call it before anything is changed. Returns its lsn.

        Raises:
            StorageFull: nothing was changed; try again later.
            JournalError: the journal takes nothing more until its disk is repaired, or for good after a failed fsync.
        """
        self._write_removals()
        payload = pack_insert(slots, rows, stamp, priority, self._identity.capacity)
        self._append(Kind.INSERT, self._occupancy.size_with(slots), counters, payload)
        self._occupancy.store(slots, self._number)
        self._kept.segments[-1].rows += len(slots)
        self.collect()
        return self.position

    def remove(self, slots: NDArray[np.int64], counters: Counters) -> None:
        """Records left the table. Never fails: what cannot be written now is written before the next entry."""
        try:
            self._write_removals()
            self._append(Kind.REMOVE, self._occupancy.size - len(slots), counters, pack_slots(slots))
        except (StorageFull, JournalError):
            self._occupancy.hold_back(slots)
            self._held_back = counters
            return
        self._occupancy.remove(slots)
        self._kept.last_removal = self.position
        self.collect()

    def clear(self, counters: Counters) -> int:
        """Every record leaves the table; returns and raises as `insert`."""
        self._append(Kind.CLEAR, 0, counters, [])
        self._occupancy.clear()
        self._kept.last_removal = self.position
        self.collect()
        return self.position

    def open_epoch(self, writer_id: int, epoch: int, counters: Counters) -> int:
        """A writer opens an epoch and older ones are refused; returns and raises as `insert`."""
        self._write_removals()
        self._append(Kind.EPOCH, self._occupancy.size, counters, pack_epoch(writer_id, epoch))
        return self.position

    def stats(self) -> JournalStats:
        """For people and monitors."""
        commit = self._commit
        syncs, seconds = (0, 0.0) if commit is None else (commit.syncs, commit.sync_seconds)
        trouble = self.trouble if commit is None else commit.failure or self.trouble
        return JournalStats(self.bytes, self.garbage_ratio, self.pending_removals, syncs, seconds, trouble)

    def wait_durable(self, lsn: int, timeout_s: float) -> None:
        """Until entry `lsn` survives a power loss; at level `journal` at once. Not under the shard's lock.

        Raises:
            ReplayTimeout: not within `timeout_s`, blocked on `disk`.
            JournalError: the disk failed to write back; the entry may or may not be there after a restart.
        """
        if self._commit is not None:
            self._commit.wait(lsn, timeout_s)

    def adopt(self, slots: NDArray[np.int64], counters: Counters) -> None:
        """The shard of this empty journal was restored from elsewhere and these slots hold records.

        A snapshot has to follow before anything else is written.
        """
        assert self.position == 0, "the journal holds something already"
        self._occupancy.from_snapshot(slots)
        self._counters = counters

    def begin_snapshot(self) -> int:
        """The position a snapshot captured now stands for: in one step with the capture.

        Segments with later entries are kept until `forget_before` of it, or `abandon_snapshot`.

        Raises:
            StorageFull, JournalError: removals that wait to be written cannot be.
        """
        self._write_removals()
        if self.position == 0:  # which would mean that there is no snapshot; a segment would miss its records till then
            self.position = 1
            if self._commit is not None:
                self._commit.skip(1)
        self._kept.pinned = self.position
        return self.position

    def abandon_snapshot(self) -> None:
        """The snapshot begun last will not be finished."""
        self._kept.pinned = None

    def forget_before(self, lsn: int) -> None:
        """The snapshot of position `lsn` is on disk for good: `collect` deletes what it covers."""
        self._kept.base = max(self._kept.base, lsn)
        self._kept.pinned = None

    def collect(self) -> bool:
        """Delete the oldest segment when nobody needs it: one a call, since a large file takes milliseconds.

        Every entry does so too; True when there was one.
        """
        needless = self._kept.needless(self.position, self._durable, writing=self._file is not None)
        if needless is None:
            return False
        try:
            if needless.damaged:
                self._disk.rename(needless.path, needless.path + ".damaged")
            else:
                self._disk.unlink(needless.path)
        except FileNotFoundError:
            pass
        except OSError:
            return False  # stays there; tried again with the next entry
        self._kept.drop_oldest()
        if self._commit is not None:
            self._sync_names()
        return True

    def close(self) -> None:
        """Write back what was written and let go of the directory; the files stay."""
        if self._commit is not None:
            self._commit.close()
        if self._file is not None:
            self._file.close()
        self._disk.close(self._lock)

    def check_valid(self) -> None:
        """Check every invariant; raises AssertionError."""
        self._occupancy.check_valid()

    def _path(self, number: int) -> str:
        return os.path.join(self._directory, f"{number:010d}.log")

    def _take(self) -> int:
        try:
            self._disk.makedirs(self._directory)
            return self._disk.lock(os.path.join(self._directory, "lock"))
        except BlockingIOError:
            raise ConfigError(
                f"{self._directory}: another shard is using it: stop that one, or give this one its own directory"
            ) from None
        except OSError as error:
            raise StorageFull(f"{self._directory}: cannot be made: {error.strerror}") from None

    def _numbers(self) -> list[int]:
        try:
            names = self._disk.list(self._directory)
        except OSError as error:
            raise JournalError(f"{self._directory}: cannot be read: {error.strerror}") from None
        return sorted(int(found[1]) for found in map(_NAME.fullmatch, names) if found)

    def _sync_recovered(self) -> None:
        """What is read is built upon, so it has to stay: a killed process may have left it in the page cache."""
        try:
            for segment in self._kept.segments:
                handle = self._disk.open(segment.path)
                try:
                    self._disk.fsync(handle)
                finally:
                    self._disk.close(handle)
            self._disk.fsync_dir(self._directory)
        except OSError as error:
            raise JournalError(f"{self._directory}: the disk failed to write back: {error.strerror}") from None

    def _write_removals(self) -> None:
        if self._occupancy.pending:
            slots = self._occupancy.held_back()
            self._append(Kind.REMOVE, self._occupancy.size, self._held_back, pack_slots(slots))
            self._occupancy.written(slots)
            self._kept.last_removal = self.position

    def _append(self, kind: Kind, live: int, counters: Counters, payload: list[Part]) -> None:
        """Write one entry, in a new segment where the last is full; all of it or, on an error, nothing."""
        assert self._marks is not None, "recover first"
        if self._commit is not None:
            self._commit.check()
        if self._file is None or self._file.size >= self._full_at:
            self._roll()
        assert self._file is not None
        segment, lsn = self._kept.segments[-1], self.position + 1
        header = pack_entry(kind, lsn, self._durable, live, counters, payload)
        try:
            self._file.append([header, *payload])
        except OSError as error:
            raise self._full(error) from None
        segment.size, segment.last, self.position = self._file.size, lsn, lsn
        self._counters = counters
        if self._commit is not None:
            self._commit.written(lsn)

    @property
    def _durable(self) -> int:
        """lsn of the last entry that is acknowledged or may be."""
        return self.position if self._commit is None else self._commit.durable

    def _full(self, error: OSError) -> StorageFull:
        self.collect()  # what nobody needs may be what fills the disk
        return StorageFull(
            f"{self._directory}: the journal cannot be written: {error.strerror}; nothing was stored, inserts go on "
            "when there is room on this disk"
        )

    def _roll(self) -> None:
        """Begin a segment with the shard's state, so that those before it may go.

        At level `fsync` what came before is written back first: only the newest segment can be torn by a power loss.
        """
        assert self._marks is not None
        if self._file is not None:
            self._file.mend()
        if self._commit is not None:
            self._commit.sync()
        number, lsn = self._number + 1, self.position + 1
        payload = pack_state(State(self._marks.to_json(), self._kept.base))
        live = self._occupancy.size + self._occupancy.pending  # as the entries say so far
        head = pack_head(self._identity, Head(number, self._kept.last, self._identity.capacity, self.level))
        parts = [head, pack_entry(Kind.STATE, lsn, self._durable, live, self._counters, payload), *payload]
        path = self._path(number)
        try:
            file = SegmentFile.create(self._disk, path, parts, fsync=self._commit is not None)
        except OSError as error:
            raise self._full(error) from None
        if self._commit is not None:
            self._commit.follow(file.handle)
        if self._file is not None:
            self._file.close()
        self._file, self._number, self.position = file, number, lsn
        self._kept.segments.append(Segment(number, path, file.size, lsn))
        self._full_at = max(self._segment_bytes, _MOSTLY_ENTRIES * file.size)
        if self._commit is not None:
            self._sync_names()
            self._commit.check()
            self._commit.written(lsn)

    def _sync_names(self) -> None:
        assert self._commit is not None
        try:
            self._disk.fsync_dir(self._directory)
        except OSError as error:
            self._commit.fail(f"{self._directory}: the disk failed to write back: {error.strerror}")
