"""The contract of a replay: what actors write to and learners sample from, in this process or another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from replay_server.batches import SampleBatch
from replay_server.specs import RecordSpec

Rows = Mapping[str, NDArray[Any]] | NDArray[np.uint8]
"""Columns {name: [B, *shape]} or packed records uint8[B, record_size]."""


@dataclass(frozen=True)
class Ack:
    """What became of the records handed over: stored, already there, or not known (deadline passed, shard lost).

    `level` says what the acknowledgement survives: `checkpoint` (nothing until the next checkpoint), `journal` (the
    shard's process being killed) or `fsync` (power loss).
    """

    accepted: int
    duplicates: int = 0
    unknown: int = 0
    level: str = "checkpoint"


@dataclass(frozen=True)
class UpdateReport:
    """Priority updates since the last report: applied, and stale ones that changed nothing."""

    applied: int
    stale: int


@dataclass(frozen=True)
class Waits:
    """Calls that had to wait for one reason since the shard started, and the seconds they spent."""

    calls: int
    seconds: float


@dataclass(frozen=True)
class Calls:
    """Calls of one method that a server answered since it started.

    `seconds` is the sum of the times they took, `latency` how many took how long (`call_meter.LATENCY_BOUNDS`),
    `bytes_in` and `bytes_out` are those that gRPC carried; what lies in shared memory is not among them.
    """

    count: int
    seconds: float
    bytes_in: int
    bytes_out: int
    latency: tuple[int, ...]


@dataclass(frozen=True)
class SnapshotStats:
    """Snapshots taken since the start, those a journal builds on included; the longest pause is of their cuts."""

    taken: int = 0
    seconds: float = 0.0
    longest_pause_s: float = 0.0


@dataclass(frozen=True)
class JournalStats:
    """A shard's journal.

    `bytes` are on disk and needed, `garbage` is the share of them that tells of records nobody can draw any more,
    `pending_removals` wait for room on the disk; `syncs` times since the start it was written back, which took
    `sync_seconds`. `trouble`: why it takes nothing any more, or cannot be shortened; None while all is well.
    """

    bytes: int
    garbage: float
    pending_removals: int
    syncs: int
    sync_seconds: float
    trouble: str | None = None


@dataclass(frozen=True)
class ShardStats:
    """One shard's counters.

    `size` and `capacity` in records; `inserted` and `sampled` count records over the table's life (`sampled` is what
    the rate limiter was credited with); `priority_mass` is the sum of p^alpha; `fenced` counts records refused from
    replaced writers; `blocked_on` is what the oldest waiting call waits for, or None. `state` is `serving`, or
    `unreachable` with the `reason`: such a shard is left out, and shows the counters it was last seen with.

    Since the shard started: `duplicates` are records that had been stored already, `drawn` rows sampled, `updated` and
    `stale` priority updates that were applied or came too late, `waits` by reason. `level` is what acknowledged inserts
    survive. Of a shard behind a server also `uptime_s` seconds, `calls` by method, `refusals` by error and `sessions`
    of shared memory.
    """

    address: str
    size: int
    capacity: int
    inserted: int
    sampled: float
    priority_mass: float
    fenced: int
    blocked_on: str | None
    state: str = "serving"
    reason: str | None = None
    shard: int = 0
    level: str = "checkpoint"
    duplicates: int = 0
    drawn: int = 0
    updated: int = 0
    stale: int = 0
    waits: Mapping[str, Waits] = field(default_factory=dict)
    snapshots: SnapshotStats = SnapshotStats()
    journal: JournalStats | None = None
    uptime_s: float = 0.0
    calls: Mapping[str, Calls] = field(default_factory=dict)
    refusals: Mapping[str, int] = field(default_factory=dict)
    sessions: int = 0


@dataclass(frozen=True)
class ReplayStats:
    """Counters summed over shards, the transport in use, and each shard's own.

    `share_deviation` is the total variation distance, 0 to 1, between the shares by which shards were chosen for the
    last batch and those of the mass they held when they served it. `waited` is seconds by reason that this client and
    its writers have waited so far.
    """

    size: int
    capacity: int
    inserted: int
    sampled: float
    transport: str
    shards: tuple[ShardStats, ...]
    share_deviation: float = 0.0
    waited: Mapping[str, float] = field(default_factory=dict)


class Writer(Protocol):
    """A stream of inserts of its own: a writer id, an epoch, sequence numbers and a bounded window."""

    @property
    def acknowledged(self) -> int:
        """Records stored since the last flush, as far as the replies that have come in tell."""

    def append(self, rows: Rows, priorities: NDArray[np.float64] | None = None, *, timeout_s: float = 5.0) -> None:
        """Copy rows and send them on; waits only while the window is full.

        Raises:
            ReplayTimeout: the window stayed full; nothing of `rows` was taken, call again with the same rows.
            StaleEpoch: a newer epoch of this writer exists.
        """

    def flush(self, *, timeout_s: float = 5.0) -> Ack:
        """Wait until everything appended is acknowledged; counts since the last flush."""

    def close(self) -> None:
        """Flush with a short deadline and end."""


class Replay(Protocol):
    """Prioritized replay over one or many shards.

    The loop a learner lives in::

        batch = replay.sample(512)
        priorities = learner.step(batch).priorities
        replay.update_priorities(batch.keys, priorities)
    """

    @property
    def spec(self) -> RecordSpec: ...

    def insert(self, rows: Rows, priorities: NDArray[np.float64] | None = None, *, timeout_s: float = 5.0) -> Ack:
        """Store rows and return when they are acknowledged; priorities float64[B], default the table's largest."""

    def writer(self, *, writer_id: int | None = None, epoch: int = 0, max_in_flight: int = 8) -> Writer:
        """Open a stream of inserts; the same writer_id with a higher epoch fences the older one."""

    def sample(self, batch_size: int, *, timeout_s: float = 5.0) -> SampleBatch:
        """Draw records with replacement, with probability proportional to p^alpha over all shards."""

    def update_priorities(self, keys: NDArray[Any], priorities: NDArray[np.float64]) -> None:
        """Queue new priorities (finite, >= 0); they travel with the next sample call or flush."""

    def flush(self, *, timeout_s: float = 5.0) -> UpdateReport:
        """Send what is queued and report updates since the last report."""

    def stats(self) -> ReplayStats: ...

    def clear(self) -> None:
        """Remove every record; keys handed out before become stale."""

    def save(self, directory: str) -> list[str]:
        """Every shard writes `replay-<shard>.h5` into the directory (made beside, then renamed); returns the names."""

    def close(self) -> None: ...
