"""Reading a journal back: what a crash leaves is cut off, anything else wrong is refused or, by salvage, left out."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from replay_server.disk import Disk
from replay_server.errors import JournalError
from replay_server.messages import Stamp
from replay_server.occupancy import Occupancy
from replay_server.retention import Segment
from replay_server.segments import (
    ENTRY_BYTES,
    HEAD_BYTES,
    Change,
    Clear,
    Counters,
    Damage,
    Entry,
    Epoch,
    Head,
    Identity,
    Insert,
    Kind,
    Remove,
    State,
    find_entry,
    read_change,
    read_entry,
    read_head,
)
from replay_server.table import Checked

_REMEDY = "to go on without what cannot be read: headrace serve-replay CONFIG --salvage"


class RecoveredSlots(Protocol):
    def holding(self) -> NDArray[np.int64]:
        """The slots that hold a record."""


class RecoveredTable(Protocol):
    """What recovery does to a table."""

    @property
    def slots(self) -> RecoveredSlots: ...

    def store(self, rows: Checked, slots: NDArray[np.int64]) -> None: ...

    def remove(self, slots: NDArray[np.int64]) -> None: ...

    def clear(self) -> None: ...


class RecoveredMarks(Protocol):
    """What recovery does to the memory of writers, and what the journal asks of it at the start of a segment."""

    def to_json(self) -> Sequence[Sequence[Any]]:
        """Everything, as JSON values."""

    def load(self, rows: Any) -> None:
        """Become what `to_json` told; raises ValueError or TypeError on anything else."""

    def open(self, writer_id: int, epoch: int) -> None:
        """A writer, or a newer epoch of one, begins."""

    def replay(self, stamp: Stamp) -> None:
        """This chunk was stored; its writer and epoch are open from now on when they were not."""


@dataclass
class Recovery:
    """Applies segments, one after the other, to a table and its marks.

    Attributes:
        after: entries up to this lsn are in the snapshot the table was read from.
        strict: the level asked for is `fsync`, so that no file may be shorter than its header.
        lsn: of the last entry read.
        last_removal: lsn of the last REMOVE or CLEAR applied.
        live: records the shard held after that entry, as it says.
    """

    disk: Disk
    identity: Identity
    table: RecoveredTable
    marks: RecoveredMarks
    occupancy: Occupancy
    after: int
    strict: bool
    salvage: bool
    lsn: int = 0
    last_removal: int = 0
    base: int = 0
    live: int | None = None
    counters: Counters | None = None
    truncated_bytes: int = 0
    skipped_entries: int = 0
    skipped_bytes: int = 0

    def read(self, path: str, number: int, *, oldest: bool, newest: bool) -> Segment | None:
        """Apply one segment; None when there was nothing in it and it has been removed.

        Raises:
            JournalError: damaged, or of something else.
        """
        try:
            data = self.disk.read(path)
        except OSError as error:
            raise JournalError(f"{path}: cannot be read: {error.strerror}") from None
        skipped = self.skipped_bytes, self.skipped_entries
        head = self._head(path, data, number, newest)
        if head is None:
            self._cut(path, data, 0)
            return None
        if not oldest and head.previous != self.lsn:
            if not self.salvage:
                raise JournalError(
                    f"{path}: continues entry {head.previous}, but what comes before it ends at entry {self.lsn}: a "
                    f"segment is missing or cut short; {_REMEDY}"
                )
            self.skipped_entries += max(head.previous - self.lsn, 0)
        self.lsn = head.previous
        size, rows = len(data), 0
        for at, entry, change in self._changes(path, data, head, newest):
            if entry is None or change is None:
                self._cut(path, data, at if at > HEAD_BYTES else 0)
                size = at
                break
            self._apply(number, entry, change)
            rows += len(change.slots) if isinstance(change, Insert) else 0
        if size == HEAD_BYTES and newest:
            return None
        return Segment(number, path, size, self.lsn, rows, (self.skipped_bytes, self.skipped_entries) != skipped)

    def missing(self, directory: str) -> str | None:
        """What to say when records the shard had are neither in the segments nor in its snapshot."""
        if self.base > self.after:
            return (
                f"{directory}: continues the snapshot at entry {self.base}, but was given one at entry {self.after}: "
                f"bring that snapshot back, or {_REMEDY}"
            )
        if self.live is not None and self.live != self.occupancy.size:
            return (
                f"{directory}: gives {self.occupancy.size:,} records back of the {self.live:,} there were: its first "
                f"segments or the snapshot they continue are missing; {_REMEDY}"
            )
        return None

    def _head(self, path: str, data: bytes, number: int, newest: bool) -> Head | None:
        try:
            return read_head(data, self.identity, number)
        except ValueError as error:
            raise JournalError(f"{path}: {error}: give this shard another directory") from None
        except Damage as damage:
            if damage.torn and newest and not self.strict:
                return None
            if not self.salvage:
                raise JournalError(f"{path}: damaged at byte 0: {damage}; {_REMEDY}") from None
            self.skipped_bytes += min(HEAD_BYTES, len(data))
            return Head(number, self.lsn, self.identity.capacity, "journal")

    def _changes(
        self, path: str, data: bytes, head: Head, newest: bool
    ) -> Iterator[tuple[int, Entry | None, Change | None]]:
        """(offset, entry, what it says) in order; without an entry where the file is to be cut off."""
        at, first = HEAD_BYTES, True
        while at < len(data):
            try:
                entry = read_entry(data, at)
                if entry.lsn <= self.lsn or not (first or entry.lsn == self.lsn + 1 or self.salvage):
                    raise Damage(f"entry {entry.lsn} follows entry {self.lsn}", end=entry.end)
                if first and entry.kind != Kind.STATE and not self.salvage:
                    raise Damage("the segment does not begin with the shard's state", end=entry.end)
                change = read_change(data, entry, head, self.identity.spec.record_size)
            except Damage as damage:
                if newest and not self._was_acknowledged(data, at, head, damage):
                    yield at, None, None
                    return
                if not self.salvage:
                    raise JournalError(f"{path}: damaged at byte {at}: {damage}; {_REMEDY}") from None
                at = self._skip(data, at, damage)
                continue
            if not first:
                self.skipped_entries += entry.lsn - self.lsn - 1
            self.lsn, first = entry.lsn, False
            yield at, entry, change
            at = entry.end
        if newest and self.lsn < head.durable and not self.salvage:
            raise JournalError(f"{path}: ends at entry {self.lsn}, entry {head.durable} was acknowledged; {_REMEDY}")

    def _cut(self, path: str, data: bytes, length: int) -> None:
        """Take what a crash left off a file, or the file away; on disk before anything is written after it."""
        self.truncated_bytes += len(data) - length
        try:
            if length == 0:
                self.disk.unlink(path)
                self.disk.fsync_dir(os.path.dirname(path))
                return
            handle = self.disk.open(path)
            try:
                self.disk.truncate(handle, length)
                self.disk.fsync(handle)
            finally:
                self.disk.close(handle)
        except OSError as error:
            raise JournalError(f"{path}: its torn end cannot be cut off: {error.strerror}") from None

    def _was_acknowledged(self, data: bytes, at: int, head: Head, damage: Damage) -> bool:
        """Whether the damaged entry can have been acknowledged: if not, a crash explains it."""
        if head.level == "journal":  # acknowledged as soon as it was written whole
            return not damage.torn
        durable, beyond = head.durable, find_entry(data, at + 1)
        while beyond is not None:
            durable = max(durable, beyond.durable)
            beyond = find_entry(data, beyond.end)
        return self.lsn < durable

    def _skip(self, data: bytes, at: int, damage: Damage) -> int:
        """Where to go on behind damage."""
        beyond = damage.end
        if beyond is None:
            entry = find_entry(data, at + 1)
            beyond = len(data) if entry is None else entry.start - ENTRY_BYTES
        if beyond >= len(data):
            self.skipped_entries += 1  # at least: nothing behind it tells how many
        self.skipped_bytes += beyond - at
        return beyond

    def _apply(self, number: int, entry: Entry, change: Change) -> None:
        if isinstance(change, State):
            self.base = change.base
        if entry.lsn <= self.after:
            return
        self.counters, self.live = entry.counters, entry.live
        match change:
            case State():
                try:
                    self.marks.load(change.writers)
                except (ValueError, TypeError) as error:
                    raise JournalError(f"entry {entry.lsn} of the journal: {error}") from None
            case Insert():
                self.table.store(change.rows, change.slots)
                self.occupancy.store(change.slots, number)
                if change.stamp is not None:
                    self.marks.replay(change.stamp)
            case Remove():
                slots = self.occupancy.holding(change.slots)
                self.table.remove(slots)
                self.occupancy.remove(slots)
                self.last_removal = entry.lsn
            case Clear():
                self.table.clear()
                self.occupancy.clear()
                self.last_removal = entry.lsn
            case Epoch():
                self.marks.open(change.writer_id, change.epoch)
