"""A writer of numbered records that tells a history what it asked and what it heard."""

from __future__ import annotations

from fault.history import History
from fault.records import rows
from replay_server.errors import HeadraceError, StaleEpoch
from replay_server.writer import StreamWriter


class NotingWriter:
    """A stream writer whose every call is in the history.

    Args:
        writer: whose rows are this object's alone.
        history: told before and after.
        first: the first record's id; the next ones follow.
        append_s, flush_s: deadlines.
    """

    def __init__(self, writer: StreamWriter, history: History, first: int, append_s: float, flush_s: float) -> None:
        self._writer = writer
        self._history = history
        self._append_s = append_s
        self._flush_s = flush_s
        self._next = first
        self._open: list[int] = []
        self._rows = 0
        self._doubt = False

    def append(self, count: int) -> None:
        """Raises StaleEpoch; other refusals are noted."""
        first, self._next = self._next, self._next + count
        self._history.invoke(first, count)
        try:
            self._writer.append(rows(first, count), timeout_s=self._append_s)
        except HeadraceError as error:
            self._history.outcome("refused", [first], f"{type(error).__name__}: {error}")
            self._doubt = True  # it may have taken an earlier chunk with it
            if isinstance(error, StaleEpoch):
                raise
            return
        self._open.append(first)
        self._rows += count

    def flush(self) -> None:
        """Raises StaleEpoch; after another refusal the calls stay open, for the next flush to account for."""
        try:
            ack = self._writer.flush(timeout_s=self._flush_s)
        except HeadraceError as error:
            self._doubt = True
            if isinstance(error, StaleEpoch):
                raise
            return
        told = ack.accepted + ack.duplicates + ack.unknown
        if not self._doubt and told != self._rows:
            raise AssertionError(f"{told} records accounted for, {self._rows} handed over")
        self._history.outcome("unknown" if self._doubt or ack.unknown else "ok", self._open, f"{ack}")
        self._open, self._rows, self._doubt = [], 0, False
