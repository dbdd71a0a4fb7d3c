"""Metrics of a run: one JSON object a line, and TensorBoard."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter


class MetricsWriter:
    """Appends rows to `metrics.jsonl` and the same numbers to TensorBoard.

    Everything that depends on the clock lives under the row's `time` key, so that two runs of the same seed in the
    serial runtime differ nowhere else.

    Args:
        path: the JSONL file.
        tensorboard: TensorBoard's log directory.
        keep_rows: rows to keep of an earlier part of the run; later ones are cut off (they will be written again).
    """

    def __init__(self, path: Path, tensorboard: Path, keep_rows: int) -> None:
        kept = path.read_text().splitlines(keepends=True)[:keep_rows] if path.exists() else []
        path.write_text("".join(kept))
        self._file = path.open("a")
        self._rows = len(kept)
        self._events = EventFileWriter(str(tensorboard))
        if kept:  # tells TensorBoard to forget later points of the part before
            start = SessionLog(status=SessionLog.START)
            step = json.loads(kept[-1])["env_steps"] + 1
            self._events.add_event(Event(wall_time=0.0, step=step, session_log=start))

    @property
    def rows(self) -> int:
        """Rows in the file."""
        return self._rows

    def write(self, row: Mapping[str, Any], wall_time: float) -> None:
        """Append one row; `row["env_steps"]` is TensorBoard's step, `wall_time` its seconds since the epoch."""
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        self._rows += 1
        values = [Summary.Value(tag=tag, simple_value=number) for tag, number in _flatten(row) if tag != "env_steps"]
        self._events.add_event(Event(wall_time=wall_time, step=row["env_steps"], summary=Summary(value=values)))

    def __enter__(self) -> MetricsWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Flush and close both files."""
        self._file.close()
        self._events.close()


def _flatten(row: Mapping[str, Any], prefix: str = "") -> list[tuple[str, float]]:
    pairs: list[tuple[str, float]] = []
    for name, value in row.items():
        if isinstance(value, Mapping):
            pairs += _flatten(value, f"{prefix}{name}/")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            pairs.append((prefix + name, float(value)))
    return pairs
