"""The journal of a shard: what changed it, on disk before it is acknowledged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from replay_server.disk import Disk
from replay_server.messages import Stamp
from replay_server.specs import RecordSpec
from replay_server.table import Checked


class Counters(NamedTuple):
    """A shard's, after the operation that is written: rows ever inserted, credits ever sampled, rows ever fenced."""

    inserted: int = 0
    sampled: float = 0.0
    fenced: int = 0


class RecoveredTable(Protocol):
    """What recovery does to a table."""

    size: int

    def live_slots(self) -> NDArray[Any]:
        """The slots that hold a record."""

    def store(self, rows: Checked, slots: NDArray[np.int64]) -> None: ...

    def remove(self, slots: NDArray[np.int64]) -> None: ...

    def clear(self) -> None: ...


class RecoveredMarks(Protocol):
    """What recovery does to the memory of writers, and what the journal asks of it at the start of a segment."""

    def to_json(self) -> list[list[Any]]:
        """Everything, as JSON values."""

    def restore(self, rows: list[list[Any]]) -> None:
        """Become what `to_json` said."""

    def open(self, writer_id: int, epoch: int) -> None:
        """Epoch `epoch` of this writer is open; of an epoch open already, nothing."""

    def add(self, stamp: Stamp) -> None:
        """A chunk of an open epoch was stored."""


@dataclass(frozen=True)
class Recovered:
    """What a journal gave back.

    Attributes:
        counters: as of the last entry.
        position: lsn of the last entry.
        records: live ones now in the table.
        truncated_bytes: of a write that was under way when the shard ended, cut off the last segment.
        skipped_entries, skipped_bytes: left out by salvage: entries known to be missing and bytes not understood.
        damaged: names of segments salvage left something out of. While there are any the journal is refused at the
            next start again: take a snapshot at once (`begin_snapshot`, `forget_before`).
    """

    counters: Counters
    position: int
    records: int
    truncated_bytes: int
    skipped_entries: int
    skipped_bytes: int
    damaged: tuple[str, ...]


class Journal:
    """An append-only log in segment files. One caller at a time (the shard's lock); `wait_durable` from any thread.

    Use: `open`, then `recover` (also of an empty directory), then the rest, `close` at the end.
    """

    position: int
    """lsn of the last entry written; 0 when there is none."""
    bytes: int
    """Of all segment files."""
    garbage_ratio: float
    """Share of `bytes` that is not the records of live slots."""
    overhead_bytes: int
    """Memory beyond the table's, for the budget."""

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
        """Take the directory (made when missing) for this process.

        Raises:
            ConfigError: an unknown level, or another process holds the directory.
            JournalError: it cannot be read, or a segment is missing between others.
        """
        raise NotImplementedError

    def recover(self, table: RecoveredTable, marks: RecoveredMarks, after: int = 0) -> Recovered:
        """Apply every entry later than lsn `after` (0, or the position of the snapshot the table was read from).

        Raises:
            JournalError: damaged (names segment, offset and remedy), or of another spec, shard or format.
        """
        raise NotImplementedError

    def insert(
        self, slots: NDArray[np.int64], rows: Checked, stamp: Stamp | None, counters: Counters, *, priority: float
    ) -> int:
        """Write an insert of B checked rows into `slots` int64[B]; `priority` is for rows without priorities.

        Call it before anything is changed. Returns its lsn.

        Raises:
            StorageFull: nothing was changed; try again later.
            JournalError: the journal takes nothing more.
        """
        raise NotImplementedError

    def remove(self, slots: NDArray[np.int64], counters: Counters) -> None:
        """Records left the table. Never fails: what cannot be written now is written before the next entry."""
        raise NotImplementedError

    def clear(self, counters: Counters) -> int:
        """Every record leaves the table; raises and returns as `insert`."""
        raise NotImplementedError

    def open_epoch(self, writer_id: int, epoch: int, counters: Counters) -> int:
        """A writer opens an epoch, the older one is fenced; raises and returns as `insert`."""
        raise NotImplementedError

    def wait_durable(self, lsn: int, timeout_s: float) -> None:
        """Until entry `lsn` survives a power loss; at level `journal` at once. Not under the shard's lock.

        Raises:
            ReplayTimeout: not within `timeout_s`.
            JournalError: the disk failed to write back; the entry may or may not be there after a restart.
        """
        raise NotImplementedError

    def begin_snapshot(self) -> int:
        """The position a snapshot taken now stands for; under the shard's lock, in one step with the capture.

        No later segment is deleted until `forget_before` of it or `abandon_snapshot`.
        """
        raise NotImplementedError

    def forget_before(self, lsn: int) -> None:
        """The snapshot of position `lsn` is on disk for good: delete the segments it covers."""
        raise NotImplementedError

    def abandon_snapshot(self) -> None:
        """The snapshot begun last will not be finished."""
        raise NotImplementedError

    def close(self) -> None:
        """Write back what is waited for and let go of the directory."""
        raise NotImplementedError
