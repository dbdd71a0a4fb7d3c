"""A writer that goes on when its shard has lost the memory of it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from replay_server.client import ReplayClient
from replay_server.errors import WriterEvicted
from replay_server.replay import Ack, Rows
from replay_server.writer import StreamWriter

_EPOCHS = 1 << 12
"""Times a writer may be opened again under one epoch of its owner."""


class ReopeningWriter:
    """A stream of inserts into the one shard of a client; opened again, one epoch higher, by a shard that forgot it.

    A shard forgets a writer when it comes back from an older checkpoint, or empty. What was under way then may be
    stored or not; it is given up and counted, and everything after it goes on. Implements `replay.Writer`.

    Args:
        replay: a client of one shard.
        writer_id: 0 .. 2^64 - 1.
        epoch: 0 .. 2^20 - 1, of the owner; a higher one fences this writer.
        max_in_flight: chunks under way at most.
        gather_rows: rows of small appends gathered for one chunk.
    """

    def __init__(
        self, replay: ReplayClient, *, writer_id: int, epoch: int, max_in_flight: int, gather_rows: int
    ) -> None:
        self._replay = replay
        self._writer_id = writer_id
        self._epoch = epoch * _EPOCHS
        self._max_in_flight = max_in_flight
        self._gather_rows = gather_rows
        self._acknowledged = 0
        self.given_up = 0
        """Records that were under way when the shard forgot this writer."""
        self._writer = self._open()

    @property
    def acknowledged(self) -> int:
        """Records stored since the last flush, as far as the replies that have come in tell."""
        return self._acknowledged + self._writer.acknowledged

    def append(self, rows: Rows, priorities: NDArray[np.float64] | None = None, *, timeout_s: float = 5.0) -> None:
        """As `StreamWriter.append`, but for WriterEvicted."""
        try:
            self._writer.append(rows, priorities, timeout_s=timeout_s)
        except WriterEvicted:
            self._reopen()
            self._writer.append(rows, priorities, timeout_s=timeout_s)

    def flush(self, *, timeout_s: float = 5.0) -> Ack:
        """As `StreamWriter.flush`; what was given up counts as unknown."""
        try:
            ack = self._writer.flush(timeout_s=timeout_s)
        except WriterEvicted:
            before = self.given_up
            self._reopen()
            ack = Ack(0, 0, self.given_up - before)
        earlier, self._acknowledged = self._acknowledged, 0
        return Ack(earlier + ack.accepted, ack.duplicates, ack.unknown, ack.level)

    def close(self) -> None:
        """Flush with a short deadline and end."""
        self._writer.close()

    def _reopen(self) -> None:
        ack = self._writer.abandon()
        self._acknowledged += ack.accepted + ack.duplicates
        self.given_up += ack.unknown
        self._epoch += 1
        self._writer = self._open()

    def _open(self) -> StreamWriter:
        return self._replay.writer(
            writer_id=self._writer_id,
            epoch=self._epoch,
            max_in_flight=self._max_in_flight,
            gather_rows=self._gather_rows,
        )
