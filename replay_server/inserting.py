"""One-shot inserts, and the opening of writers."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from replay_server.clock import Clock
from replay_server.errors import (
    ConfigError,
    HeadraceError,
    ReplayTimeout,
    StaleEpoch,
    StorageFull,
    Unavailable,
    WriterEvicted,
)
from replay_server.members import SILENCE_S, Members
from replay_server.messages import LONGEST_WAIT_S, Stamp
from replay_server.reasons import WaitTimes
from replay_server.replay import Ack, Rows
from replay_server.writer import StreamWriter
from replay_server.writer_marks import MOST_IN_FLIGHT

_IDS = 2**64


@dataclass
class _OneShot:
    """The writer of one-shot inserts into one shard, the shard's incarnation it was opened under, and its epoch.

    `silent_since`: when the first of the inserts was made that the shard has not answered since.
    """

    writer: StreamWriter
    incarnation: int
    epoch: int
    silent_since: float | None = None


class Inserting:
    """Shards take turns, each through a writer of its own, so that an insert is stored once however often it is sent.

    Args:
        members: the shards.
        identity: 0 .. 2^64 - 1, of this client alone; its writers' ids follow from it.
        clock: of waits.
        waits: where the time spent waiting is noted.
    """

    def __init__(self, members: Members, identity: int, clock: Clock, waits: WaitTimes) -> None:
        self._members = members
        self._identity = identity
        self._clock = clock
        self._waits = waits
        self._writers: dict[int, _OneShot] = {}
        self._turn = 0
        self._opened = 0

    def insert(self, rows: Rows, priorities: NDArray[np.float64] | None, timeout_s: float) -> Ack:
        """As `ReplayClient.insert`."""
        deadline = self._clock.now() + timeout_s
        self._members.await_live(deadline)
        position = self._next_position()
        one = self._one_shot(position)
        life, begin = self._members.life[position], self._clock.now()
        try:
            ack = self._store(one, rows, priorities, deadline)
        except WriterEvicted:  # the shard lost its memory: go on under a new epoch
            ack = one.writer.abandon()
            one.incarnation = -1
            if one.writer.refused == ack.unknown and not ack.accepted:  # known not to be stored
                one = self._one_shot(position)
                ack = self._store(one, rows, priorities, deadline)
        if not ack.unknown:
            one.silent_since = None
            return ack
        reason = one.writer.gave_up_for
        if isinstance(reason, ReplayTimeout) and one.writer.refused == ack.unknown and not ack.accepted:
            raise reason
        self._judge(position, life, one, begin)
        return ack

    def _store(self, one: _OneShot, rows: Rows, priorities: NDArray[np.float64] | None, deadline: float) -> Ack:
        writer = one.writer
        try:
            writer.append(rows, priorities, timeout_s=max(deadline - self._clock.now(), 0.0))
            return writer.flush(timeout_s=max(deadline - self._clock.now(), 0.0))
        except StorageFull:
            if not writer.acknowledged:
                raise
            refused = writer.refused
            stored = writer.abandon()
            return Ack(stored.accepted, stored.duplicates, refused, stored.level)
        except (ReplayTimeout, Unavailable, StaleEpoch, WriterEvicted):
            raise
        except HeadraceError:  # a chunk was refused: what became of the others must not pass for the next insert's
            writer.abandon()
            one.incarnation = -1
            raise

    def writer(
        self, writer_id: int | None, epoch: int, max_in_flight: int, shard: int | None, gather_rows: int
    ) -> StreamWriter:
        """As `ReplayClient.writer`."""
        positions = self._members.position_of
        if writer_id is None:
            self._opened += 1
            writer_id = (self._identity + 2**32 + self._opened) % _IDS
        if not (0 <= writer_id < _IDS and 0 <= epoch < 2**32 and 1 <= max_in_flight <= MOST_IN_FLIGHT):
            raise ConfigError(
                f"writer_id {writer_id} (0 .. 2^64 - 1), epoch {epoch} (0 .. 2^32 - 1) or max_in_flight "
                f"{max_in_flight} (1 .. {MOST_IN_FLIGHT}) is out of range"
            )
        if shard is None:
            shard = max(positions, key=lambda index: _rendezvous(writer_id, index))
        if shard not in positions:
            raise ConfigError(f"shard {shard} is not one of {sorted(positions)}")
        return StreamWriter(
            self._members.ports[positions[shard]],
            Stamp(writer_id, epoch, 0),
            max_in_flight=max_in_flight,
            gather_rows=gather_rows,
            clock=self._clock,
            waits=self._waits,
        )

    def state(self) -> dict[str, Any]:
        """JSON-able; of shards in this process."""
        return {
            "turn": self._turn,
            "identity": self._identity,
            "opened": self._opened,
            "sequences": {str(p): [one.epoch, one.writer.sequence] for p, one in self._writers.items()},
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state`."""
        self._turn, self._identity, self._opened = state["turn"], state["identity"], state["opened"]
        self._writers.clear()
        for position, (epoch, sequence) in state["sequences"].items():
            self._open(int(position), epoch, sequence)

    def _next_position(self) -> int:
        """The live shard whose turn it is; there is one."""
        while True:
            position = self._turn % len(self._members)
            self._turn += 1
            if self._members.live[position]:
                return position

    def _one_shot(self, position: int) -> _OneShot:
        """The writer of a shard; in another life of the shard, and for one that was evicted, of a new epoch."""
        one = self._writers.get(position)
        if one is None:
            return self._open(position, 0, 0)
        if one.incarnation != self._members.ports[position].hello.incarnation:
            return self._open(position, one.epoch + 1, 0)
        return one

    def _open(self, position: int, epoch: int, sequence: int) -> _OneShot:
        port = self._members.ports[position]
        stamp = Stamp((self._identity + position) % _IDS, epoch, sequence)
        writer = StreamWriter(port, stamp, clock=self._clock, waits=self._waits)
        self._writers[position] = _OneShot(writer, port.hello.incarnation, epoch)
        return self._writers[position]

    def _judge(self, position: int, life: int, one: _OneShot, begin: float) -> None:
        """Records are unknown: leave the shard out when it cannot be reached, or has been silent for too long."""
        trouble = one.writer.gave_up_for
        if one.silent_since is None:
            one.silent_since = begin
        silent_s = self._clock.now() - one.silent_since
        if isinstance(trouble, Unavailable):
            self._members.leave_out(position, life, str(trouble))
        elif trouble is None and silent_s > SILENCE_S + LONGEST_WAIT_S:
            self._members.leave_out(position, life, f"has not acknowledged anything for {silent_s:.1f} s")


def _rendezvous(writer_id: int, shard: int) -> bytes:
    return hashlib.sha256(writer_id.to_bytes(8, "little") + shard.to_bytes(4, "little")).digest()
