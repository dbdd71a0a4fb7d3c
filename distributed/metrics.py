"""Metrics of a run: one JSON object a line, and TensorBoard."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter


class MetricsWriter:
    """Appends rows to `metrics.jsonl` and the same numbers to TensorBoard.

    Everything that depends on the clock lives under the row's `time` key, so that two runs of the same seed in the
    serial runtime differ nowhere else. A disk that is full ends no run: rows wait until there is room, whole ones only,
    and TensorBoard misses them.

    Args:
        path: the JSONL file.
        tensorboard: TensorBoard's log directory.
        keep_rows: rows to keep of an earlier part of the run; later ones are cut off (they will be written again).
    """

    def __init__(self, path: Path, tensorboard: Path, keep_rows: int) -> None:
        self._file = path.open("ab", buffering=0)
        self._waiting: list[bytes] = []
        self._rows, last = _cut_after(path, keep_rows)
        self._tensorboard = str(tensorboard)
        self._events: EventFileWriter | None = None
        if last:  # tells TensorBoard to forget later points of the part before
            start = SessionLog(status=SessionLog.START)
            step = json.loads(last)["env_steps"] + 1
            self._add_event(Event(wall_time=0.0, step=step, session_log=start))

    @property
    def rows(self) -> int:
        """Rows in the file, and those that wait for room."""
        return self._rows

    def write(self, row: Mapping[str, Any], wall_time: float) -> None:
        """Append one row; `row["env_steps"]` is TensorBoard's step, `wall_time` its seconds since the epoch."""
        self._waiting.append(json.dumps(row).encode() + b"\n")
        self._write_waiting()
        self._rows += 1
        if self._waiting:
            return
        values = [Summary.Value(tag=tag, simple_value=number) for tag, number in _flatten(row) if tag != "env_steps"]
        self._add_event(Event(wall_time=wall_time, step=row["env_steps"], summary=Summary(value=values)))

    def __enter__(self) -> MetricsWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Flush and close both files."""
        self._write_waiting()
        self._file.close()
        self._close_events()

    def _write_waiting(self) -> None:
        """All rows that wait, or none: of a part of them nothing stays."""
        rows = b"".join(self._waiting)
        with suppress(OSError):
            end = self._file.seek(0, os.SEEK_END)
            written = 0
            try:
                written = self._file.write(rows)
            finally:
                if written < len(rows):
                    self._file.truncate(end)
                else:
                    self._waiting = []

    def _add_event(self, event: Event) -> None:
        try:
            if self._events is None:
                self._events = EventFileWriter(self._tensorboard)
            self._events.add_event(event)
        except OSError:  # its thread has ended: the next row tries a file of its own
            self._close_events()

    def _close_events(self) -> None:
        with suppress(OSError):
            if self._events is not None:
                self._events.close()
        self._events = None


def _cut_after(path: Path, rows: int) -> tuple[int, bytes]:
    """Cut a file off after so many whole lines: how many there are, and the last. What stays is not written again."""
    kept, last, end = 0, b"", 0
    with path.open("r+b") as file:
        for line in file:
            if kept == rows or not line.endswith(b"\n"):
                break
            kept, last, end = kept + 1, line, end + len(line)
        file.truncate(end)
    return kept, last


def _flatten(row: Mapping[str, Any], prefix: str = "") -> list[tuple[str, float]]:
    pairs: list[tuple[str, float]] = []
    for name, value in row.items():
        if isinstance(value, Mapping):
            pairs += _flatten(value, f"{prefix}{name}/")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            pairs.append((prefix + name, float(value)))
    return pairs
