"""A program that inserts records of its own until SIGTERM, and notes what it was told."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

import msgspec
import numpy as np

from fault.history import HistoryFile
from fault.records import SPEC, rows
from replay_server import HeadraceError, StaleEpoch, connect
from replay_server.writer import StreamWriter


class Settings(msgspec.Struct, frozen=True):
    """What a writer does.

    Attributes:
        history: file of its calls.
        addresses: the shards; the writer goes to `shard`, or to the one its id hashes to.
        writer_id, epoch: it writes records from writer_id * 2^40 + epoch * 2^32.
        seed: of the sizes of its appends.
        most_rows: in one append.
        pause_s: between two appends.
        append_s, flush_s: deadlines.
    """

    history: str
    addresses: list[str]
    writer_id: int
    epoch: int = 0
    seed: int = 0
    shard: int | None = None
    most_rows: int = 64
    pause_s: float = 0.0
    append_s: float = 2.0
    flush_s: float = 2.0


def first_record(writer_id: int, epoch: int) -> int:
    return (writer_id << 40) + (epoch << 32)


class NotingWriter:
    """A stream writer whose every call is in the history."""

    def __init__(self, writer: StreamWriter, history: HistoryFile, settings: Settings) -> None:
        self._writer = writer
        self._history = history
        self._settings = settings
        self._next = first_record(settings.writer_id, settings.epoch)
        self._open: list[int] = []
        self._rows = 0
        self._doubt = False

    def append(self, count: int) -> None:
        """Raises StaleEpoch; other refusals are noted."""
        first, self._next = self._next, self._next + count
        self._history.invoke(first, count)
        try:
            self._writer.append(rows(first, count), timeout_s=self._settings.append_s)
        except HeadraceError as error:
            self._history.outcome("refused", [first], f"{type(error).__name__}: {error}")
            self._doubt = True  # it may have taken an earlier chunk with it
            if isinstance(error, StaleEpoch):
                raise
            return
        self._open.append(first)
        self._rows += count

    def flush(self) -> None:
        """Raises StaleEpoch; other refusals are noted."""
        doubt, note = self._doubt, ""
        try:
            ack = self._writer.flush(timeout_s=self._settings.flush_s)
            told = ack.accepted + ack.duplicates + ack.unknown
            doubt = doubt or ack.unknown > 0
            note = f"{ack}"
            if not doubt and told != self._rows:
                raise AssertionError(f"{told} records accounted for, {self._rows} handed over")
        except HeadraceError as error:
            doubt, note = True, f"{type(error).__name__}: {error}"
            if isinstance(error, StaleEpoch):
                raise
        finally:
            self._history.outcome("unknown" if doubt else "ok", self._open, note)
            self._open, self._rows, self._doubt = [], 0, False


def main(text: str) -> None:
    ended: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: ended.append(number))
    settings = msgspec.json.decode(text, type=Settings)
    history = HistoryFile(Path(settings.history))
    rng = np.random.default_rng(settings.seed)
    with connect(settings.addresses, spec=SPEC, prefetch=0) as replay:
        stream = replay.writer(writer_id=settings.writer_id, epoch=settings.epoch, shard=settings.shard)
        writer = NotingWriter(stream, history, settings)
        try:
            while not ended:
                for _ in range(int(rng.integers(1, 9))):
                    writer.append(int(rng.integers(1, settings.most_rows + 1)))
                    if settings.pause_s:
                        time.sleep(settings.pause_s)
                writer.flush()
            writer.flush()
        except StaleEpoch as error:
            history.note(f"StaleEpoch: {error}")


if __name__ == "__main__":
    main(sys.argv[1])
